"""Writers of services in commands: what they wrote, and that the commands end."""

import math
import signal
import subprocess
import time

import pytest
from real_commands import ROOT, environment, python, read_lines, run
from wandb_files import history_of, records_of, values_of

from sam_jax.runs.writers import kept

SMOKE = "--config=configs/digits.py:smoke"
BOTH = "--config.writers=('wandb','mlflow')"
VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI")
WRITES = """
import pathlib, sys, math
from sam_jax.runs.metrics_log import MetricsLog
for first in (0, 2):
    log = MetricsLog(pathlib.Path(sys.argv[1]), first, ("wandb",), {"a": {"b": 1 + first}})
    for epoch in (first + 1, first + 2):
        log.write({"epoch": epoch, "loss": 1 / epoch, "nan": math.nan}, {"speed": 2.0})
    log.close()
"""
pytestmark = pytest.mark.commands


def offline():
    """Return the environment, as far as it leads to no server."""
    return {name: value for name, value in environment().items() if name not in VARIABLES}


def files_of(workdir):
    """Return the files of all parts of a run, in their order."""
    return sorted((workdir / "wandb").glob("offline-run-*/*.wandb"))


def test_weights_and_biases_has_the_numbers_of_a_run_that_went_on(tmp_path):
    workdir = tmp_path / "a run"
    result = run("-c", WRITES, workdir, env=offline())
    assert result.returncode == 0, result.stderr
    assert "wandb" not in result.stdout + result.stderr  # it is quiet
    first, second = files_of(workdir)
    assert history_of(first) == {1: {"loss": 1.0, "speed": 2.0}, 2: {"loss": 0.5, "speed": 2.0}}
    assert history_of(second) == {
        3: {"loss": 1 / 3, "speed": 2.0},
        4: {"loss": 0.25, "speed": 2.0},
    }
    for path, value in ((first, 1), (second, 3)):
        (about,) = (r.run for r in records_of(path) if r.HasField("run"))
        assert about.run_id == (workdir / "wandb" / kept.FILE).read_text().strip()
        assert about.display_name == "a run" and about.project == "sam_jax"
        assert values_of(about.config.update)["a.b"] == value
    kinds = {r.WhichOneof("record_type") for r in records_of(first)}
    assert not kinds & {"stats", "output", "output_raw", "environment"}


def test_a_training_ends_by_itself(tmp_path):
    result = run("sam_jax.train", SMOKE, f"--workdir={tmp_path}", BOTH, env=offline(), timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("epoch 2: train loss ")
    (path,) = files_of(tmp_path)
    lines = read_lines(tmp_path / "metrics.jsonl")
    found = history_of(path)
    assert sorted(found) == [1, 2]
    for line in lines:
        finite = {n: x for n, x in line.items() if n != "epoch" and math.isfinite(x)}
        assert found[line["epoch"]].items() >= finite.items()
    assert list(tmp_path.glob("mlflow/store/*/*/metrics/batch_loss"))
    assert not (tmp_path / "tensorboard").exists()


def test_a_training_ends_at_a_signal_and_goes_on_in_the_same_runs(tmp_path):
    more = (f"--workdir={tmp_path}", BOTH, "--config.steps_per_call=1")
    line = python("sam_jax.train", SMOKE, *more, "--config.epochs=100000")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(line, cwd=ROOT, env=offline(), **quiet)
    log = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and log.read_bytes().count(b"\n") > 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert time.monotonic() - start < 10
    assert (tmp_path / "interrupted").exists()
    epochs = len(read_lines(log))
    again = run("sam_jax.train", SMOKE, *more, f"--config.epochs={epochs + 2}", env=offline())
    assert again.returncode == 2 and "epochs" in again.stderr  # negative control: another config
    again = run(
        *("sam_jax.train", SMOKE, *more, f"--config.epochs={epochs + 2}"),
        "--accept_config_changes",
        env=offline(),
    )
    assert again.returncode == 0, again.stderr
    first, second = files_of(tmp_path)
    assert sorted(history_of(first)) == [*range(1, epochs + 1)]
    assert {epochs + 1, epochs + 2} <= set(history_of(second))
    assert first.name == second.name  # which has the id
    runs = list(tmp_path.glob("mlflow/store/*/*/metrics/batch_loss"))
    assert len(runs) == 1 and len(runs[0].read_text().splitlines()) >= epochs + 2
