"""The runs of a study as jobs: processes of this machine, or of a Slurm cluster, by submitit.

A job is one arm with one seed. Its logs lie in WORKDIR/jobs/ARM/seed_S. A job that fails or is
killed is a fault, which the others outlive. Jobs go on where the command that started them ends;
the same command waits for them and collects what they write.
"""

import functools
import os
import pathlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import filelock
import ml_collections
import submitit
from absl import logging
from submitit.core.utils import FailedJobError

from experiments.study.arms import seed_folder
from experiments.study.compilation import compile_training
from experiments.study.runs import Fault, Task, measure, tasks_of, train, training_config
from experiments.study.study import Study
from sam_jax.runs import checkpoints, compilation_cache, records, signals, speed_log, workdirs
from sam_jax.training import build

NAMES = ("local", "slurm")
_SECONDS = 0.2  # between two looks at the jobs
_FOREVER = 60 * 24 * 365  # minutes


class Launcher(NamedTuple):
    """Where jobs run, and what each of them may have."""

    name: str  # of NAMES
    at_once: int  # jobs
    gpus: int = 0  # of a job
    cpus: int = 0  # of a job; 0: an equal share of this machine, on Slurm the cluster's default
    minutes: int = 24 * 60  # after which Slurm ends a job; it is then submitted again and goes on
    partition: str = ""  # of Slurm; empty: the cluster's default
    more: tuple[tuple[str, str], ...] = ()  # further options of sbatch


def launch(
    study: Study,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    launcher: Launcher,
    accept_config_changes: bool = False,
) -> list[Fault]:
    """Train and measure every arm and seed that is not finished, each in a job.

    Args:
      study: the study.
      config: its config.
      workdir: its folder.
      launcher: where the jobs run.
      accept_config_changes: as in `runs.run`.

    Returns:
      The runs that failed.
    """
    plan = study.plan(config)
    tasks = tasks_of(study, plan)
    waiting = [t for t in tasks if not _is_finished(study, config, workdir, t)]
    open_tasks = {task.number for task in waiting}
    running: dict[int, tuple[Task, submitit.Job]] = {}  # by its place among those at once
    faults: dict[int, Fault] = {}
    while waiting or running:
        if signals.asked():
            _stop(launcher, [job for _, job in running.values()])
        for place, (task, job) in list(running.items()):
            if not job.done():
                continue
            del running[place]
            open_tasks.discard(task.number)
            error = _error_of(job)
            if error:
                faults[task.number] = Fault(task, error, job.paths.stderr)
            print(f"{task.label}: {error or 'trained and measured'}", flush=True)
        for task in list(waiting):
            free = [place for place in range(launcher.at_once) if place not in running]
            if task.after in faults:
                faults[task.number] = faults[task.after].of_start(task)
                open_tasks.discard(task.number)
                waiting.remove(task)
            elif free and task.after not in open_tasks:
                executor = make_executor(job_folder(workdir, task), launcher, free[0])
                cores = _cores(launcher, free[0])
                work = _Work()
                arguments = (study, config, workdir, task.number, accept_config_changes, cores)
                with signals.kept_from_children():
                    running[free[0]] = task, executor.submit(work, *arguments)
                waiting.remove(task)
        time.sleep(_SECONDS if running else 0)
    return [faults[number] for number in sorted(faults)]


def _stop(launcher: Launcher, jobs: Sequence[submitit.Job]) -> None:
    """End the jobs of this machine at their next call, as a signal asked, and raise `Stopped`.

    Those of a cluster go on.
    """
    if launcher.name == "local":
        with signals.saving():  # which the jobs do, and none takes longer than its patience
            for job in jobs:
                if not job.done():
                    os.kill(int(job.job_id), signal.SIGTERM)  # passed on to the job itself
            again = time.monotonic() + signals.PATIENCE + 0.5
            while not all(job.done() for job in jobs):
                time.sleep(_SECONDS)
                if time.monotonic() > again:  # one of them began, and did not listen yet
                    again += 1
                    for job in jobs:
                        if not job.done():
                            os.kill(int(job.job_id), signal.SIGTERM)
    else:
        print(f"{len(jobs)} jobs go on; scancel ends them.", flush=True)
    signals.stop_if_asked()


