"""The house as its design says: floors, sizes, docstrings, examples, one version."""

import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re
from typing import NamedTuple

import pytest
from absl import flags
from real_commands import output_of

import experiments
import sam_jax

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "sam_jax"
# The first part of a module's name within sam_jax, and its floor. Rooms of one floor do not import
# each other, and nothing imports from above. What is not listed has no floor and fails.
FLOORS = {
    "typing": 0,
    "pytree": 0,
    "draws": 0,
    "extras": 0,
    "known": 0,
    "moved": 0,
    "shardings": 0,
    "version": 0,
    "optim": 1,
    "metrics": 1,
    "models": 1,
    "data": 1,
    "statistics": 1,
    "runs": 2,
    "plotting": 2,
    "training": 3,
    "measuring": 4,
    "paths": 5,
    "train": 6,
    "commands": 6,
    "evaluate": 6,
}
GROUND = ("extras", "typing", "known", "shardings", "pytree", "draws")  # each above those before
MOST_LINES = 400


def source_files(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported_modules(source):
    """Return the dotted names that a source imports, anywhere in it, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            found += [(f"{prefix}.{alias.name}", node.lineno) for alias in node.names]
    return found


def room_of(module):
    """Return the room of "sam_jax.room.module", None outside of sam_jax."""
    parts = module.split(".")
    return parts[1] if parts[0] == "sam_jax" and len(parts) > 1 else None


def floor_errors(room, source):
    """Return what a source of a room imports against the rules of the floors."""
    errors = []
    for module, line in imported_modules(source):
        if module.startswith("."):
            errors.append(f"{line}: relative import {module}")
        elif module.split(".")[0] in ("experiments", "configs", "tests"):
            errors.append(f"{line}: {module} from outside the package")
        elif module == "sam_jax":
            errors.append(f"{line}: the whole package")
        elif (other := room_of(module)) is not None and other != room:
            if other not in FLOORS:
                errors.append(f"{line}: {module} has no floor")
            elif FLOORS[room] and FLOORS[other] >= FLOORS[room]:
                errors.append(f"{line}: {module} is not below {room}")
            elif (
                not FLOORS[room]
                and other not in GROUND[: GROUND.index(room) if room in GROUND else 0]
            ):
                errors.append(f"{line}: {module} is not below {room}")
    return errors


def room_of_file(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", source_files("sam_jax"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_imports_run_downwards(path):
    room = room_of_file(path)
    if room == "__init__":  # the front door: public names and nothing else
        body = ast.parse(path.read_text()).body[1:]
        assert body and all(isinstance(node, ast.ImportFrom) for node in body)
        assert all(alias.asname == alias.name for node in body for alias in node.names)
        return
    assert room in FLOORS, f"{room} has no floor; name one in FLOORS"
    assert floor_errors(room, path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("optim", "import sam_jax.training.step"),
        ("optim", "from sam_jax.metrics.sharpness import average"),
        ("optim", "from sam_jax import models"),
        ("metrics", "def f():\n    from sam_jax import optim"),
        ("training", "from sam_jax import measuring"),
        ("runs", "from sam_jax import plotting"),
        ("training", "from sam_jax.train import main"),
        ("pytree", "from sam_jax.optim.checks import check"),
        ("typing", "from sam_jax.version import __version__"),
        ("data", "import sam_jax"),
        ("data", "from . import sources"),
        ("data", "from ..optim import sam"),
        ("training", "from experiments.even_better import results"),
        ("training", "import sam_jax.unknown.module"),
    ],
)
def test_a_wrong_import_is_found(room, source):
    assert len(floor_errors(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("optim", "from sam_jax.optim.checks import check\nfrom sam_jax import pytree\nimport jax"),
        ("training", "from sam_jax import data, models, optim\nimport sam_jax.metrics.presets"),
        ("pytree", "from sam_jax.typing import Key"),
        ("train", "from sam_jax.training.fit import fit"),
    ],
)
def test_a_right_import_is_not(room, source):
    assert floor_errors(room, source) == []


def config_errors(source):
    return [module for module, _ in imported_modules(source) if module.split(".")[0] == "sam_jax"]


def test_configs_import_nothing_from_the_package():
    files = source_files("configs")
    assert files
    assert {str(path): config_errors(path.read_text()) for path in files} == {
        str(path): [] for path in files
    }
    assert config_errors("from sam_jax import data") and config_errors("import sam_jax.data.x")


def test_no_file_is_long():
    files = source_files("sam_jax", "configs", "experiments", "tests")
    assert len(files) > 50
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in files}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}


def test_the_version_is_in_one_place():
    pattern = rf"(?<![\d.]){re.escape(sam_jax.__version__)}(?![\d.])"
    files = [*source_files("sam_jax", "configs", "experiments"), ROOT / "setup.py"]
    files.append(ROOT / "pyproject.toml")
    assert [path.relative_to(ROOT) for path in files if re.search(pattern, path.read_text())] == [
        pathlib.Path("sam_jax/version.py")
    ]
    assert "version.py" in (ROOT / "setup.py").read_text()


@pytest.mark.commands
def test_import_is_light():
    """The library needs neither the data sets' nor the laboratory's packages."""
    heavy = (
        *("tensorflow", "tensorflow_datasets", "matplotlib", "orbax", "flax", "tensorboardX"),
        "scipy.stats",
    )
    program = f"import sys, sam_jax; print([n for n in {heavy} if n in sys.modules])"
    assert output_of("-c", program).strip() == "[]"


# ---------------------------------------------------------------------------- docstrings


def public_objects(module_name):
    """Return the names that a module exports with functions, classes or modules behind them."""
    module = importlib.import_module(module_name)
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    names = [
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    ]
    names += [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    objects = {name: getattr(module, name) for name in names}
    return {name: x for name, x in objects.items() if callable(x) or inspect.ismodule(x)}


SURFACE = [
    pytest.param(thing, id=f"{module}.{name}")
    for module in (
        *("sam_jax", "sam_jax.metrics", "sam_jax.statistics", "sam_jax.data"),
        *("sam_jax.models", "sam_jax.optim"),
    )
    for name, thing in public_objects(module).items()
]


def described_fields(cls):
    """Return the fields with a comment where they stand, or whose words are in the docstring."""
    lines = inspect.getsource(cls).splitlines()
    described = set()
    for node in ast.parse("\n".join(lines)).body[0].body:
        if isinstance(node, ast.AnnAssign):
            above, line = lines[node.lineno - 2].strip(), lines[node.end_lineno - 1]
            words = [word for word in node.target.id.split("_") if len(word) > 3]
            named = words and all(re.search(rf"\b{w}", cls.__doc__, re.I) for w in words)
            if "#" in line or above.startswith("#") or named:
                described.add(node.target.id)
    return described


def docstring_errors(thing):
    """Return what the docstring of a module, class or function lacks."""
    doc = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    if not doc or not doc.strip():
        return ["no docstring"]
    errors = []
    first = doc.strip().splitlines()[0]
    if not first.endswith("."):
        errors.append("the first line is no sentence")
    if inspect.isfunction(thing):
        parameters = inspect.signature(thing).parameters
        if parameters and "Args:" not in doc:
            errors.append("no Args")
        missing = [n for n in parameters if not re.search(rf"^\s+\*{{0,2}}{n}:", doc, re.M)]
        errors += [f"parameter {name} is not described" for name in missing]
        if "Returns:" not in doc and not first.startswith("Return"):
            errors.append("no Returns")
    elif inspect.isclass(thing) and getattr(thing, "__annotations__", {}):
        # Flax adds `parent` and `name` to every module.
        fields = [n for n in thing.__annotations__ if n not in ("parent", "name")]
        if "Attributes:" in doc:
            described = {n for n in fields if re.search(rf"^\s+{n}:", doc, re.M)}
        else:
            described = described_fields(thing)
        errors += [f"attribute {name} is not described" for name in fields if name not in described]
    return errors


@pytest.mark.parametrize("thing", SURFACE)
def test_public_names_are_documented(thing):
    assert docstring_errors(thing) == []


class Fields(NamedTuple):
    """A small radius, and more."""

    radius: float
    value: float
    loss: float  # in nats


def test_a_missing_section_is_found():
    def bare(x):
        return x

    def no_sections(x):
        """Do something."""

    def half(x, y):
        """Do something.

        Args:
          x: a number.

        Returns:
          Nothing.
        """

    def good(x):
        """Return something.

        Args:
          x: a number.
        """

    assert docstring_errors(bare) == ["no docstring"]
    assert docstring_errors(no_sections) == [
        "no Args",
        "parameter x is not described",
        "no Returns",
    ]
    assert docstring_errors(half) == ["parameter y is not described"]
    assert docstring_errors(good) == []
    assert docstring_errors(Fields) == ["attribute value is not described"]
    assert len(SURFACE) > 25


# ---------------------------------------------------------------------------- examples

MODULES = ["sam_jax", "experiments"] + [
    info.name
    for package in (sam_jax, experiments)
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


def load(name):
    """Import a module; the commands' flags are taken back, for two may not define the same."""
    before = set(flags.FLAGS)
    module = importlib.import_module(name)
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    return module


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    results = doctest.testmod(load(name))
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples failed"


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert sum(len(test.examples) for name in MODULES for test in finder.find(load(name))) > 50
