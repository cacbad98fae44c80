"""The house as its design says, where no linter does: docstrings, examples, sizes, one version.

The floors are contracts of import-linter in pyproject.toml.
"""

import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re
from typing import NamedTuple

import grimp
import pytest
from real_commands import no_flags

import experiments
import sam_jax

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "sam_jax"
MOST_LINES = 400


def source_files(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_the_front_door_holds_public_names_alone():
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body[1:]
    assert body and all(isinstance(node, ast.ImportFrom) for node in body)
    assert all(alias.asname == alias.name for node in body for alias in node.names)


def test_no_room_imports_the_whole_package():
    graph = grimp.build_graph("sam_jax", cache_dir=None)
    assert "sam_jax.optim" in graph.modules
    assert graph.find_modules_that_directly_import("sam_jax") == set()


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


ROOMS = ["sam_jax"] + [
    f"sam_jax.{info.name}" for info in pkgutil.iter_modules(sam_jax.__path__) if info.ispkg
]
SURFACE = [
    pytest.param(thing, id=f"{room}.{name}")
    for room in ROOMS
    for name, thing in public_objects(room).items()
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
        returns = inspect.signature(thing).return_annotation is not None
        if returns and "Returns:" not in doc and not first.startswith("Return"):
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
    with no_flags():
        return importlib.import_module(name)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    results = doctest.testmod(load(name))
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples failed"


def with_examples(module):
    """Return the full names of what has an example that `test_examples_in_docstrings` runs."""
    return {test.name for test in doctest.DocTestFinder().find(module) if test.examples}


def test_every_public_function_has_an_example():
    functions = {p.values[0] for p in SURFACE if inspect.isfunction(p.values[0])}
    names = {f"{f.__module__}.{f.__qualname__}" for f in functions}
    assert len(names) > 100
    assert names - {name for module in MODULES for name in with_examples(load(module))} == set()


def test_a_missing_example_is_found():
    found = with_examples(importlib.import_module("sam_jax.optim.averages"))
    assert "sam_jax.optim.averages.swa" in found
    assert "sam_jax.optim.averages._averaging" not in found
