"""What a config changes of its base: found for every config, and printed."""

import pathlib
import runpy

import pytest
from real_commands import ROOT, run_here

from configs import cifar10, digits
from sam_jax.runs.config_changes import base_of, changes

BASES = {
    "digits": "digits",
    "cifar10": "digits",
    "cifar100": "cifar10",
    "even_better/digits": "even_better/digits",
    "even_better/cifar10": "even_better/digits",
    "variants/imagenet_vit_s32": "variants/imagenet_resnet50",
}


@pytest.mark.parametrize("name", BASES)
def test_the_base_is_the_nearest_config_that_is_imported(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = f"configs/{name}.py"
    found = runpy.run_path(path)
    assert base_of(path, found, found["get_config"]()).name == f"configs/{BASES[name]}.py"


@pytest.mark.parametrize("signature", ["variant=''", "variant"])
def test_a_config_of_any_file_has_a_base(signature, tmp_path):
    """It may import modules of any kind, and need its variant."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import os, sys, ml_collections\nfrom configs import cifar10\n"
        f"def get_config({signature}):\n"
        "    return ml_collections.ConfigDict({'mine': 3, 'variant': variant})\n"
    )
    found = runpy.run_path(str(path))
    config = found["get_config"]("small")
    base = base_of(str(path), found, config)
    assert base.name == str(path)
    names = [change.name for change in changes(base.config, config)]
    assert names == ([] if signature == "variant" else ["variant"])


def test_changes_make_the_config_of_the_base():
    base, config = digits.get_config(), cifar10.get_config()
    found = changes(base, config)
    assert len(found) > 10 and changes(base, base) == []
    for change in found:
        *groups, field = change.name.split(".")
        group = base
        for name in groups:
            group = group[name]
        group[field] = eval(change.now)  # as a config file has it
    assert changes(base, config) == [] and base.to_json() == config.to_json()


@pytest.mark.parametrize(
    ("module", "config"),
    [
        ("sam_jax.train", "configs/cifar10.py"),
        ("experiments.variants", "configs/variants/digits.py"),
    ],
)
def test_print_config_prints_and_does_nothing_else(module, config):
    before = set(pathlib.Path(ROOT).iterdir())
    field = "epochs" if module == "sam_jax.train" else "training.epochs"
    result = run_here(module, f"--config={config}", f"--config.{field}=3", "--print_config")
    assert result.returncode == 0 and not result.stderr
    first, *lines = result.stdout.splitlines()
    assert first.startswith(f"config {config}: configs/") and len(lines) >= 1
    assert [line.split() for line in lines if f" {field} " in line][0][:2] == [field, "3"]
    assert set(pathlib.Path(ROOT).iterdir()) == before
