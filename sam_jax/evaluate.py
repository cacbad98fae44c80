"""Measure a trained model: python -m sam_jax.evaluate --workdir=runs/digits.

Writes its losses, accuracies, sharpness, asymmetry and curvature as records to
WORKDIR/evaluations.jsonl, with the settings in the group `instruments` of the run's config. A
record is written as soon as it is measured; records that the file holds are not measured again.

For example two instruments, as the study of asymmetry measured and as is sound:

    python -m sam_jax.evaluate --workdir=runs/digits --presets=sound,published \\
        --measures=adversarial_sharpness,asymmetry_factor

A checkpoint of another Flax program is measured with a function that gives its loss and its data:

    python -m sam_jax.evaluate --checkpoint=m.msgpack --target=my_module:target --workdir=runs/mine
"""

import pathlib
from collections.abc import Sequence

from absl import app, flags, logging

from sam_jax.measuring import registry
from sam_jax.measuring.measure import EVALUATIONS, measure_run
from sam_jax.measuring.measure_checkpoint import measure_checkpoint
from sam_jax.runs import records, signals
from sam_jax.runs.distributed import is_first
from sam_jax.runs.flags import define_distributed, define_workdir, run_command

_WORKDIR = define_workdir(
    "The folder of a run of sam_jax.train; with --checkpoint, a folder for its records."
)
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
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Measure this checkpoint and no run: a folder of orbax, or a file of safetensors or msgpack.",
)
_TARGET = flags.DEFINE_string(
    "target",
    None,
    "MODULE:FUNCTION, which returns the sam_jax.measuring.target.Target of --checkpoint: its loss, "
    "its data and, where there is one, its test set.",
)
define_distributed()


def main(argv: Sequence[str]) -> None:
    """Run the measurements that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    with signals.handled():
        measured = _measure()
    if not is_first():
        return
    hidden = (
        "epoch",
        "seed",
        "settings",
        "checkpoint",
        "checkpoint_digest",
        "target",
        "data_digest",
    )
    for record in measured:
        print(summary({name: record[name] for name in record if name not in hidden}))
    print(f"{len(measured)} records are in {pathlib.Path(_WORKDIR.value) / EVALUATIONS}")


def _measure() -> list[records.Record]:
    """Measure the checkpoint of one's own that the flags name, or else the run."""
    checkpoint, target = _CHECKPOINT.value, _TARGET.value
    if checkpoint is None and target is None:
        return measure_run(_WORKDIR.value, _EPOCH.value, _PRESETS.value, _MEASURES.value)
    if checkpoint is None or target is None:
        missing = "--checkpoint" if checkpoint is None else "--target"
        raise app.UsageError(f"--checkpoint and --target go together, and {missing} is missing")
    if _EPOCH.value is not None:
        raise app.UsageError("--epoch chooses a checkpoint of a run; leave it out of --checkpoint")
    return measure_checkpoint(checkpoint, target, _WORKDIR.value, _PRESETS.value, _MEASURES.value)


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
