"""Where weight decay acts: in the loss of every pass, or in the update; never in both."""

from typing import NamedTuple

import ml_collections

PLACES = ("update", "loss")


class WeightDecay(NamedTuple):
    r"""The two places of a weight decay lambda, one of them zero.

    Attributes:
      in_loss: lambda of :math:`\frac{\lambda}{2} \|w\|_2^2` in the loss, hence in both passes and
        before clipping (google-research/sam, tml-epfl/understanding-sam).
      in_update: lambda of :math:`\lambda w`, added to the clipped gradient (the study).
    """

    in_loss: float
    in_update: float


def weight_decay_of(optimiser: ml_collections.ConfigDict) -> WeightDecay:
    """Return the weight decay of a config in its place; nothing else reads these two fields.

    Args:
      optimiser: the group `optimiser` of a config.

    Raises:
      ValueError: `weight_decay_in` names no place.

    >>> c = ml_collections.ConfigDict({"weight_decay": 5e-4, "weight_decay_in": "update"})
    >>> weight_decay_of(c)
    WeightDecay(in_loss=0.0, in_update=0.0005)
    """
    place, size = optimiser.weight_decay_in, optimiser.weight_decay
    if place not in PLACES:
        raise ValueError(
            f"optimiser.weight_decay_in must be one of {', '.join(PLACES)}, got {place!r}."
        )
    return WeightDecay(size, 0.0) if place == "loss" else WeightDecay(0.0, size)
