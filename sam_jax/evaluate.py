"""Measure a trained model: python -m sam_jax.evaluate --workdir=runs/digits.

Writes its losses, accuracies, sharpness, asymmetry and curvature as records to
WORKDIR/evaluations.jsonl, with the settings in the group `instruments` of the run's config. A
record is written as soon as it is measured; records that the file holds are not measured again.
"""

import pathlib
from collections.abc import Sequence

from absl import app, flags, logging

from sam_jax.measuring import registry
from sam_jax.measuring.measure import EVALUATIONS, measure_run
from sam_jax.runs import records, signals
from sam_jax.runs.distributed import is_first
from sam_jax.runs.flags import define_distributed, define_workdir, run_command

_WORKDIR = define_workdir("The folder of a run of sam_jax.train.")
_EPOCH = flags.DEFINE_integer("epoch", None, "The checkpoint to measure; the last by default.")
_PRESETS = flags.DEFINE_list(
    "presets", ["sound"], "How to measure: sound, published (as the study's code did), or both."
)
_MEASURES = flags.DEFINE_list(
    "measures",
    None,
    f"What to measure, of {', '.join(registry.NAMES)}; by default "
    f"{', '.join(i.name for i in registry.chosen())}.",
)
define_distributed()


def main(argv: Sequence[str]) -> None:
    """Run the measurements that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    with signals.handled():
        measured = measure_run(_WORKDIR.value, _EPOCH.value, _PRESETS.value, _MEASURES.value)
    if not is_first():
        return
    hidden = ("epoch", "seed", "settings")
    for record in measured:
        print(summary({name: record[name] for name in record if name not in hidden}))
    print(f"{len(measured)} records are in {pathlib.Path(_WORKDIR.value) / EVALUATIONS}")


def summary(record: records.Record) -> str:
    """Return one line with the settings and the scalar results of a record."""
    fields = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in record.items()
        if name != "measure" and not isinstance(value, list)
    )
    return f"{record['measure']}: {', '.join(fields)}"


if __name__ == "__main__":
    run_command(main)
