"""The outcome of a training as a record, and the measurements of `evaluate` beside it."""

import functools
import pathlib
from collections.abc import Sequence

from experiments.study.arms import Plan
from experiments.study.results import Results, read_records
from experiments.study.study import Run
from experiments.study.table import Column
from sam_jax.measuring.measure import EVALUATIONS, measure_run
from sam_jax.runs import records

TRAINING = "training"  # the measure of the record
ERROR = Column("Test error", "%", "test_error", {"measure": TRAINING}, best="min", scale=100.0)
LOSS = Column("Test loss", "nats", "test_loss", {"measure": TRAINING}, best="min")


def measure_outcome(run: Run, measures: Sequence[str] = ()) -> None:
    """Write the outcome of a training, and measure its last checkpoint with some instruments.

    Nothing is repeated that is there. The record is the training's own with `test_error` and, where
    the training was recorded epoch by epoch, `best_test_error`: the least of all epochs.

    Args:
      run: the trained arm; its folder gets `records.jsonl`, and `evaluations.jsonl` for measures.
      measures: names of instruments, as of `python -m sam_jax.evaluate`.
    """
    path = run.folder / "records.jsonl"
    written = records.read(path)
    if not written or written[0]["epoch"] != run.outcome["epoch"]:
        history = [r["test_accuracy"] for r in records.read(run.folder / "metrics.jsonl")]
        known = [accuracy for accuracy in history if accuracy is not None and accuracy == accuracy]
        errors = {
            "test_error": 1 - run.outcome["test_accuracy"],
            "best_test_error": 1 - max(known, default=float("nan")),
        }
        about = {"label": run.arm.label, "seed": run.seed, "measure": TRAINING}
        records.rewrite(path, [{**about, **run.outcome, **errors}])
    if measures:
        measure_run(run.folder, presets=("sound",), measures=measures)


def read_measured(workdir: pathlib.Path | str, plan: Plan) -> Results:
    """Return the outcomes of a plan's arms and what `evaluate` measured on them.

    Raises:
      ValueError: there is no record at all.
    """
    read = functools.partial(read_records, workdir, plan.arms, plan.seeds)
    found = read(files=("records.jsonl", EVALUATIONS))
    return Results(tuple(plan.arms), tuple(plan.seeds), found)
