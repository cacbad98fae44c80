"""The oldest versions that the checks run with are those that setup.py allows."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def test_the_checks_run_with_the_oldest_versions_that_setup_allows():
    pinned = dict(re.findall(r"^(\w+)==([\d.]+)$", (ROOT / ".ci/oldest.txt").read_text(), re.M))
    allowed = dict(re.findall(r'"(\w+)>=([\d.]+)"', (ROOT / "setup.py").read_text()))
    assert allowed.keys() == {"flax", "jax", "optax"}
    for name, version in allowed.items():  # "0.8" allows 0.8.0
        assert pinned[name] == version or pinned[name] == f"{version}.0"
    assert pinned["jaxlib"] == pinned["jax"]
