"""Train and measure every model of the study; what is finished is never run again."""

import itertools
import json
import pathlib
import zlib

import ml_collections

from experiments.even_better.models import study_models, training_config
from experiments.even_better.results import Model
from sam_jax.training import records, workdirs
from sam_jax.training.loop import load_trained, train_and_evaluate
from sam_jax.training.measure import evaluation_record, instrument_records
from sam_jax.training.progress import watch


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    accept_config_changes: bool = False,
) -> None:
    """Train and measure all models over all seeds.

    Every model and seed has a folder, workdir/models/NAME/seed_S: a run of `sam_jax.train` with a
    records.jsonl of what was measured on it. A model that was cut goes on from its last checkpoint.

    Args:
      config: as in configs/even_better/digits.py.
      workdir: the folder of the study.
      accept_config_changes: go on in a folder that was made with another config, for example with
        fewer seeds. What is trained stays as it is, and the report names it where it differs; what
        would be measured differently is measured again.

    Raises:
      ValueError: the config cannot be run, or the folder belongs to another one.
    """
    models = study_models(config)
    workdir = pathlib.Path(workdir)
    workdirs.claim(workdir, config, accept_config_changes)
    runs = list(itertools.product(config.seeds, models))
    for number, (seed, model) in enumerate(runs, start=1):
        folder = _folder(workdir, model, seed)
        label = f"[{number}/{len(runs)}] {model.name} seed {seed}"
        training = training_config(config, model, seed)
        epoch = train_and_evaluate(training, folder, label, accept_config_changes)["epoch"]
        settings = _digest(training, config.presets)
        measured = records.read(folder / "records.jsonl")
        if not measured or (measured[0].get("epoch"), measured[0].get("settings")) != (
            epoch,
            settings,
        ):
            about = {**model._asdict(), "model": model.name, "seed": seed, "settings": settings}
            del about["name"]
            _measure(config, training.instruments, about, folder, label)


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
    settings = [workdirs.plain(training.instruments), list(presets)]
    return f"{zlib.crc32(json.dumps(settings, sort_keys=True).encode()):08x}"


def _measure(
    config: ml_collections.ConfigDict,
    instruments: ml_collections.ConfigDict,
    about: records.Record,
    folder: pathlib.Path,
    label: str,
) -> None:
    """Write the records of a trained model, all at once so that a cut leaves none."""
    _, trained = load_trained(folder)
    about = {**about, "epoch": trained.epoch}
    batches = {config.small_batch: "small", config.large_batch: "large"}
    measured = [evaluation_record(trained)]
    for record in watch(label, instrument_records(trained, instruments, tuple(config.presets))):
        if "m" in record:
            record["measured_batch"] = batches[record["m"]]
        measured.append(record)
    records.rewrite(folder / "records.jsonl", [{**about, **record} for record in measured])
