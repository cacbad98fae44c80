"""Every config in the repository builds, is complete, and runs for real in its smoke variant."""

import ast
import importlib
import math
import pathlib

import pytest
from real_commands import output_of

from experiments.study.study import check_training
from experiments.variants.methods import study_methods, training_config
from sam_jax.measuring import measure
from sam_jax.runs import records, workdirs
from sam_jax.training import build
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(p for p in (ROOT / "configs").rglob("*.py") if p.name != "__init__.py")


def load(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return importlib.import_module(name)


def is_study(config):
    return "training" in config


def identify(path):
    return str(path.relative_to(ROOT))


TRAININGS = [path for path in FILES if not is_study(load(path).get_config())]
STUDIES = [path for path in FILES if path not in TRAININGS]


def keys(tree, prefix=""):
    """Return the names of all fields; those of the model differ from model to model."""
    found = set()
    for name, value in tree.items():
        if isinstance(value, dict) and name != "model":
            found |= keys(value, f"{prefix}{name}.")
        else:
            found.add(prefix + name)
    return found


def study_module(path):
    """Return the command of a study: configs/NAME/x.py belongs to experiments.NAME."""
    return ".".join(("experiments", *path.parent.relative_to(ROOT / "configs").parts))


def studies(name):
    return [path for path in STUDIES if path.parent.name == name]


def test_every_study_has_configs():
    commands = (ROOT / "experiments").rglob("__main__.py")
    assert {study_module(path) for path in STUDIES} == {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in commands
        if "STUDY = Study(" in path.read_text()
    }


@pytest.mark.parametrize("variant", ["", "smoke"])
@pytest.mark.parametrize("path", FILES, ids=identify)
def test_builds_and_is_complete(path, variant):
    config = load(path).get_config(variant)
    # Each study has its own base, in its folder.
    folder = path.parent if path in STUDIES else ROOT / "configs"
    base = load(folder / "digits.py").get_config()
    assert keys(workdirs.plain(config)) == keys(workdirs.plain(base))
    model = config.training.model if is_study(config) else config.model
    assert {"name", "dtype"} <= set(model)
    # Two calls share nothing that one could change for the other.
    assert load(path).get_config(variant) is not config
    assert workdirs.plain(load(path).get_config(variant)) == workdirs.plain(config)


@pytest.mark.parametrize("variant", ["", "smoke"])
@pytest.mark.parametrize("path", FILES, ids=identify)
def test_every_field_is_in_its_range(path, variant):
    config = load(path).get_config(variant)
    if path in STUDIES:
        importlib.import_module(f"{study_module(path)}.__main__").STUDY.check(config)
    else:
        check_training(config)


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_an_unknown_variant_is_refused(path):
    with pytest.raises(ValueError, match="\"smoke\".*'tiny'"):
        load(path).get_config("tiny")


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_a_misspelt_field_is_an_error(path):
    config = load(path).get_config()
    with pytest.raises((AttributeError, KeyError)):
        config.seeed = 1
    training = config.training if is_study(config) else config
    with pytest.raises((AttributeError, KeyError)):
        training.method.rhoo = 0.1


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_the_header_has_the_command(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    module = study_module(path) if path in STUDIES else "sam_jax.train"
    command = " ".join(header.replace("\\\n", " ").split())
    assert f"python -m {module} --config={identify(path)} --workdir=" in command
    assert command[0].isupper() and "NUMBERS" not in command


@pytest.mark.commands
def test_configs_need_only_ml_collections():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES]
    program = (
        f"import sys, importlib\nfor n in {names}: importlib.import_module(n).get_config()\n"
        "print([n for n in ('jax', 'sam_jax', 'tensorflow') if n in sys.modules])"
    )
    assert output_of("-c", program).strip() == "[]"


def test_the_study_on_cifar10_augments_as_it_was_trained():
    config = load(ROOT / "configs" / "even_better" / "cifar10.py").get_config()
    names = ("autoaugment_cifar10_torchvision", "flip", "crop_reflect", "cutout")
    data = config.training.data
    assert (tuple(data.augmentation), data.pad, data.cutout_size) == (names, 4, 16)


@pytest.mark.e2e
@pytest.mark.parametrize("path", FILES, ids=identify)
def test_the_smoke_variant_trains(path, tmp_path):
    """Of a study its training; the whole command is tested on the smallest net beside the study."""
    config = load(path).get_config("smoke")
    config = config.training if is_study(config) else config
    record = train_and_evaluate(config, tmp_path)
    history = records.read(tmp_path / "metrics.jsonl")
    assert [r["epoch"] for r in history] == list(range(1, config.epochs + 1))
    assert record == history[-1] and all(math.isfinite(value) for value in record.values())
    assert 0 <= record["test_accuracy"] <= 1
    restored, trained = load_trained(tmp_path)
    assert workdirs.plain(restored) == workdirs.plain(config)
    (again,) = measure.measurements(trained, config.instruments, (), ("evaluation",))
    assert again.take()["test_loss"] == record["test_loss"]


@pytest.mark.parametrize("path", studies("variants"), ids=identify)
def test_the_methods_of_a_comparison_can_be_made(path):
    config = load(path).get_config()
    methods = study_methods(config)
    assert len(methods) > 1
    for method in methods:
        training = training_config(config, method, seed=0)
        assert build.check(training) is None  # it raises otherwise
        if method.label == "SAM" and "imagenet" in path.stem:
            assert training.method.m == config.training.method.m  # the papers', not the batch
