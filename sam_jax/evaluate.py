"""Measure a trained model: python -m sam_jax.evaluate --workdir=runs/digits.

Writes its losses, accuracies, sharpness and asymmetry as records to WORKDIR/evaluations.jsonl, with
the settings in the group `instruments` of the run's config.
"""

import pathlib
from collections.abc import Sequence

from absl import app, flags, logging

from sam_jax.training import records
from sam_jax.training.loop import load_trained
from sam_jax.training.measure import evaluation_record, instrument_records

_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run of sam_jax.train.")
_EPOCH = flags.DEFINE_integer("epoch", None, "The checkpoint to measure; the last by default.")
_PRESETS = flags.DEFINE_list(
    "presets", ["sound"], "How to measure: sound, published (as the study's code did), or both."
)


def main(argv: Sequence[str]) -> None:
    """Measure what the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    workdir = pathlib.Path(_WORKDIR.value)
    config, trained = load_trained(workdir, _EPOCH.value)
    measured = [evaluation_record(trained)]
    print(summary(measured[0]))
    for record in instrument_records(trained, config.instruments, tuple(_PRESETS.value)):
        measured.append(record)
        print(summary(record), flush=True)
    path = workdir / "evaluations.jsonl"
    for record in measured:
        records.append(path, {"epoch": trained.epoch, "seed": config.seed, **record})
    print(f"{len(measured)} records are in {path}")


def summary(record: records.Record) -> str:
    """Return one line with the settings and the scalar results of a record."""
    fields = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in record.items()
        if name != "measure" and not isinstance(value, list)
    )
    return f"{record['measure']}: {', '.join(fields)}"


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    app.run(main)
