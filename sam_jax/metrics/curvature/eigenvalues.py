"""The largest and the smallest eigenvalues of the Hessian."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.draws import check_key
from sam_jax.metrics.checks import check_count, check_products
from sam_jax.metrics.curvature.hessian import hessian_operator
from sam_jax.metrics.curvature.lanczos import combine, ritz_pairs, tridiagonalise
from sam_jax.metrics.evaluation import full_precision
from sam_jax.pytree import norm, normalise
from sam_jax.typing import AnyArray, Array, Batch, Float, Key, LossFn, Mask, Num, Params, PyTree


class HessianEigenvalues(NamedTuple):
    """k eigenvalues from each end of the spectrum; arrays of shape [k]."""

    top: Float[Array, " eigenvalues"]  # the largest eigenvalues, in descending order
    bottom: Float[
        Array, " eigenvalues"
    ]  # the smallest eigenvalues, in ascending order: the most negative one first
    top_residuals: Float[Array, " eigenvalues"]  # ||H v - lambda v||, with ||v|| = 1, of each pair
    bottom_residuals: Float[Array, " eigenvalues"]  # likewise
    # Unit eigenvectors, pytrees like params with one more leading axis of size k (as `directions`
    # of `asymmetry_factor` has), zero outside the mask; None unless asked for.
    top_vectors: PyTree | None
    bottom_vectors: PyTree | None  # likewise


@full_precision
def hessian_eigenvalues(
    loss_fn: LossFn,
    params: Params,
    batches: Batch | None = None,
    *,
    key: Key,
    num_eigenvalues: int = 1,
    steps: int = 40,
    vectors: bool = False,
    weights: Num[AnyArray, " batches"] | None = None,
    mask: Mask = None,
    mesh: Mesh | None = None,
) -> HessianEigenvalues:
    """Return the k largest and the k smallest eigenvalues of the Hessian, by the Lanczos process.

    They are the outermost eigenvalues of the tridiagonal matrix of `steps` Lanczos steps from a
    random vector, with full reorthogonalisation; `steps` beyond the number d of parameters are
    left out. Unlike the power iteration, this finds both ends at once, in far fewer products. It
    does not take a large negative eigenvalue for the largest one.

    The residual says how good a pair is: some eigenvalue of the Hessian lies within ||H v - lambda
    v|| of lambda. It is measured with one more product a pair, hence it also shows rounding: in
    float32 it stays above about 1e-7 times the largest |lambda|. More steps make it smaller. An
    eigenvalue of multiplicity above one is found once, further copies only after its eigenspace
    is exhausted or by rounding. The values approach the ends from inside: the top ones from below.

    The cost is `steps + 2 num_eigenvalues` products of `hessian_vector_product`, one after the
    other. The memory is `steps * d` numbers (40 steps of a network of 2.3 million parameters: 370
    MB in float32) and one product. Jit the call to compile it once for many models.

    Args:
      loss_fn: `loss_fn(params, batch)` -> mean loss of the batch, a scalar; without `batches`
        `loss_fn(params)` -> the loss over the whole set.
      params: parameters. They are widened to float32 if narrower.
      batches: a pytree whose leaves have leading axes [n, m, ...]: n batches of m examples.
      key: a typed key for the start, which is the same for all models of one architecture.
      num_eigenvalues: number k of eigenvalues from each end, at most d and `steps`.
      steps: number of Lanczos steps.
      vectors: whether to return the eigenvectors as well. Their sign is arbitrary.
      weights: shape [n], the weight of each batch; None for equal ones.
      mask: the leaves over which the Hessian is taken, as in `hessian_vector_product`.
      mesh: devices to share the batches out over, as in `loss_plane`; None for no sharing.

    Returns:
      A `HessianEigenvalues`.

    Raises:
      ValueError: for `num_eigenvalues` or `steps` below one, more eigenvalues than steps or
        parameters, a `key` that is not one typed key, and as `hessian_vector_product`.

    References:
      Lanczos, An Iteration Method for the Solution of the Eigenvalue Problem of Linear
      Differential and Integral Operators, 1950.
      Parlett, The Symmetric Eigenvalue Problem, 1980.

    >>> loss_fn = lambda w: 3.0 * w[0] ** 2 - 0.5 * w[1] ** 2 + 2.0 * w[2] ** 2
    >>> result = hessian_eigenvalues(
    ...     loss_fn, jnp.ones(3), key=jax.random.key(0), num_eigenvalues=2, vectors=True)
    >>> print([f"{value:.3f}" for value in [*result.top, *result.bottom]])
    ['6.000', '4.000', '-1.000', '4.000']
    >>> print(f"{jnp.abs(result.bottom_vectors[0, 1]):.3f}")  # the axis of w[1]
    1.000
    """
    check_count("num_eigenvalues", num_eigenvalues)
    check_count("steps", steps)
    check_key(key)
    operator = hessian_operator(loss_fn, params, batches, weights, mask, mesh)
    if num_eigenvalues > min(steps, operator.size):
        raise ValueError(
            f"num_eigenvalues must be at most steps = {steps} and the number of (chosen) "
            f"parameters, {operator.size}; got {num_eigenvalues}."
        )
    steps = min(steps, operator.size)
    tridiagonal = tridiagonalise(operator.product, operator.zeros, steps, operator.random_unit(key))
    values, coordinates = ritz_pairs(tridiagonal)
    check_products(values)

    def examine(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, PyTree | None]:
        value, coordinate = pair
        v = normalise(combine(coordinate, tridiagonal.basis))
        residual = norm(jax.tree.map(lambda p, x: p - value * x, operator.product(v), v))
        return residual, operator.unflatten(v) if vectors else None

    k = num_eigenvalues
    values = jnp.concatenate([values[::-1][:k], values[:k]])
    coordinates = jnp.concatenate([coordinates.T[::-1][:k], coordinates.T[:k]])
    residuals, eigenvectors = jax.lax.map(examine, (values, coordinates))
    return HessianEigenvalues(
        top=values[:k],
        bottom=values[k:],
        top_residuals=residuals[:k],
        bottom_residuals=residuals[k:],
        top_vectors=jax.tree.map(lambda leaf: leaf[:k], eigenvectors),
        bottom_vectors=jax.tree.map(lambda leaf: leaf[k:], eigenvectors),
    )
