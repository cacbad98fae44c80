"""The oldest versions that the checks run with are those that setup.py allows."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# What the tests alone need comes as it is newest.
LISTS = re.compile(r"^(CORE|LAB|TFDS|SAFETENSORS|WANDB|MLFLOW|NOTEBOOKS) = \[(.*?)\]", re.M | re.S)


def needed():
    """Return what setup.py lists for users, (name, bound) or (name, "")."""
    texts = re.sub(r"#.*", "", (ROOT / "setup.py").read_text())
    return [
        found
        for _, names in LISTS.findall(texts)
        for found in re.findall(r'"([\w-]+)(?:>=([\d.]+))?"', names)
    ]


def padded(version):
    """Return a version with its zeros: "0.8" allows 0.8.0."""
    return [int(x) for x in (version.split(".") + ["0"] * 4)[:4]]


def test_the_checks_run_with_the_oldest_versions_that_setup_allows():
    lines = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci/oldest.txt").read_text(), re.M)
    pinned = {name: padded(version) for name, version in lines}
    assert pinned.pop("jaxlib") == pinned["jax"]
    assert pinned == {name: padded(bound) for name, bound in needed()}


def test_all_that_users_need_has_a_lower_bound():
    assert len(needed()) >= 25
    assert [name for name, bound in needed() if not bound] == []


@pytest.mark.parametrize(("version", "numbers"), [("0.8", [0, 8, 0, 0]), ("2.6.2.2", [2, 6, 2, 2])])
def test_versions_are_numbers(version, numbers):
    assert padded(version) == numbers
