"""Train and measure every model of the study; what is finished is never run again."""

import functools
import itertools
import pathlib

import ml_collections

from experiments.even_better.arms import Model, study_models, study_pairs, training_config
from experiments.even_better.run.connection import run_connection
from experiments.even_better.run.plane import Load, check_planes, run_plane
from sam_jax.training import records, workdirs
from sam_jax.training.loop import load_trained, train_and_evaluate
from sam_jax.training.measure import measurements, record_measurements


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    accept_config_changes: bool = False,
) -> None:
    """Train and measure all models over all seeds, then the curves between pairs of them.

    Every model and seed has a folder, workdir/models/NAME/seed_S: a run of `sam_jax.train` with a
    records.jsonl of what was measured on it and a plane.jsonl of the losses around it. A model that
    was cut goes on from its last checkpoint. Curves are in workdir/curves.

    Args:
      config: as in configs/even_better/digits.py.
      workdir: the folder of the study.
      accept_config_changes: go on in a folder that was made with another config, for example with
        fewer seeds. What is trained stays as it is, and the report names it where it differs; what
        would be measured differently is measured again.

    Raises:
      ValueError: the config cannot be run, or the folder belongs to another one.
    """
    models, pairs = study_models(config), study_pairs(config)
    check_planes(config)
    workdir = pathlib.Path(workdir)
    workdirs.claim(workdir, config, accept_config_changes)
    runs = list(itertools.product(config.seeds, models))
    epochs: dict[tuple[Model, int], int] = {}
    for number, (seed, model) in enumerate(runs, start=1):
        folder = _folder(workdir, model, seed)
        label = f"[{number}/{len(runs)}] {model.name} seed {seed}"
        training = training_config(config, model, seed)
        epoch = train_and_evaluate(training, folder, label, accept_config_changes)["epoch"]
        about = {
            **{name: value for name, value in model._asdict().items() if name != "name"},
            "model": model.name,
            "seed": seed,
            "settings": _digest(training, config.presets),
            "epoch": epoch,
        }
        load = functools.cache(functools.partial(load_trained, folder))  # once, where it is needed
        _measure(config, training.instruments, about, folder, load, label)
        run_plane(config, folder, load, epoch, seed, f"{label} plane")
        epochs[model, seed] = epoch
    curves = list(itertools.product(config.seeds, pairs))
    for number, (seed, ends) in enumerate(curves, start=1):
        label = f"[{number}/{len(curves)}] {ends[0].name} to {ends[1].name} seed {seed}"
        both = epochs[ends[0], seed], epochs[ends[1], seed]
        run_connection(config, workdir, ends, both, seed, label)


def outdated(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[str]:
    """Return the runs that were trained with another config, as accepted changes leave them."""
    found = []
    for seed, model in itertools.product(config.seeds, study_models(config)):
        wanted = workdirs.plain(training_config(config, model, seed))
        trained = workdirs.plain(workdirs.read_config(_folder(workdir, model, seed)))
        del wanted["instruments"], trained["instruments"]
        if wanted != trained:
            found.append(f"{model.name} seed {seed}")
    return found


def _folder(workdir: pathlib.Path, model: Model, seed: int) -> pathlib.Path:
    return workdir / "models" / model.name / f"seed_{seed}"


def _digest(training: ml_collections.ConfigDict, presets: tuple[str, ...]) -> str:
    """Return a short name of how a model is measured, the same where it is the same."""
    return records.digest([workdirs.plain(training.instruments), list(presets)])


def _measure(
    config: ml_collections.ConfigDict,
    instruments: ml_collections.ConfigDict,
    about: records.Record,
    folder: pathlib.Path,
    load: Load,
    label: str,
) -> None:
    """Write the records of a trained model, from where a cut run stopped."""
    path = folder / "records.jsonl"
    found = records.read(path)
    if any(record.get(name) != about[name] for record in found for name in ("settings", "epoch")):
        path.unlink()  # of another epoch, or measured in another way
        found = []
    if found and len(found) == found[0].get("measurements"):
        return  # complete, which is known without loading the data and the model
    _, trained = load()
    batches = {config.small_batch: "small", config.large_batch: "large"}
    wanted = []
    for measurement in measurements(trained, instruments, tuple(config.presets)):
        m = measurement.about.get("m")
        named = {} if m is None else {"measured_batch": batches[m]}
        wanted.append(measurement._replace(about=measurement.about | named))
    record_measurements(path, wanted, {**about, "measurements": len(wanted)}, label)
