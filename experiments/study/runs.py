"""Train and measure every arm with every seed; finished work is never run again."""

import contextlib
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ml_collections

from experiments.study.arms import Arm, Plan, arm_folder, seed_folder
from experiments.study.compilation import compile_ahead
from experiments.study.study import Run, Study, check_training
from experiments.study.together import Work
from sam_jax.mistakes import checking
from sam_jax.runs import checkpoints, old_configs, records, workdirs
from sam_jax.runs.distributed import process_count
from sam_jax.training import build, fine_tune, replay
from sam_jax.training.replay import NonFiniteError
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained, untrained


class Task(NamedTuple):
    """One arm and seed, and where it stands among all of them."""

    arm: Arm
    seed: int
    number: int  # counted from zero
    after: int | None  # the number of the task whose trained weights it starts from
    label: str  # for progress


class Fault(NamedTuple):
    """A run that failed."""

    task: Task
    error: str  # in one line
    log: pathlib.Path

    def __str__(self) -> str:
        """Name the run, the error and the log."""
        return f"{self.task.arm.label} seed {self.task.seed}: {self.error} (log: {self.log})"

    def of_start(self, task: Task) -> "Fault":
        """Return the fault of a run that starts from this one."""
        return Fault(task, "the run that it starts from failed", self.log)


def run(
    study: Study,
    plan: Plan,
    workdir: pathlib.Path | str,
    accept_config_changes: bool = False,
    at_once: int = 1,
) -> tuple[list[Run], list[Fault]]:
    """Train and measure all arms over all seeds of a study that `begin` has checked.

    Every arm and seed has a folder, workdir/models/NAME/seed_S: a run of `sam_jax.train` with a
    records.jsonl of its measurements. A training that was cut goes on from its last checkpoint.

    Args:
      study: the study.
      plan: of the study's config.
      workdir: the folder of the study.
      accept_config_changes: go on in a folder that was made with another config, for example with
        fewer seeds. Trained models stay as they are, and the report names those with other
        settings.
      at_once: how many trainings and measurements run at a time, each in a thread.

    Returns:
      The runs, and those that failed: numbers that are not finite stopped them, and the others
      went on.
    """
    workdir = pathlib.Path(workdir)
    # Several trainings compile their programs at once anyway.
    wait = _compilation(study, plan, workdir) if at_once == 1 else lambda arm: None

    def train_task(task: Task) -> Run:
        wait(task.arm)
        return train(study, plan, workdir, task, accept_config_changes)

    tasks = tasks_of(study, plan)
    work = Work(
        [functools.partial(train_task, task) for task in tasks],
        functools.partial(measure, study, plan),
        [task.after for task in tasks],
        outlived=(NonFiniteError,),
    )
    done, faults = work.run(at_once), {}
    for number, error in sorted(work.failed.items()):
        task = tasks[number]
        log = seed_folder(workdir, task.arm, task.seed) / replay.REPORT
        faults[number] = Fault(task, str(error), log)
    for number in faults:
        start = tasks[number].after
        if start in faults:
            faults[number] = faults[start].of_start(tasks[number])
    return done, [*faults.values()]


def begin(study: Study, plan: Plan, workdir: pathlib.Path, accept_config_changes: bool) -> None:
    """Check the configs of all arms and what they measure, and claim the folder of the study.

    Args:
      study, plan, workdir, accept_config_changes: as in `run`.

    Raises:
      ValueError: the config cannot be run, or the folder belongs to another one.
    """
    with checking():
        if not accept_config_changes:
            workdirs.refuse_another(workdir, plan.config)
        trainings = {}
        for arm in plan.arms:  # all of them, before the first is trained
            with _about(arm, "trained"):
                arm_folder(workdir, arm)  # or its name is refused
                training = study.training_config(plan.config, arm, plan.seeds[0])
                check_training(training)
                build.check(training)
            trainings[arm] = training
        # What does not fit its data writes nothing.
        if not workdirs.is_claimed(workdir, plan.config):
            for arm, training in trainings.items():
                with _about(arm, "trained"):
                    run = untrained(training)
                with _about(arm, "measured"):
                    study.fits(plan, arm, training, run)
        workdirs.claim(workdir, plan.config, accept_config_changes)