def make_executor(folder: pathlib.Path, launcher: Launcher, place: int = 0) -> submitit.Executor:
    """Return what submits a job.

    Args:
      folder: of the job.
      launcher: where it runs.
      place: the number of the job among those at once, which on this machine chooses its GPUs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*_result.pkl"):
        left.unlink()  # of an earlier job, which may have had the same number
    if launcher.name == "local":
        local = submitit.LocalExecutor(folder)
        first = place * launcher.gpus
        gpus = tuple(range(first, first + launcher.gpus))
        local.update_parameters(timeout_min=_FOREVER, gpus_per_node=len(gpus), visible_gpus=gpus)
        return local
    # A job that reaches its time is submitted again as often as need be: it goes on where it was.
    slurm = submitit.SlurmExecutor(folder, max_num_timeout=1000)
    given = {
        "partition": launcher.partition or None,
        "cpus_per_task": launcher.cpus or None,
        "gpus_per_node": launcher.gpus or None,
    }
    slurm.update_parameters(
        job_name=f"{folder.parent.name}_{folder.name}",
        time=launcher.minutes,
        additional_parameters=dict(launcher.more),
        **{name: value for name, value in given.items() if value is not None},
    )
    return slurm


def job_folder(workdir: pathlib.Path, task: Task) -> pathlib.Path:
    """Return the folder of the job of a run."""
    return workdir.resolve() / "jobs" / task.arm.name / f"seed_{task.seed}"


class _Work(submitit.helpers.Checkpointable):
    """What a job does. Slurm submits it again, as it is, when its time is over."""

    def __call__(
        self,
        study: Study,
        config: ml_collections.ConfigDict,
        workdir: pathlib.Path,
        number: int,
        accept_config_changes: bool,
        cores: Sequence[int] | None,
    ) -> None:
        """Train and measure one run, and note that it is finished.

        Args:
          study, config, workdir, accept_config_changes: as in `launch`.
          number: of the task of the run.
          cores: of this machine, to run on; None on a cluster.
        """
        if cores:  # before JAX makes its threads
            os.sched_setaffinity(0, cores)
        compilation_cache.turn_on()
        logging.set_verbosity(logging.WARNING)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)  # see `kept_from_children`
        with signals.handled():
            self._do(study, config, workdir, number, accept_config_changes, cores is None)

    def _do(
        self,
        study: Study,
        config: ml_collections.ConfigDict,
        workdir: pathlib.Path,
        number: int,
        accept_config_changes: bool,
        on_cluster: bool,
    ) -> None:
        plan = study.plan(config)
        task = tasks_of(study, plan)[number]
        folder = job_folder(workdir, task)
        one_of_many = _alone if on_cluster else _the_first_alone
        # A job of an earlier command may still be at it: then nothing is left to do.
        with filelock.FileLock(folder / "lock"):
            training = training_config(study, plan, workdir, task.arm, task.seed)
            if not checkpoints.exists(seed_folder(workdir, task.arm, task.seed), training.epochs):
                compiled = workdir / "jobs" / f"compiled_{_program(training)}"
                one_of_many(compiled, functools.partial(compile_training, training))
            run = train(study, plan, workdir, task, accept_config_changes)
            one_of_many(workdir / "jobs" / "measured", functools.partial(measure, study, plan, run))
            records.rewrite(folder / "finished.jsonl", [_finished(study, config, workdir, task)])


def _alone(marker: pathlib.Path, do: Callable[[], None]) -> None:
    do()


def _the_first_alone(marker: pathlib.Path, do: Callable[[], None]) -> None:
    """Let the first of several processes do a thing alone, so that the others find it compiled.

    Args:
      marker: a file that says that it was done once.
      do: compiles and does it.
    """
    if not marker.exists():
        with filelock.FileLock(marker.with_suffix(".lock")):
            if not marker.exists():
                do()
                marker.touch()
                return
    do()


def _program(training: ml_collections.ConfigDict) -> str:
    """Return a name of what a training compiles, which differs where the programs differ."""
    settings = workdirs.plain(training)
    for group, name in (("", "seed"), ("", "instruments"), *(("method", x) for x in build.TRACED)):
        del (settings[group] if group else settings)[name]
    return records.digest(settings)


def _finished(
    study: Study, config: ml_collections.ConfigDict, workdir: pathlib.Path, task: Task
) -> records.Record:
    """Return what a finished run was asked for, and the files that it has written."""
    training = training_config(study, study.plan(config), workdir, task.arm, task.seed)
    written = seed_folder(workdir, task.arm, task.seed).glob("*.jsonl")
    kept = sorted(path for path in written if path.name != speed_log.NAME)  # nothing depends on it
    return {
        "settings": records.digest([workdirs.plain(c) for c in (training, config)]),
        "files": {path.name: path.stat().st_size for path in kept},
    }


def _is_finished(
    study: Study, config: ml_collections.ConfigDict, workdir: pathlib.Path, task: Task
) -> bool:
    noted = records.read(job_folder(workdir, task) / "finished.jsonl")
    return noted == [_finished(study, config, workdir, task)]


def _cores(launcher: Launcher, place: int) -> list[int] | None:
    """Return the cores of this machine for a job, None on a cluster or where they are not known.

    Each job has its own: threads of several jobs on the same cores wait for each other.
    """
    if launcher.name != "local" or not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    share = launcher.cpus or max(1, len(cores) // launcher.at_once)
    return sorted({cores[(place * share + i) % len(cores)] for i in range(share)})


def _error_of(job: submitit.Job) -> str:
    """Return the last line of what ended a job, empty where it did its work."""
    if isinstance(job, submitit.LocalJob) and not job.paths.result_pickle.exists():
        return "killed, or ended without a word"  # `exception` would wait for a slow disk
    error = job.exception()
    if error is None:
        return ""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    rules = [number for number, line in enumerate(lines) if not line.strip("-")]
    # Of an exception its traceback between two rules; else the first line says how the job ended.
    return lines[rules[-1] - 1] if isinstance(error, FailedJobError) and rules else lines[0]
