"""Measure the trained models, the planes around them and the curves between them."""

import functools
import itertools
import pathlib
from collections.abc import Sequence

import ml_collections

from experiments.even_better.arms import Model, Plan
from experiments.even_better.run.connection import run_connection
from experiments.even_better.run.plane import run_plane
from experiments.study.study import Run
from experiments.study.together import after_the_first
from sam_jax.measuring import registry
from sam_jax.measuring.measure import measurements, record_measurements
from sam_jax.measuring.settings import relevant
from sam_jax.paths.plain_run import check_steps_per_epoch
from sam_jax.runs import records
from sam_jax.training.trained import Trained, check_whole


def measure(plan: Plan, run: Run) -> None:
    """Write the records of a trained model and the plane of losses around it.

    Args:
      plan: of the study's config.
      run: the trained model; its folder gets `records.jsonl` and `plane.jsonl`.
    """
    assert isinstance(run.arm, Model)
    model, epoch = run.arm._asdict(), run.outcome["epoch"]
    about = {
        **{name: value for name, value in model.items() if name != "name"},
        "model": run.arm.name,
        "seed": run.seed,
        "settings": _digest(run.training, plan.config.presets),
        "epoch": epoch,
    }
    _measure_model(plan.config, run, about)
    run_plane(plan.config, run.folder, run.load, epoch, run.seed, f"{run.label} plane")


def fits(plan: Plan, arm: Model, training: ml_collections.ConfigDict, run: Trained) -> None:
    """Raise a ValueError unless the data set has what the measurements and the curves need.

    Args:
      plan: of the study's config.
      arm: a model.
      training: its config.
      run: its run before it is trained.
    """
    check_whole(run)
    measurements(run, training.instruments, tuple(plan.config.presets))
    if plan.pairs:
        config, examples = plan.config, len(run.data.train_labels)
        check_steps_per_epoch(config.small_batch, config.curve.epochs, examples)


def measure_curves(plan: Plan, workdir: pathlib.Path, runs: Sequence[Run], at_once: int) -> None:
    """Train and measure the curves between pairs of models, in workdir/curves."""
    epochs = {(run.arm, run.seed): run.outcome["epoch"] for run in runs}
    curves = list(itertools.product(plan.seeds, plan.pairs))
    tasks = []
    for number, (seed, ends) in enumerate(curves, start=1):
        label = f"[{number}/{len(curves)}] {ends[0].name} to {ends[1].name} seed {seed}"
        start, end = (epochs.get((model, seed)) for model in ends)
        if start is not None and end is not None:  # a model that failed has no curves
            tasks.append(
                functools.partial(
                    run_connection, plan.config, workdir, ends, (start, end), seed, label
                )
            )
    after_the_first(tasks, at_once)


def _digest(training: ml_collections.ConfigDict, presets: tuple[str, ...]) -> str:
    """Return a short name of how a model is measured, the same where it is the same."""
    return records.digest([relevant(training.instruments, registry.chosen()), list(presets)])


def _measure_model(config: ml_collections.ConfigDict, run: Run, about: records.Record) -> None:
    """Write the records of a trained model, from where a cut run stopped."""
    path = run.folder / "records.jsonl"
    found = records.read(path)
    if any(record.get(name) != about[name] for record in found for name in ("settings", "epoch")):
        path.unlink()  # of another epoch, or measured in another way
        found = []
    if found and len(found) == found[0].get("measurements"):
        return  # complete, which is known without loading the data and the model
    _, trained = run.load()
    batches = {config.small_batch: "small", config.large_batch: "large"}
    wanted = []
    for measurement in measurements(
        trained, run.training.instruments, tuple(config.presets), workdir=run.folder
    ):
        m = measurement.about.get("m")
        named = {} if m is None else {"measured_batch": batches[m]}
        wanted.append(measurement._replace(about=measurement.about | named))
    record_measurements(path, wanted, {**about, "measurements": len(wanted)}, run.label)