@contextlib.contextmanager
def _about(arm: Arm, what: str) -> Iterator[None]:
    """Name the arm in a ValueError of the block, and what cannot be done with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"The arm {arm.label} cannot be {what}: {error}") from error


def tasks_of(study: Study, plan: Plan) -> list[Task]:
    """Return the arms and seeds in the order in which they are trained."""
    pairs = list(itertools.product(plan.seeds, plan.arms))
    numbers = {(seed, arm): number for number, (seed, arm) in enumerate(pairs)}
    tasks = []
    for (seed, arm), number in numbers.items():
        start = study.starts_from(plan, arm)
        after = None if start is None else numbers[seed, start]
        label = f"[{number + 1}/{len(pairs)}] {arm.label} seed {seed}"
        tasks.append(Task(arm, seed, number, after, label))
    return tasks


def train(
    study: Study, plan: Plan, workdir: pathlib.Path, task: Task, accept_config_changes: bool
) -> Run:
    """Train an arm with a seed to the end, or from where it was cut.

    Args:
      study, plan, workdir, accept_config_changes: as in `run`.
      task: the arm and the seed.
    """
    folder = seed_folder(workdir, task.arm, task.seed)
    training = functools.partial(training_config, study, plan, workdir, task.arm, task.seed)
    outcome = train_and_evaluate(training(), folder, task.label, accept_config_changes)
    load = functools.partial(load_trained, folder)
    return Run(task.arm, task.seed, folder, training, outcome, load, task.label)


def is_trained(study: Study, plan: Plan, workdir: pathlib.Path, task: Task) -> bool:
    """Say whether a run is trained to its end; that it is measured is not asked.

    Args:
      study, plan, workdir, task: as in `train`.
    """
    training = study.training_config(plan.config, task.arm, task.seed)
    return checkpoints.exists(seed_folder(workdir, task.arm, task.seed), training.epochs)


def measure(study: Study, plan: Plan, trained: Run) -> None:
    """Take the measurements of a run that are missing; its model is loaded once, where needed.

    Args:
      study, plan: as in `run`.
      trained: the run.
    """
    study.measure(plan, trained._replace(load=functools.cache(trained.load)))


def training_config(
    study: Study, plan: Plan, workdir: pathlib.Path, arm: Arm, seed: int
) -> ml_collections.ConfigDict:
    """Return the config that an arm is trained with in a folder.

    Args:
      study: the study.
      plan: of the study's config.
      workdir: the folder of the study.
      arm: the arm.
      seed: its seed.
    """
    training = study.training_config(plan.config, arm, seed)
    start = study.starts_from(plan, arm)
    if start is not None:
        folders = (seed_folder(workdir, x, seed) for x in (start, arm))
        training.fine_tune.workdir = f"{fine_tune.THIS_RUN}/{os.path.relpath(*folders)}"
    return training


def outdated(study: Study, plan: Plan, workdir: pathlib.Path) -> list[str]:
    """Return the runs that were trained with another config, as accepted changes leave them."""
    found = []
    for seed, arm in itertools.product(plan.seeds, plan.arms):
        folder = seed_folder(workdir, arm, seed)
        if not (folder / "config.json").exists():  # it failed before it began
            continue
        configs = training_config(study, plan, workdir, arm, seed), workdirs.read_config(folder)
        wanted, trained = (old_configs.without_changeable(workdirs.plain(c)) for c in configs)
        del wanted["instruments"], trained["instruments"]  # they change no training
        if wanted != trained:
            found.append(f"{arm.label} seed {seed}")
    return found


def _compilation(study: Study, plan: Plan, workdir: pathlib.Path) -> Callable[[Arm], None]:
    """Return what waits until an arm is compiled."""
    # Several processes take their calls over all devices in one order, which a thread would break.
    if not study.compile_ahead or process_count() > 1:
        return lambda arm: None
    missing = [
        arm
        for arm in plan.arms
        if not all(records.read(seed_folder(workdir, arm, s) / "records.jsonl") for s in plan.seeds)
    ]
    seed = plan.seeds[0]
    return compile_ahead({arm: study.training_config(plan.config, arm, seed) for arm in missing})
