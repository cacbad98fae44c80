"""The runs of a study as jobs: what fails, what is collected, and what a cluster is asked for."""

import dataclasses
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time

import pytest
from real_commands import ROOT, environment
from test_study import TOY, small_config, study  # noqa: F401  (a fixture)

from experiments.study.command import run_and_report
from experiments.study.launcher import Launcher, make_executor

SLURM = """#!/bin/sh
cat "$1" > {folder}/script
echo "Submitted batch job 77"
"""


def waiting(study):  # noqa: F811
    """Return a study whose fast arm starts from the slow one."""

    def starts_from(plan, arm):  # a job gets what is no module's own as it is
        return plan.arms[0] if arm.name == "fast" else None

    return dataclasses.replace(study, starts_from=starts_from)


def faulty(study):  # noqa: F811
    """Return a study whose measurement raises for one run and kills the job of another."""

    def measure(plan, run):
        import os
        import signal

        if (run.arm.name, run.seed) == ("slow", 1):
            raise ValueError("no such norm")
        if (run.arm.name, run.seed) == ("fast", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        study.measure(plan, run)

    return dataclasses.replace(study, measure=measure)


def submitted(workdir):
    return {path for path in workdir.glob("jobs/*/*/*_submitted.pkl")}


@pytest.mark.commands
def test_a_fault_is_shown_and_does_not_end_the_others(study, tmp_path):  # noqa: F811
    whole, launcher = waiting(study.STUDY), Launcher("local", at_once=2)
    found = run_and_report(faulty(whole), small_config(), tmp_path, jobs=launcher)
    assert {(f.task.arm.name, f.task.seed): f.error for f in found.faults} == {
        ("fast", 0): "killed, or ended without a word",
        ("slow", 1): "ValueError: no such norm",
        ("fast", 1): "the run that it starts from failed",
    }
    page = found.page.read_text()
    for fault in found.faults:
        assert fault.error in page and str(fault.log) in page and fault.log.exists()
    (norm,) = tmp_path.glob("models/*/*/records.jsonl")
    assert str(norm.parent.relative_to(tmp_path)) == "models/slow/seed_0"

    # The same command does what is missing, and submits nothing else.
    written, before = norm.stat().st_mtime_ns, submitted(tmp_path)
    found = run_and_report(whole, small_config(), tmp_path, jobs=launcher)
    assert found.faults == [] and "failed" not in found.page.read_text()
    new = [path.parent.relative_to(tmp_path / "jobs") for path in submitted(tmp_path) - before]
    assert sorted(map(str, new)) == ["fast/seed_0", "fast/seed_1", "slow/seed_1"]
    assert norm.stat().st_mtime_ns == written

    # In this process the table is the same.
    here = run_and_report(whole, small_config(), tmp_path / "here", at_once=1)
    assert here.summary == found.summary


def test_what_a_cluster_is_asked_for(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "srun"):
        (programs / name).write_text(SLURM.format(folder=tmp_path))
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    launcher = Launcher(
        "slurm", 8, gpus=1, cpus=6, minutes=90, partition="long", more=(("account", "me"),)
    )
    job = make_executor(tmp_path / "slow" / "seed_0", launcher).submit(pathlib.Path, "x")
    assert job.job_id == "77"
    lines = (tmp_path / "script").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"job-name=slow_seed_0", "partition=long", "time=90", "gpus-per-node=1"} <= asked
    assert {"cpus-per-task=6", "account=me", "nodes=1"} <= asked
    assert any(str(tmp_path / "slow/seed_0") in line for line in lines if line.startswith("srun"))


@pytest.mark.commands
@pytest.mark.parametrize("how", [(), ("--launcher=local",)], ids=["threads", "jobs"])
def test_a_signal_ends_all_runs_of_a_study_at_their_next_calls(how, tmp_path):
    def written():
        return sum(path.stat().st_size for path in tmp_path.glob("models/*/*/metrics.jsonl"))

    settings = ("--config.epochs=9999", "--config.steps_per_call=1", f"--workdir={tmp_path}", *how)
    command = subprocess.Popen(
        [sys.executable, TOY, *settings],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    while written() < 1000:
        assert command.poll() is None
        time.sleep(0.01)
    command.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 11 and "Stopped. 0 of 4 runs are trained; left to" in output
    # The runs that had begun saved their state, and nothing goes on.
    saved = list(tmp_path.glob("models/*/*/interrupted/checkpoints/*"))
    assert saved and all(path.name.isdigit() for path in saved)
    before = written()
    time.sleep(1)
    assert written() == before
