"""The loss along a line through the parameters."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.metrics.checks import check_moves, check_vector
from sam_jax.metrics.evaluation import full_precision, losses_along, scalar_loss
from sam_jax.metrics.parameters import loss_of_parameters
from sam_jax.typing import AnyArray, Array, Float, LossFn, Num, Params, PyTree


@full_precision
def loss_curve(
    loss_fn: LossFn,
    params: Params,
    direction: PyTree,
    distances: Num[AnyArray, " points"] | Sequence[float],
    *,
    mesh: Mesh | None = None,
) -> Float[Array, " points"]:
    r"""Return the losses at `params + distance * direction` for every distance.

    .. math::
      L(w + t_j \, d)

    Figures 6 and 11 of the study of asymmetry are such curves along one "uniform" direction of
    `random_directions`, at 21 distances. The points run one after the other, at the cost of k
    losses. Jit the call to compile it once for many models and directions.

    Args:
      loss_fn: `loss_fn(params)` -> scalar, the loss over the whole set.
      params: parameters w. They are widened to float32 if narrower.
      direction: d, a pytree like `params`; it is used as given and not scaled to unit norm.
      distances: t, shape [k], in units of the length of `direction`, of either sign.
      mesh: devices to share the points out over, as in `loss_plane`; None for no sharing.

    Returns:
      The losses, shape [k], in float32 or wider; one that is not finite is kept.

    Raises:
      ValueError: the direction does not fit `params`, is zero or is not finite; the distances are
        not a non-empty vector of finite numbers; or `loss_fn` does not return a scalar.

    References:
      Boca, Cross, Holm and Korkmaz, Towards an Even Better Understanding of Sharpness-Aware
      Minimisation, 2023, https://github.com/Kausta/R252_SAM.

    >>> loss_curve(jnp.sum, jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), [-1.0, 0.0, 3.0]).tolist()
    [2.0, 3.0, 6.0]
    """
    direction = check_moves("direction", direction, params)
    distances = check_vector("distances", distances)
    loss_fn, params = loss_of_parameters(scalar_loss(loss_fn), params)
    return losses_along(
        loss_fn,
        params,
        lambda _: jax.tree.map(jnp.asarray, direction),
        indices=jnp.arange(distances.size),
        distances=distances,
        mesh=mesh,
    )
