"""The tiers run in order, each in a process with its devices, and stop at the first red one."""

import os
import re
import shutil

import pytest
from real_commands import ROOT, run

pytestmark = pytest.mark.commands
PROGRAM = """
import os
import pytest

def flags():
    return os.environ["XLA_FLAGS"]

def test_without_a_mark():
    assert flags().endswith("device_count=1")

@pytest.mark.devices
def test_on_devices():
    assert flags().endswith("device_count=8")

@pytest.mark.commands
def test_of_commands():
    assert {passes}

@pytest.mark.e2e
def test_to_the_end():
    assert flags().endswith("device_count=1")
"""


def run_tiers(folder, passes, *arguments):
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests/conftest.py", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "tests/test_four.py").write_text(PROGRAM.replace("{passes}", str(passes)))
    result = run("pytest", "-p", "no:xdist", *arguments, cwd=folder, env=environment())
    return result.returncode, result.stdout


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    kept.pop("XLA_FLAGS")
    return kept | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}


def test_all_tiers_run_in_order(tmp_path):
    code, output = run_tiers(tmp_path, True)
    assert code == 0
    assert re.findall(r"^(\w+):$", output, re.M) == ["unit", "devices", "commands", "e2e"]
    assert output.count("[100%]") == 4


def test_a_red_tier_is_the_last(tmp_path):
    code, output = run_tiers(tmp_path, False)
    assert code == 1
    assert re.findall(r"^(\w+):$", output, re.M) == ["unit", "devices", "commands"]


def test_a_choice_runs_in_one_process(tmp_path):
    code, output = run_tiers(tmp_path, False, "-k", "devices or mark")
    # Both in a process of eight devices, which one of them does not expect.
    assert code == 1 and "devices:" not in output and output.count("[100%]") == 1
