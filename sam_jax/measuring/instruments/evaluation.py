"""Losses and accuracies over the whole training and test sets; they know no preset."""

import functools
from collections.abc import Iterator

from sam_jax.measuring.instrument import Column, Instrument, Subject, Take
from sam_jax.runs.records import Record
from sam_jax.training.trained import evaluate_sets


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield what evaluates the model: there is nothing to choose."""
    trained = subject.trained
    names = ("train", "test", "validation")
    yield (
        {},
        functools.partial(evaluate_sets, trained.program, trained.data, trained.state, names=names),
    )


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
