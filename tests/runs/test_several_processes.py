"""Several processes equal one, and end and resume together."""

import math
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import jax
import pytest
from real_commands import ROOT, made_once, read_lines
from several_processes import MEASURED, MEASURES, RUNS
from training_problems import assert_same_bits

from sam_jax.measuring.measure import measure_run
from sam_jax.training.trained import load_trained

HERE = pathlib.Path(__file__).parent
SILENCE = 5  # seconds, so that the test is quick
CONFIG = "--config=configs/digits.py:smoke"


def start(what, folder, devices, *places):
    """Start a process with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join(map(str, (ROOT, HERE.parent)))
    return subprocess.Popen(
        [sys.executable, HERE / "several_processes.py", what, folder, *places],
        env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(what, folder):
    """Start two processes with two devices each."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    places = ("--distributed", f"--coordinator_address=localhost:{port}", "--process_count=2")
    places += (f"--silence_timeout={SILENCE}", "--start_timeout=60")
    return [start(what, folder, 2, *places, f"--process_index={index}") for index in range(2)]


def finish(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of two processes and of one; a run of the former was killed and goes on."""

    def make(folder):
        survivor, killed = start_two("killed", folder / "two" / MEASURED)
        alone = start("all", folder / "one", 4)
        killed.communicate(timeout=300)
        since = time.monotonic()
        _, errors = survivor.communicate(timeout=300)
        seconds = time.monotonic() - since
        finish(alone)
        left = sorted(path.name for path in (folder / "two" / MEASURED).iterdir())
        outputs = [finish(process) for process in start_two("all", folder / "two")]
        codes = (killed.returncode, survivor.returncode)
        return repr((codes, seconds, errors, left, outputs))

    folder, told = made_once(tmp_path_factory, "several_processes", make)
    return folder, eval(told)


@pytest.mark.commands
def test_a_killed_process_ends_the_other_soon_with_an_error_that_says_so(folders):
    _, (codes, seconds, errors, left, _) = folders
    assert codes[0] == -9 and codes[1] != 0
    assert seconds < 60
    assert "another" in errors and "Traceback" in errors
    assert {"config.json", "metrics.jsonl", "checkpoints", "tensorboard"} <= set(left)


@pytest.mark.commands
def test_the_first_process_alone_prints_and_writes(folders):
    folder, (*_, outputs) = folders
    assert outputs[0].count("training: test loss") == 4
    assert "training" not in outputs[1] and "measuring" not in outputs[1]
    for run in RUNS:  # what was killed opened its events twice
        assert len(list((folder / "two" / run / "tensorboard").iterdir())) == 1 + (run == MEASURED)


@pytest.mark.commands
@pytest.mark.parametrize("run", RUNS)
def test_two_processes_train_and_evaluate_as_one_with_as_many_devices(folders, run):
    folder, _ = folders
    one, two = (read_lines(folder / name / run / "metrics.jsonl") for name in ("one", "two"))
    assert [record.pop("process_count") for record in one + two] == [1, 1, 2, 2]
    assert {record["device_count"] for record in one + two} == {4}
    assert [distance(*pair) < 1e-5 for pair in zip(one, two, strict=True)] == [True, True]
    # Negative control: with other perturbations it is another model.
    others = (read_lines(folder / "two" / other / "metrics.jsonl") for other in set(RUNS) - {run})
    assert all(distance(other[-1]["test_loss"], two[-1]["test_loss"]) > 2e-5 for other in others)


@pytest.mark.commands
def test_a_killed_run_of_two_processes_goes_on_to_the_same_bits(folders):
    resumed, whole = (folders[0] / "two" / name for name in (MEASURED, "uninterrupted"))
    assert_same_bits(*(load_trained(run)[1].state for run in (resumed, whole)))
    assert (resumed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.commands
def test_two_processes_measure_as_one_and_as_one_device(folders, tmp_path):
    folder, _ = folders
    one, two = (read_lines(folder / x / MEASURED / "evaluations.jsonl") for x in ("one", "two"))
    copied = shutil.copytree(folder / "one" / MEASURED, tmp_path / "run")
    (copied / "evaluations.jsonl").unlink()
    shutil.rmtree(copied / "landscapes")
    alone = measure_run(copied, measures=MEASURES)
    assert jax.device_count() == 1
    assert {record["measure"] for record in one} == set(MEASURES)
    # An error over a few differences of losses keeps the fewest digits.
    for others in (two, alone):
        assert max(distance(*pair) for pair in zip(one, others, strict=True)) < 1e-3


def distance(one, other):
    """The largest relative distance of two values, or of those that they hold."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max(distance(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return max((distance(*pair) for pair in zip(one, other, strict=True)), default=0)
    if isinstance(one, str):
        return 0 if one == other else math.inf
    if math.isnan(one) and math.isnan(other):
        return 0
    return abs(one - other) / max(abs(one), abs(other), 1e-3)
