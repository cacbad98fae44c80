"""What a config changes of its base: found for every config, and printed."""

import pathlib
import runpy

import pytest
from ml_collections import ConfigDict
from real_commands import ROOT, run_here

from configs import cifar10, digits
from sam_jax.runs.config_changes import Base, as_text, base_of, changes

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


def test_a_long_value_is_shown_whole_where_it_is_asked_for():
    base = Base("base.py", ConfigDict({"seeds": (0,), "epochs": 3}))
    config = ConfigDict({"seeds": tuple(range(100)), "epochs": 4})
    whole = str(tuple(range(100)))
    shown = as_text("mine.py", base, config).splitlines()
    assert shown[1].startswith("  seeds   (0, 1, ") and shown[1].endswith("(was (0,))")
    assert f"… ({len(whole)} characters)" in shown[1] and max(map(len, shown)) < 140
    assert f"  seeds   {whole}  (was (0,))" in as_text("mine.py", base, config, is_whole=True)


def test_a_base_has_no_changes_of_itself():
    config = digits.get_config()
    words = "config configs/digits.py: without changes; its file explains every field"
    assert as_text("configs/digits.py", Base("configs/digits.py", config), config) == words


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
