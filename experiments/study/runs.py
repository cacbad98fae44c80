"""Train and measure every arm with every seed; finished work is never run again."""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable

import ml_collections

from experiments.study.arms import Arm, Plan, seed_folder
from experiments.study.compilation import compile_ahead
from experiments.study.study import Run, Study
from sam_jax.runs import records, workdirs
from sam_jax.runs.distributed import from_first, process_count
from sam_jax.training import build, fine_tune
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained


def run(
    study: Study, plan: Plan, workdir: pathlib.Path | str, accept_config_changes: bool = False
) -> None:
    """Train and measure all arms over all seeds, then measure across runs.

    Every arm and seed has a folder, workdir/models/NAME/seed_S: a run of `sam_jax.train` with a
    records.jsonl of its measurements. A training that was cut goes on from its last checkpoint.

    Args:
      study: the study.
      plan: of the study's config.
      workdir: the folder of the study.
      accept_config_changes: go on in a folder that was made with another config, for example with
        fewer seeds. Trained models stay as they are, and the report names those with other
        settings.

    Raises:
      ValueError: the config cannot be run, or the folder belongs to another one.
    """
    for arm in plan.arms:  # all of them, before the first is trained
        build.check(study.training_config(plan.config, arm, plan.seeds[0]))
    workdir = pathlib.Path(workdir)
    if not from_first(
        (workdir / "config.json").exists
    ):  # what does not fit its data writes nothing
        for arm in plan.arms:
            build.data_and_program(study.training_config(plan.config, arm, plan.seeds[0]))
    workdirs.claim(workdir, plan.config, accept_config_changes)
    wait = _compilation(study, plan, workdir)
    runs, pairs = [], list(itertools.product(plan.seeds, plan.arms))
    for number, (seed, arm) in enumerate(pairs, start=1):
        wait(arm)
        folder = seed_folder(workdir, arm, seed)
        label = f"[{number}/{len(pairs)}] {arm.label} seed {seed}"
        training = training_config(study, plan, workdir, arm, seed)
        outcome = train_and_evaluate(training, folder, label, accept_config_changes)
        load = functools.cache(functools.partial(load_trained, folder))  # once, where it is needed
        trained = Run(arm, seed, folder, training, outcome, load, label)
        study.measure(plan, trained)
        runs.append(trained._replace(load=functools.partial(load_trained, folder)))
    study.measure_across(plan, workdir, runs)


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
        wanted = workdirs.plain(training_config(study, plan, workdir, arm, seed))
        trained = workdirs.plain(workdirs.read_config(seed_folder(workdir, arm, seed)))
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
