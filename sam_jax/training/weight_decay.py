"""Where weight decay acts, in the loss of every pass or in the update, and on what."""

from typing import NamedTuple

import jax
import ml_collections
import optax

from sam_jax.runs.fields import check_value, number, one_of
from sam_jax.typing import Params, PyTree

PLACES = ("update", "loss")
ON = ("all", "not_norms")


class WeightDecay(NamedTuple):
    r"""The two places of a weight decay lambda, one of them zero, and what it acts on.

    Attributes:
      in_loss: lambda of :math:`\frac{\lambda}{2} \|w\|_2^2` in the loss, hence in both passes and
        before clipping (google-research/sam, tml-epfl/understanding-sam).
      in_update: lambda of :math:`\lambda w`, added to the clipped gradient (the study), or by AdamW
        to what it makes of the gradient.
      on: "all" parameters, or "not_norms": those with more than one axis, as in
        google-research/sam. That leaves out biases and the scales of norms.
    """

    in_loss: float
    in_update: float
    on: str

    def links(self) -> list[optax.GradientTransformation]:
        """Return the links of an `optax.chain` that add lambda w, none where the loss has it."""
        if not self.in_update:
            return []
        mask = None if self.on == "all" else _is_decayed
        return [optax.add_decayed_weights(self.in_update, mask)]


def decayed(params: Params, on: str) -> PyTree:
    """Return the parameters that weight decay acts on, with None in the place of the others.

    Args:
      params: the parameters.
      on: as in `WeightDecay`.

    >>> import jax.numpy as jnp
    >>> kept = decayed({"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}, "not_norms")
    >>> print(kept["bias"], kept["kernel"].shape)
    None (2, 1)
    """
    if on == "all":
        return params
    return jax.tree.map(lambda w, kept: w if kept else None, params, _is_decayed(params))


def weight_decay_of(optimiser: ml_collections.ConfigDict) -> WeightDecay:
    """Return the weight decay of a config in its place; nothing else reads these fields.

    Args:
      optimiser: the group `optimiser` of a config.

    Raises:
      ValueError: a field names no place or no parameters, or the decay is negative.

    >>> fields = {"weight_decay": 5e-4, "weight_decay_in": "update", "weight_decay_on": "all"}
    >>> weight_decay_of(ml_collections.ConfigDict(fields))
    WeightDecay(in_loss=0.0, in_update=0.0005, on='all')
    """
    place, size, on = optimiser.weight_decay_in, optimiser.weight_decay, optimiser.weight_decay_on
    check_value("optimiser.weight_decay_in", place, one_of(PLACES))
    check_value("optimiser.weight_decay_on", on, one_of(ON))
    check_value("optimiser.weight_decay", size, number(0))
    return WeightDecay(size, 0.0, on) if place == "loss" else WeightDecay(0.0, size, on)


def _is_decayed(params: Params) -> PyTree:
    return jax.tree.map(lambda w: w.ndim > 1, params)
