"""Losses and accuracies over the training and the test set, by policy of batch norm."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from sam_jax.metrics.landscape.grids import BATCH_NORM_POLICIES
from sam_jax.training.device_data import DeviceData
from sam_jax.training.evaluation import Evaluation, Inputs, evaluate_set, make_logits_fn
from sam_jax.training.recalibration import recalibrated_batch_stats
from sam_jax.typing import Params, PyTree


class SetLosses(NamedTuple):
    """Means over the two sets."""

    train: Evaluation
    test: Evaluation


def make_set_losses(
    model: nn.Module,
    inputs: Inputs,
    batch_norm: str = "running",
    batch_size: int = 1000,
    recalibration_batch_size: int = 128,
) -> Callable[[Params, PyTree, DeviceData], SetLosses]:
    """Return `set_losses(params, batch_stats, data)` of parameters away from a trained model.

    * "running": batch norm keeps the running statistics that are given, those of the trained
      model. The loss is then a function of the weights alone (Li et al. 2018); far from the model
      the statistics do not fit and the loss explodes.
    * "batch": the statistics of each evaluated batch, as in training, so that the size of a batch
      matters.
    * "recalibrated": running statistics computed anew on the training set for every parameters
      (Garipov et al. 2018, He et al. 2019).

    Landscapes under different policies cannot be compared; recalibrated ones are far flatter.

    Args:
      model: a Flax linen module.
      inputs: from uint8 images to what the model was trained on. Nothing is augmented.
      batch_norm: one of the above.
      batch_size: images in one pass. It bounds the memory, and changes the result for "batch" only.
      recalibration_batch_size: images that batch norm sees at once for "recalibrated".

    Returns:
      A function to SetLosses; the statistics that it gets are not changed.

    Raises:
      ValueError: the policy is unknown.
    """
    if batch_norm not in BATCH_NORM_POLICIES:
        raise ValueError(
            f"batch_norm must be one of {list(BATCH_NORM_POLICIES)}, got {batch_norm!r}."
        )
    logits_fn = make_logits_fn(model, inputs, "batch" if batch_norm == "batch" else "running")

    def set_losses(params: Params, batch_stats: PyTree, data: DeviceData) -> SetLosses:
        if batch_norm == "recalibrated":
            batch_stats = recalibrated_batch_stats(
                model, params, batch_stats, data.train_images, inputs, recalibration_batch_size
            )
        logits = functools.partial(logits_fn, params, batch_stats)
        fill = batch_norm != "batch"
        return SetLosses(
            evaluate_set(logits, data.train_images, data.train_labels, batch_size, fill=fill),
            evaluate_set(logits, data.test_images, data.test_labels, batch_size, fill=fill),
        )

    return set_losses
