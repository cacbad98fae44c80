"""The loss along a line through the parameters."""

import jax
import jax.numpy as jnp

from sam_jax.metrics.checks import check_direction
from sam_jax.metrics.evaluation import full_precision, losses_along, scalar_loss, widen_all
from sam_jax.typing import LossFn, Params, PyTree


@full_precision
def loss_curve(
    loss_fn: LossFn, params: Params, direction: PyTree, distances: jax.Array
) -> jax.Array:
    """Return the losses at `params + distance * direction` for every distance.

    Figures 6 and 11 of the study of asymmetry are such curves along one "uniform" direction of
    `random_directions`, at 21 distances.

    Args:
      loss_fn: `loss_fn(params)` -> scalar, the loss over the whole set.
      params: parameters. They are widened to float32 if narrower.
      direction: a pytree like `params`; it is used as given and not scaled to unit norm.
      distances: shape [k], in units of the length of `direction`, of either sign.

    Returns:
      The losses, shape [k], in float32 or wider.

    Raises:
      ValueError: for a direction that does not fit `params`, distances that are not a
        non-empty vector, or a `loss_fn` without a scalar value.

    >>> loss_curve(jnp.sum, jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), [-1.0, 0.0, 3.0]).tolist()
    [2.0, 3.0, 6.0]
    """
    check_direction("direction", direction, params)
    distances = jnp.asarray(distances)
    if distances.ndim != 1 or distances.size == 0:
        raise ValueError(f"distances must have the shape [k], k >= 1, got {distances.shape}.")
    return losses_along(
        scalar_loss(loss_fn),
        widen_all(params),
        lambda _: jax.tree.map(jnp.asarray, direction),
        indices=jnp.arange(distances.size),
        distances=distances,
    )
