"""Train and measure every model of the study; what is finished is never run again."""

import itertools
import pathlib

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
        fewer seeds; what is finished stays as it is.

    Raises:
      ValueError: the config cannot be run, or the folder belongs to another one.
    """
    models = study_models(config)
    workdir = pathlib.Path(workdir)
    workdirs.claim(workdir, config, accept_config_changes)
    runs = list(itertools.product(config.seeds, models))
    for number, (seed, model) in enumerate(runs, start=1):
        folder = workdir / "models" / model.name / f"seed_{seed}"
        label = f"[{number}/{len(runs)}] {model.name} seed {seed}"
        training = training_config(config, model, seed)
        train_and_evaluate(training, folder, label, accept_config_changes)
        measured = records.read(folder / "records.jsonl")
        if not measured or measured[0]["epoch"] != config.training.epochs:
            _measure(config, model, seed, folder, label)


def _measure(
    config: ml_collections.ConfigDict, model: Model, seed: int, folder: pathlib.Path, label: str
) -> None:
    """Write the records of a trained model, all at once so that a cut leaves none."""
    training, trained = load_trained(folder)
    about = {"model": model.name, **model._asdict(), "seed": seed, "epoch": trained.epoch}
    del about["name"]
    batches = {config.small_batch: "small", config.large_batch: "large"}
    measured = [evaluation_record(trained)]
    measuring = instrument_records(trained, training.instruments, tuple(config.presets))
    for record in watch(label, measuring):
        if "m" in record:
            record["measured_batch"] = batches[record["m"]]
        measured.append(record)
    records.rewrite(folder / "records.jsonl", [{**about, **record} for record in measured])
