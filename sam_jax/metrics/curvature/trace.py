"""The trace of the Hessian, estimated from its products with random vectors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.draws import check_key
from sam_jax.metrics.checks import check_count, check_distribution, check_products
from sam_jax.metrics.curvature.hessian import hessian_operator
from sam_jax.metrics.evaluation import full_precision, standard_error
from sam_jax.pytree import vdot
from sam_jax.typing import AnyArray, Array, Batch, Float, Key, LossFn, Mask, Num, Params

DISTRIBUTIONS = ("rademacher", "gaussian")


class HessianTrace(NamedTuple):
    """An estimate of the trace; scalars, and one array of shape [draws]."""

    trace: Float[Array, ""]  # mean over the draws
    stderr: Float[Array, ""]  # standard error of the trace over the draws, NaN for one draw
    per_draw: Float[Array, " draws"]  # v'Hv, each an unbiased estimate of its own


@full_precision
def hessian_trace(
    loss_fn: LossFn,
    params: Params,
    batches: Batch | None = None,
    *,
    key: Key,
    draws: int = 30,
    distribution: str = "rademacher",
    weights: Num[AnyArray, " batches"] | None = None,
    mask: Mask = None,
    mesh: Mesh | None = None,
) -> HessianTrace:
    """Return the mean over random v of v'Hv, an unbiased estimate of the trace of the Hessian H.

    The entries of v are independent with mean zero and variance one. The variance of one draw is

    * "rademacher", signs +1 or -1: 2 (||H||_F^2 - sum_i H_ii^2), none for a diagonal Hessian;
    * "gaussian", N(0, 1): 2 ||H||_F^2.

    The number of draws is fixed: to stop once the mean has settled would be to stop by luck.
    Divided by the number of parameters, the trace is the mean eigenvalue. For small rho,
    `average_sharpness` with "gaussian" tends to rho^2 / 2 times the trace.

    The cost is `draws` products of `hessian_vector_product`, one after the other, each with its
    vector drawn inside the loop: memory for one product. Jit the call to compile it once for
    many models.

    Args:
      loss_fn: `loss_fn(params, batch)` -> mean loss of the batch, a scalar; without `batches`
        `loss_fn(params)` -> the loss over the whole set.
      params: parameters. They are widened to float32 if narrower.
      batches: a pytree whose leaves have leading axes [n, m, ...]: n batches of m examples. Every
        draw sees all of them, so the standard error comes from the draws alone.
      key: a typed key; draw i uses `fold_in(key, i)`, the same for all models of one architecture.
      draws: number of random vectors.
      distribution: "rademacher" or "gaussian".
      weights: shape [n], the weight of each batch; None for equal ones.
      mask: the leaves over which the trace is taken, as in `hessian_vector_product`; None for all.
      mesh: devices to share the batches out over, as in `loss_plane`; None for no sharing.

    Returns:
      A `HessianTrace`.

    Raises:
      ValueError: for `draws` below one, an unknown distribution, a `key` that is not one typed
        key, and as `hessian_vector_product`.

    References:
      Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian
      Smoothing Splines, Communications in Statistics 19(2), 1990.

    >>> loss_fn = lambda w: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * w**2)
    >>> hessian_trace(loss_fn, jnp.ones(3), key=jax.random.key(0), draws=2).per_draw.tolist()
    [12.0, 12.0]
    """
    check_count("draws", draws)
    check_distribution(distribution, DISTRIBUTIONS)
    check_key(key)
    operator = hessian_operator(loss_fn, params, batches, weights, mask, mesh)

    def estimate(index: jax.Array) -> jax.Array:
        draw = jax.random.fold_in(key, index)
        if distribution == "gaussian":
            v = operator.draw(draw)
        else:
            uniform = operator.draw(draw, "uniform")
            v = jax.tree.map(lambda u: jnp.where(u < 0.5, -1, 1).astype(u.dtype), uniform)
        return vdot(v, operator.product(v))

    per_draw = jax.lax.map(estimate, jnp.arange(draws))
    check_products(per_draw)
    return HessianTrace(jnp.mean(per_draw), standard_error(per_draw), per_draw)
