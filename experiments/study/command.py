"""The command of a study: python -m experiments.NAME --config=CONFIG --workdir=DIR.

It runs the missing trainings and measurements, writes the report to DIR/report/index.html and
prints its main table. The same command goes on where a cut run stopped. --launcher=local or slurm
makes every arm and seed a job of its own. A job that fails, and a training that numbers that are
not finite stop, is shown in the report; the others go on, and the exit code is then 1.
"""

import functools
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import ml_collections
from absl import app, flags, logging

from experiments.study import launcher
from experiments.study.arms import Plan
from experiments.study.launcher import Launcher
from experiments.study.provenance import KEY, command_line, provenance_of, software
from experiments.study.runs import Fault, Task, begin, is_trained, outdated, run, tasks_of, train
from experiments.study.study import Settings, Study
from sam_jax.mistakes import checking
from sam_jax.runs import config_flag, heartbeat, locks, quick_compilation, signals, workdirs
from sam_jax.runs.distributed import from_first, is_first
from sam_jax.runs.flags import define_config, define_distributed, define_workdir, run_command

flags.disclaim_key_flags()  # --help shows them as the study's own

# Of this process on a CPU, measured on two cores; more of them need more memory.
AT_ONCE = 2
SMALL_NETS = {"small_conv_net"}  # which take longer to compile than to train


def main(study: Study) -> None:
    """Run a study's command with the flags of the command line."""
    define_config(study.config)
    define_workdir("The folder of the study.")
    flags.DEFINE_bool(
        "accept_config_changes", False, "Go on in a folder that was made with another config."
    )
    flags.DEFINE_integer(
        "jobs",
        0,
        "How many arms and seeds run at once. 0: two on CPUs and one elsewhere; on Slurm all. "
        "Without a launcher it is one where there are several devices.",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "launcher", None, launcher.NAMES, "Run every arm and seed as a job of its own."
    )
    flags.DEFINE_integer("gpus", 0, "GPUs of a job.", lower_bound=0)
    flags.DEFINE_integer("cpus", 0, "Cores of a job; 0: an equal share.", lower_bound=0)
    flags.DEFINE_integer(
        "minutes",
        24 * 60,
        "After so many minutes Slurm stops a job, which then goes on in a new one.",
    )
    flags.DEFINE_string("partition", "", "The partition of Slurm; empty: its default.")
    flags.DEFINE_list("sbatch", [], "Further options of sbatch, such as account=me,qos=low.")
    define_distributed()
    run_command(functools.partial(_command, study))


def _command(study: Study, argv: Sequence[str]) -> int:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    f = flags.FLAGS
    jobs = _launcher()
    if _has_small_nets(study, f.config):
        quick_compilation.for_small_nets()
    with signals.handled():
        try:
            done = run_and_report(
                study,
                f.config,
                f.workdir,
                f.accept_config_changes,
                f.jobs or None,
                jobs,
                command=command_line(),
            )
        except signals.Stopped:
            if is_first():
                print(_what_is_left(study, f.config, pathlib.Path(f.workdir)))
            raise
        except AllRunsFailed as error:
            if is_first():
                print(error, file=sys.stderr)
            return 1
    if is_first():
        print(done.summary)
        for fault in done.faults:
            print(f"failed: {fault}")
        print(f"The report is {done.page.resolve()}")
        if done.faults:
            print(_what_failed(done.faults), file=sys.stderr)
    return 1 if done.faults else 0


def _what_failed(faults: Sequence[Fault]) -> str:
    """Return a sentence on the runs that a report lacks."""
    named = _first_runs([fault.task for fault in faults])
    return f"Failed, and not in the report: {named}. The same command tries again."


def _what_is_left(study: Study, config: ml_collections.ConfigDict, workdir: pathlib.Path) -> str:
    """Return a sentence on the runs of a study that was stopped."""
    plan = study.plan(config)
    tasks = tasks_of(study, plan)
    open_tasks = [task for task in tasks if not is_trained(study, plan, workdir, task)]
    trained = f"{len(tasks) - len(open_tasks)} of {len(tasks)} runs are trained"
    left = f"left to train: {_first_runs(open_tasks)}" if open_tasks else "measurements are left"
    return f"Stopped. {trained}; {left}. The same command goes on."


def _first_runs(tasks: Sequence[Task]) -> str:
    """Return the names of the first runs of some tasks."""
    names = [f"{task.arm.label} seed {task.seed}" for task in tasks[:3]]
    return ", ".join([*names, "..."] if len(tasks) > 3 else names)


def _has_small_nets(study: Study, config: ml_collections.ConfigDict) -> bool:
    """Say whether all models of a study are small."""
    plan = _plan(study, config)
    trainings = (study.training_config(plan.config, arm, plan.seeds[0]) for arm in plan.arms)
    return {training.model.name for training in trainings} <= SMALL_NETS


