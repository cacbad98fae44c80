"""Losses and accuracies over the whole training and test sets; they know no preset."""

from collections.abc import Iterator

from sam_jax.measuring.instrument import Column, Instrument, Subject, Take
from sam_jax.runs.records import Record


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield what evaluates the model: there is nothing to choose."""
    yield {}, subject.measured.evaluate


INSTRUMENT = Instrument(
    name="evaluation",
    title="Evaluation",
    plan=plan,
    presets=(),
    columns=(
        Column("test_loss", "test loss", "Test loss", "nats", better="min"),
        Column("train_loss", "train loss", "Training loss", "nats", better="min"),
        Column("test_accuracy", "test accuracy", "Test accuracy", better="max"),
        Column("train_accuracy", "train accuracy", "Training accuracy", better="max"),
    ),
)
