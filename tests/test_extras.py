"""What the package needs: the core three packages, the laboratory the extra that it names."""

import ast
import importlib.metadata
import pathlib
import runpy
import sys
from unittest import mock

import pytest
from packaging.requirements import Requirement
from real_commands import ROOT, environment, output_of

CORE = ("jax", "numpy", "optax")
# For those who have it: an adapter imports it when it is called, and there are examples. The
# benchmark's files for a Python with PyTorch import each other as that finds them.
OPTIONAL = {
    "optim": {"flax"},
    "experiments": {"equinox", "keras", "torch", "torch_side", "worker", "nets"},
}
ROOMS = {  # where `needs` is called -> the files that it speaks for
    **{path.parent.name: path.parent for path in (ROOT / "sam_jax").glob("*/__init__.py")},
    "experiments": ROOT / "experiments",
}
LABORATORY = [
    *(f"sam_jax.{room}" for room in ("data", "models", "paths", "plotting", "runs", "training")),
    *("sam_jax.measuring", "sam_jax.train", "sam_jax.evaluate", "sam_jax.data.prepare"),
    *("experiments.even_better.__main__", "experiments.variants.__main__"),
]
USES_THE_CORE = """
import importlib, sys
import jax, jax.numpy as jnp, optax, sam_jax
from sam_jax import metrics, optim

loss_fn = lambda params, *batch: jnp.sum(params["w"] ** 4)
params = {"w": jnp.ones(3)}
tx = optax.chain(optim.sam(rho=0.1), optax.sgd(0.1))
gradient = jax.grad(loss_fn)
updates, _ = tx.update(gradient(params), tx.init(params), params, grad_fn=gradient)
print(metrics.adversarial_sharpness(loss_fn, params, {"x": jnp.ones((1, 1))}, rho=0.1).sharpness)
print(metrics.hessian_eigenvalues(loss_fn, params, steps=2, key=jax.random.key(0)))
print([name for name in (*NOT_CORE, "scipy.stats") if name in sys.modules])
for name in LABORATORY:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(name, "->", error)
"""


def third_party_imports(folder):
    """Return the packages that the files of a folder import, anywhere in them."""
    names = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"sam_jax", "experiments", "configs"}


def asked_for(folder):
    """Return extra -> packages, of every call of `needs` in the files of a folder."""
    asked = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "extras.needs":
                extra, *names = [argument.value for argument in node.args[1:]]
                asked.setdefault(extra, set()).update(names)
    return asked


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_asks_for_what_it_imports(room):
    asked = set().union(*asked_for(ROOMS[room]).values())
    assert third_party_imports(ROOMS[room]) - asked - set(CORE) == OPTIONAL.get(room, set())


def test_an_extra_brings_what_is_asked_for():
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    settings = setup.call_args.kwargs
    assert {Requirement(text).name for text in settings["install_requires"]} == set(CORE)
    provided = {
        extra: {Requirement(text).name.lower().replace("-", "_") for text in texts}
        for extra, texts in settings["extras_require"].items()
    }
    distributions = importlib.metadata.packages_distributions()
    asked = [pair for room in ROOMS.values() for pair in asked_for(room).items()]
    assert {extra for extra, _ in asked} == {"lab", "tfds", "safetensors", "wandb", "mlflow"}
    for extra, packages in asked:
        for package in packages:
            names = {name.lower().replace("-", "_") for name in distributions[package]}
            assert names & provided[extra], (extra, package)
    assert all(provided["lab"] < provided[extra] for extra in provided.keys() - {"lab"})


def distributions_of(names):
    """Return the distributions of these names, and all that they require without extras."""
    found, pending = {}, list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            requirements = map(Requirement, found[name].requires or ())
            pending += [r.name for r in requirements if not r.marker or r.marker.evaluate()]
    return found


@pytest.mark.commands
def test_the_core_needs_three_packages(tmp_path):
    """The library works where nothing else is, and the laboratory names its extra."""
    packages = {"sam_jax": ROOT / "sam_jax", "experiments": ROOT / "experiments"}
    for distribution in distributions_of(CORE).values():
        tops = {path.parts[0] for path in distribution.files if path.parts[0] != ".."}
        packages |= {top: pathlib.Path(distribution.locate_file(top)) for top in tops}
    for name, path in packages.items():
        (tmp_path / name).symlink_to(path)
    not_core = {"flax", "matplotlib", "ml_collections", "orbax", "tensorflow"}
    program = f"NOT_CORE = {not_core}\nLABORATORY = {LABORATORY}\n{USES_THE_CORE}"
    # -S leaves out the folder of the installed packages.
    command = ("-c", f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{program}")
    kept = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
    lines = output_of(*command, interpreter=("-S", "-P"), cwd=tmp_path, env=kept).splitlines()
    assert lines[-len(LABORATORY) - 1] == "[]"
    for name, line in zip(LABORATORY, lines[-len(LABORATORY) :], strict=True):
        assert line.startswith(f"{name} -> ") and line.count(". ") == 0
        assert " needs " in line and line.endswith('run `pip install "sam_jax[lab]"`.')
