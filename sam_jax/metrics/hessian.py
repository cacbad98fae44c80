"""The Hessian of a loss, never formed: its products with vectors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from sam_jax.metrics.checks import (
    check_batches,
    check_direction,
    check_finite,
    check_mask,
    check_products,
    is_known,
)
from sam_jax.metrics.evaluation import full_precision, scalar_loss, widen_all
from sam_jax.pytree import add
from sam_jax.typing import Batch, LossFn, Mask, Params, PyTree


class HessianOperator(NamedTuple):
    """The Hessian over the d parameters that a mask chooses, as a matrix on vectors of length d."""

    product: Callable[[jax.Array], jax.Array]  # v -> H v, both of shape [d]
    zeros: jax.Array  # shape [d], for its shape and dtype
    flatten: Callable[[PyTree], jax.Array]  # a pytree like params -> its chosen part
    unflatten: Callable[[jax.Array], PyTree]  # and back, with zeros for the rest


@full_precision
def hessian_vector_product(
    loss_fn: LossFn,
    params: Params,
    vector: PyTree,
    batches: Batch | None = None,
    *,
    weights: jax.Array | None = None,
    mask: Mask = None,
) -> PyTree:
    """Return H v, with the Hessian H of the loss at the parameters w and the vector v.

    The product is the derivative of the gradient along v (forward over reverse mode), exact up to
    rounding and without a difference quotient:

        H v = d/dt grad L(w + t v) at t = 0,    L(w) = sum_i weights_i L_i(w) / sum_i weights_i.

    It costs two to three gradients, whatever the size of the Hessian, and needs about twice the
    memory of a gradient. The batches run one after the other, so the memory is that of one batch.

    The loss should be a function of the weights alone, smooth around them: BatchNorm with its
    running statistics, no dropout. With the statistics of a batch it is another function, whose
    Hessian sees through the statistics. Where a derivative is not finite, neither is the product,
    nor what `hessian_trace`, `hessian_eigenvalues` and `spectral_density` make of it.

    Args:
      loss_fn: `loss_fn(params, batch)` -> mean loss of the batch, a scalar; without `batches`
        `loss_fn(params)` -> the loss over the whole set.
      params: parameters w. They are widened to float32 if narrower.
      vector: v, a pytree like `params`.
      batches: a pytree whose leaves have leading axes [n, m, ...]: n batches of m examples.
      weights: shape [n], the weight of each batch, of any scale; None for equal ones. Where the
        last batch is padded, and `loss_fn` takes the mean over its real examples only, their
        numbers are the weights that make L the mean over all examples.
      mask: which leaves the Hessian is taken over, the others being constants: booleans with
        the structure (or a prefix) of params, or a function of params that returns them; None
        for all. Elsewhere `vector` is ignored and the product is zero.

    Returns:
      The product, a pytree like `params`, in float32 or wider.

    Raises:
      ValueError: for a vector that does not fit `params`, params or a vector (its chosen part)
        that are not finite, batches without two common leading axes, weights that are not n
        numbers of which none is negative and one is positive, a mask that does not fit `params`
        or chooses nothing, a `loss_fn` without a scalar value, or products of which no number is
        finite (under jit none of these numbers is known, and what is not finite is returned).

    References:
      Pearlmutter, Fast Exact Multiplication by the Hessian, Neural Computation 6(1), 1994.

    >>> loss_fn = lambda w: w["x"] ** 2 * w["y"]  # its Hessian: [[2 y, 2 x], [2 x, 0]]
    >>> params = {"x": 3.0, "y": 5.0}
    >>> product = hessian_vector_product(loss_fn, params, {"x": 1.0, "y": 10.0})
    >>> print(product["x"], product["y"])
    70.0 6.0
    """
    check_direction("vector", vector, params)
    operator = hessian_operator(loss_fn, params, batches, weights, mask)
    flat = operator.flatten(vector)
    check_finite("vector", operator.unflatten(flat))
    product = operator.product(flat)
    check_products(product)
    return operator.unflatten(product)


def hessian_operator(
    loss_fn: LossFn,
    params: Params,
    batches: Batch | None,
    weights: jax.Array | None,
    mask: Mask,
) -> HessianOperator:
    """Check the arguments of `hessian_vector_product` and return the operator they describe."""
    loss_fn = scalar_loss(loss_fn)
    check_finite("params", params)
    leaves, structure = jax.tree.flatten(widen_all(params))
    chosen = [bool(keep) for keep in jax.tree.leaves(check_mask(mask, params))]
    part = [leaf for leaf, keep in zip(leaves, chosen, strict=True) if keep]
    flat, unravel = ravel_pytree(part)

    def merge(part: list[jax.Array], rest: list[jax.Array]) -> Params:
        values = iter(part)
        return structure.unflatten(
            next(values) if keep else leaf for leaf, keep in zip(rest, chosen, strict=True)
        )

    def flatten(tree: PyTree) -> jax.Array:
        values = zip(structure.flatten_up_to(tree), leaves, chosen, strict=True)
        kept = [jnp.asarray(value, leaf.dtype) for value, leaf, keep in values if keep]
        return ravel_pytree(kept)[0].astype(flat.dtype)

    def unflatten(vector: jax.Array) -> PyTree:
        return merge(unravel(vector), [jnp.zeros_like(leaf) for leaf in leaves])

    def product_of_batch(vector: list[jax.Array], *batch: Batch) -> list[jax.Array]:
        gradient = jax.grad(lambda part: loss_fn(merge(part, leaves), *batch))
        return jax.jvp(gradient, (part,), (vector,))[1]

    if batches is None:
        if weights is not None:
            raise ValueError("weights are those of batches: give batches as well, or neither.")
        return HessianOperator(
            product=lambda vector: ravel_pytree(product_of_batch(unravel(vector)))[0],
            zeros=jnp.zeros_like(flat),
            flatten=flatten,
            unflatten=unflatten,
        )

    check_batches(batches)
    shares = _shares(weights, jnp.shape(jax.tree.leaves(batches)[0])[0], flat.dtype)

    def product(vector: jax.Array) -> jax.Array:
        vector = unravel(vector)

        def add_batch(total: PyTree, item: tuple[Batch, jax.Array]) -> tuple[PyTree, None]:
            batch, share = item
            return add(total, product_of_batch(vector, *(batch,)), share), None

        total, _ = jax.lax.scan(add_batch, jax.tree.map(jnp.zeros_like, part), (batches, shares))
        return ravel_pytree(total)[0]

    return HessianOperator(product, jnp.zeros_like(flat), flatten, unflatten)


def _shares(weights: jax.Array | None, n: int, dtype: jnp.dtype) -> jax.Array:
    """Return the weights of n batches, scaled to the sum one."""
    weights = jnp.ones(n) if weights is None else weights
    if np.shape(weights) != (n,):
        raise ValueError(f"weights must have the shape [n] = ({n},), got {np.shape(weights)}.")
    if is_known(weights):
        known = np.asarray(weights)
        if not (np.all(known >= 0) and np.isfinite(known).all() and known.sum() > 0):
            raise ValueError(
                f"weights must be finite, none negative and one positive, got {known.tolist()}."
            )
    weights = jnp.asarray(weights, dtype)
    return weights / jnp.sum(weights)
