"""What is measured: a model with its losses and its sets, wherever it comes from."""

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

import jax
from flax import linen as nn

from sam_jax.measuring.batch_norm_policy import BatchNormPolicy
from sam_jax.measuring.set_losses import SetLosses, Sets, make_set_losses
from sam_jax.metrics import Conditions, Preset
from sam_jax.runs.records import Record
from sam_jax.training.evaluation import Inputs, make_logits_fn, unnormalised
from sam_jax.training.losses import cross_entropy
from sam_jax.training.program import full_precision
from sam_jax.training.trained import Trained, evaluate_sets
from sam_jax.typing import Batch, Params, PyTree


class Network(Hashable, Protocol):
    """The losses that instruments are compiled for; equal networks share their programs."""

    def check(self, batch_norm: str) -> None:
        """Raise a ValueError where the losses know no such batch norm: a kind of a policy."""
        ...

    def losses(
        self, conditions: Conditions, params: Params, batch_stats: PyTree, examples: Batch
    ) -> jax.Array:
        """Return the loss of each example, [n], under the conditions of a preset."""
        ...

    def set_losses(
        self, batch_norm: BatchNormPolicy, batch_size: int
    ) -> Callable[[Params, PyTree, Sets], SetLosses]:
        """Return a function to means over both sets, with at most batch_size examples in a pass."""
        ...


class ImageClassifier(NamedTuple):
    """The cross-entropy of a linen model of images, however the model was trained."""

    model: nn.Module
    inputs: Inputs

    def check(self, batch_norm: str) -> None:
        """Take every batch norm."""

    def losses(
        self, conditions: Conditions, params: Params, batch_stats: PyTree, examples: Batch
    ) -> jax.Array:
        """Return the cross-entropies of examples (images, labels)."""
        images, labels = examples
        inputs = self.inputs if conditions.normalise_images else unnormalised(self.inputs)
        logits_fn = make_logits_fn(self.model, inputs, conditions.batch_norm)
        return cross_entropy(logits_fn(params, batch_stats, images), labels)

    def set_losses(
        self, batch_norm: BatchNormPolicy, batch_size: int
    ) -> Callable[[Params, PyTree, Sets], SetLosses]:
        """Return what `make_set_losses` does."""
        return make_set_losses(self.model, self.inputs, batch_norm, batch_size)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model at a point, as instruments see it.

    Attributes:
      name: of the point in progress and in the names of files, such as "epoch 3".
      network: its losses.
      params: its parameters.
      batch_stats: what else its losses depend on, such as running statistics; {} for nothing.
      sets: the training set, and the test set where there is one.
      evaluate: to the means over all of its sets: the record of the evaluation.
      run: the training that it comes from; None for a checkpoint of one's own.
    """

    name: str
    network: Network
    params: Params
    batch_stats: PyTree
    sets: Sets
    evaluate: Callable[[], Record]
    run: Trained | None = None


def as_measured(point: Trained | Measured) -> Measured:
    """Return what instruments see of a model, in full precision.

    Args:
      point: a run at the end of an epoch, or what it is measured as already.
    """
    if isinstance(point, Measured):
        return point
    state, program, data = point.state, point.program, point.data
    names = ("train", "test", "validation")
    return Measured(
        name=f"epoch {point.epoch}",
        network=ImageClassifier(full_precision(program.model), program.inputs),
        params=state.params,
        batch_stats=state.batch_stats,
        sets=Sets((data.train_images, data.train_labels), (data.test_images, data.test_labels)),
        evaluate=functools.partial(evaluate_sets, program, data, state, names=names),
        run=point,
    )


def check_conditions(network: Network, preset: Preset) -> None:
    """Raise a ValueError where a network cannot be measured under a preset.

    Args:
      network: the losses.
      preset: of `metrics.PRESETS`.
    """
    for conditions in (preset.adversarial, preset.average, preset.asymmetry, preset.curve):
        network.check(conditions.batch_norm)


def needs_test_set(measured: Measured, measure: str) -> None:
    """Raise a ValueError where an instrument finds no test set.

    Args:
      measured: the model.
      measure: the name of the instrument.
    """
    if measured.sets.test is None:
        raise ValueError(
            f"{measure} measures a test set, and the target of this checkpoint has none; give it "
            "one, or leave this measure out."
        )


def run_of(measured: Measured, measure: str) -> Trained:
    """Return the training of a model, for an instrument that reads what else it kept.

    Args:
      measured: the model.
      measure: the name of the instrument.

    Raises:
      ValueError: it is a checkpoint of one's own.
    """
    if measured.run is None:
        raise ValueError(
            f"{measure} needs the folder of a run of sam_jax.train with several checkpoints, and "
            "a checkpoint of one's own is a single one; leave this measure out."
        )
    return measured.run