def _launcher() -> Launcher | None:
    """Return the launcher that the flags name."""
    f = flags.FLAGS
    if f.launcher is None:
        return None
    if f.distributed:
        raise app.UsageError(
            "--launcher starts jobs of one process each, and --distributed makes this process one "
            "of several; leave one of them out"
        )
    for option in f.sbatch:
        if "=" not in option:
            raise app.UsageError(f"--sbatch takes NAME=VALUE, got {option!r}")
    more = tuple(tuple(option.split("=", 1)) for option in f.sbatch)
    at_once = f.jobs or (AT_ONCE if f.launcher == "local" else 10_000)
    return Launcher(f.launcher, at_once, f.gpus, f.cpus, f.minutes, f.partition, more)


@checking()
def _plan(study: Study, config: ml_collections.ConfigDict) -> Plan:
    """Return the plan of a config whose fields are in their ranges."""
    study.check(config)
    return study.plan(config)


class AllRunsFailed(RuntimeError):
    """A study without a run that could be reported; the message says what each of them met."""


class Reported(NamedTuple):
    """What a study has come to."""

    page: pathlib.Path  # of the report
    summary: str  # the table that the command prints
    faults: list[Fault]  # runs that failed


def run_and_report(
    study: Study,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    accept_config_changes: bool = False,
    at_once: int | None = None,
    jobs: Launcher | None = None,
    *,
    command: str = "",
) -> Reported:
    """Run a study and write its report.

    Args:
      study: the study.
      config: its config.
      workdir: the folder of the study.
      accept_config_changes: go on in a folder that was made with another config.
      at_once: how many arms and seeds run in this process at a time; None for two on CPUs of
        several cores, and one elsewhere. It is one where there are several devices.
      jobs: what runs every arm and seed as a job of its own; None for this process.
      command: the line that ran the study, for the report.

    Raises:
      ValueError: the config cannot be run, or the folder belongs to another one.
      AllRunsFailed: none of them is there to be reported.
      locks.InUse: another process runs the study there, or trains a run of it.
    """
    plan, workdir = _plan(study, config), pathlib.Path(workdir)
    with locks.held(workdir, "study"):
        return _run_and_report(
            study, plan, workdir, accept_config_changes, _threads(at_once), jobs, command
        )


def _run_and_report(
    study: Study,
    plan: Plan,
    workdir: pathlib.Path,
    accept_config_changes: bool,
    at_once: int,
    jobs: Launcher | None,
    command: str,
) -> Reported:
    """Do what `run_and_report` does in a folder that is locked."""
    begin(study, plan, workdir, accept_config_changes)
    _describe_config()
    if jobs is None:
        runs, faults = run(study, plan, workdir, accept_config_changes, at_once)
    else:
        faults = launcher.launch(study, plan.config, workdir, jobs, accept_config_changes)
        failed = {fault.task for fault in faults}
        tasks = [task for task in tasks_of(study, plan) if task not in failed]
        runs = [train(study, plan, workdir, task, accept_config_changes) for task in tasks]
    if not runs:
        lines = "\n".join(map(str, faults))
        raise AllRunsFailed(f"All runs failed, and there is nothing to report:\n{lines}")
    with heartbeat.doing("measuring what concerns several runs"):
        study.measure_across(plan, workdir, runs, at_once)
    failures = {"failed": [*map(str, faults)]} if faults else {}

    def report() -> list[str]:
        results = study.read(workdir, plan)
        made_by = provenance_of(plan, workdir, study.config, command)
        settings = _settings(study, plan, workdir) | failures | {KEY: made_by}
        page = study.report(results, workdir / "report", settings)
        return [str(page), study.summary(results)]

    with heartbeat.doing("writing the report"):
        page, summary = from_first(report)
    return Reported(pathlib.Path(page), summary, faults)


def _describe_config() -> None:
    """Say what the config of the command line changes of its base, where there is such a line."""
    if is_first() and config_flag.NAME in flags.FLAGS:
        print(config_flag.description(apart="training"), flush=True)


def _threads(wanted: int | None) -> int:
    """Return how many trainings and measurements this process runs at once.

    On two cores two threads of the default study's measurements do 1.46 times the work of one,
    whose operations are too small for two cores. Two trainings on one accelerator wait for it.
    Several devices take their calls in one order, which threads would break.
    """
    if jax.device_count() > 1:  # of all processes
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    default = min(AT_ONCE, cores or 1) if jax.default_backend() == "cpu" else 1
    return wanted or default


def _settings(study: Study, plan: Plan, workdir: pathlib.Path) -> Settings:
    """Return the settings that the report shows, and the runs trained with other settings."""
    settings = study.settings(plan, workdirs.plain(plan.config)) | {"software": software()}
    differing = outdated(study, plan, workdir)
    return settings | ({"trained with other settings": differing} if differing else {})
