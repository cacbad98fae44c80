"""A training that numbers that are not finite stop is a fault, which the other runs outlive."""

import dataclasses

import pytest
from real_commands import run_here
from test_study import small_config, study  # noqa: F401  (a fixture)

from experiments.study import command
from experiments.study.command import run_and_report
from experiments.study.runs import Fault, tasks_of
from sam_jax import mistakes

SMOKE = "--config=configs/digits.py:smoke"


def overflowing(study, seeds=(1,), **changes):  # noqa: F811
    """Return a toy study whose fast arm overflows with these seeds."""

    def training_config(config, arm, seed):
        training = study.training_config(config, arm, seed)
        if arm.name == "fast" and seed in seeds:
            training.optimiser.learning_rate, training.optimiser.weight_decay = 3e38, 100.0
        return training

    return dataclasses.replace(study.STUDY, training_config=training_config, **changes)


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_others_go_on_and_the_report_names_it(study, tmp_path, at_once):  # noqa: F811
    across = []
    faulty = overflowing(study, measure_across=lambda plan, workdir, runs, n: across.extend(runs))
    found = run_and_report(faulty, small_config(), tmp_path, at_once=at_once)
    (fault,) = found.faults
    assert (fault.task.arm.name, fault.task.seed) == ("fast", 1) and fault.log.exists()
    assert "stopped at step" in fault.error and "--config.on_nonfinite=skip" in fault.error
    assert [(run.arm.name, run.seed) for run in across] == [("slow", 0), ("fast", 0), ("slow", 1)]
    page = found.page.read_text()
    assert str(fault.log) in page and "stopped at step" in page
    assert len(list(tmp_path.glob("models/*/*/records.jsonl"))) == 3


def test_what_starts_from_it_fails_with_it(study, tmp_path):  # noqa: F811
    def starts_from(plan, arm):
        return plan.arms[1] if arm.name == "slow" else None

    faulty = overflowing(study, seeds=(0, 1), starts_from=starts_from)
    with pytest.raises(command.AllRunsFailed, match="nothing to report") as error:
        run_and_report(faulty, small_config(), tmp_path, at_once=1)
    first, *lines = str(error.value).splitlines()
    assert len(lines) == 4 and not first.endswith("finite")
    for arm, what in (("slow", "the run that it starts from failed"), ("fast", "stopped at step")):
        assert [line for line in lines if line.startswith(arm) and what in line]


@pytest.mark.parametrize("failing", [1, 4])
def test_the_command_ends_with_a_sentence(study, tmp_path, monkeypatch, failing):  # noqa: F811
    def run(study, plan, workdir, accept_config_changes, at_once):
        done, faults = run_all(study, plan, workdir, accept_config_changes, at_once)
        failed = [Fault(task, "stopped", workdir) for task in tasks_of(study, plan)[-failing:]]
        return done[: len(done) - failing], faults + failed

    run_all = command.run
    monkeypatch.setattr(command, "run", run)
    result = run_here("toy_study", SMOKE, "--config.epochs=1", f"--workdir={tmp_path}")
    assert result.returncode == 1 != mistakes.CODE and "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if "ailed" in line]
    if failing == 4:
        assert lines == ["All runs failed, and there is nothing to report:"]
        assert not (tmp_path / "report").exists()
    else:
        (line,) = lines
        assert line.startswith("Failed, and not in the report: fast seed 1. ")
        assert f"failed: fast seed 1: stopped (log: {tmp_path})" in result.stdout
