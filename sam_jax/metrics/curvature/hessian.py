"""The Hessian of a loss, never formed: its products with vectors."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from sam_jax import pytree
from sam_jax.draws import random_like
from sam_jax.known import known
from sam_jax.metrics.checks import (
    check_batches,
    check_direction,
    check_finite,
    check_products,
)
from sam_jax.metrics.evaluation import full_precision, scalar_loss
from sam_jax.metrics.over_devices import sum_rows
from sam_jax.metrics.parameters import chosen_parameters, loss_of_parameters
from sam_jax.shardings import explicit_sharding
from sam_jax.typing import AnyArray, Batch, Key, LossFn, Mask, Num, Params, PyTree


class HessianOperator(NamedTuple):
    """The Hessian over the d parameters that a mask chooses, as a matrix on vectors.

    A vector is one array of shape [d]. Where leaves are split over devices by their type, it is a
    pytree like the chosen parameters instead, and they stay where they are.
    """

    product: Callable[[PyTree], PyTree]  # v -> H v
    zeros: PyTree  # the vector zero
    flatten: Callable[[PyTree], PyTree]  # a pytree like the chosen parameters -> a vector
    unflatten: Callable[[PyTree], PyTree]  # and on to one like params, with zeros for the rest
    draw: Callable[..., PyTree]  # random_like(key, distribution), as a vector

    def random_unit(self, key: Key) -> Callable[[jax.Array | int], PyTree]:
        """Return the sequence of random unit vectors that a key names, uniform on the sphere."""
        return lambda index: pytree.normalise(self.draw(jax.random.fold_in(key, index)))

    @property
    def size(self) -> int:
        """The number d of parameters."""
        return pytree.size(self.zeros)


@full_precision
def hessian_vector_product(
    loss_fn: LossFn,
    params: Params,
    vector: PyTree,
    batches: Batch | None = None,
    *,
    weights: Num[AnyArray, " batches"] | None = None,
    mask: Mask = None,
    mesh: Mesh | None = None,
) -> PyTree:
    """Return H v, with the Hessian H of the loss at the parameters w and the vector v.

    The product is the derivative of the gradient along v (forward over reverse mode), exact up to
    rounding and without a difference quotient:

        H v = d/dt grad L(w + t v) at t = 0,    L(w) = sum_i weights_i L_i(w) / sum_i weights_i.

    It costs two to three gradients, whatever the size of the Hessian, and needs about twice the
    memory of a gradient. The batches run one after the other, so the call needs the memory of one
    batch.

    The loss should be a function of the weights alone, smooth around them: BatchNorm with its
    running statistics, no dropout. With the statistics of a batch it is another function, whose
    Hessian sees through the statistics. Where a derivative is not finite, the product is not
    finite. Then neither are the results of `hessian_trace`, `hessian_eigenvalues` and
    `spectral_density`.

    Args:
      loss_fn: `loss_fn(params, batch)` -> mean loss of the batch, a scalar; without `batches`
        `loss_fn(params)` -> the loss over the whole set.
      params: parameters w. They are widened to float32 if narrower.
      vector: v, a pytree like `params`.
      batches: a pytree whose leaves have leading axes [n, m, ...]: n batches of m examples.
      weights: shape [n], the weight of each batch, of any scale; None for equal ones. Where the
        last batch is padded, let `loss_fn` take the mean over its real examples only. Then the
        numbers of real examples are the weights that make L the mean over all examples.
      mask: which leaves the Hessian is taken over, the others being constants: booleans with
        the structure (or a prefix) of params, or a function of params that returns them; None
        for all. Elsewhere `vector` is ignored and the product is zero.
      mesh: devices to share the batches out over, as in `loss_plane`; None for no sharing.

    Returns:
      The product, a pytree like `params`, in float32 or wider.

    Raises:
      ValueError: if one of these holds:
        - `vector` does not fit `params`;
        - `params` or the chosen part of `vector` is not finite;
        - the batches have no two common leading axes;
        - `weights` is not a vector of n non-negative numbers with a positive sum;
        - the mask does not fit `params` or chooses nothing;
        - `loss_fn` does not return a scalar, or no number of the product is finite. (Under jit
          these numbers are not known, and the product is returned as it is.)

    References:
      Pearlmutter, Fast Exact Multiplication by the Hessian, Neural Computation 6(1), 1994.

    >>> loss_fn = lambda w: w["x"] ** 2 * w["y"]  # its Hessian: [[2 y, 2 x], [2 x, 0]]
    >>> params = {"x": 3.0, "y": 5.0}
    >>> product = hessian_vector_product(loss_fn, params, {"x": 1.0, "y": 10.0})
    >>> print(product["x"], product["y"])
    70.0 6.0
    """
    chosen = chosen_parameters(params, mask)
    vector = check_direction("vector", vector, chosen)
    operator = hessian_operator(loss_fn, params, batches, weights, mask, mesh)
    vector = jax.tree.map(lambda w, v: jnp.asarray(v, w.dtype), chosen, vector)
    check_finite("vector", vector)
    product = operator.product(operator.flatten(vector))
    check_products(product)
    return operator.unflatten(product)


def hessian_operator(
    loss_fn: LossFn,
    params: Params,
    batches: Batch | None,
    weights: AnyArray | None,
    mask: Mask,
    mesh: Mesh | None = None,
) -> HessianOperator:
    """Check the arguments of `hessian_vector_product` and return the operator they describe."""
    loss_fn, chosen = loss_of_parameters(scalar_loss(loss_fn), params, mask)
    check_finite("params", pytree.partition(params)[0])
    flatten, restore = _vectors_of(chosen)

    def unflatten(vector: PyTree) -> PyTree:
        zeros = pytree.zeros_like(pytree.partition(params)[0])
        return pytree.merge(restore(vector), zeros)

    def draw(key: Key, distribution: str = "gaussian") -> PyTree:
        return flatten(random_like(key, chosen, distribution))

    def product_of_batch(vector: PyTree, *batch: Batch) -> PyTree:
        gradient = jax.grad(lambda parameters: loss_fn(parameters, *batch))
        return jax.jvp(gradient, (chosen,), (vector,))[1]

    def product(vector: PyTree) -> PyTree:
        if batches is None:
            return flatten(product_of_batch(restore(vector)))
        vector = restore(vector)
        of_batch = functools.partial(product_of_batch, vector)
        return flatten(sum_rows(of_batch, batches, shares, zeros, mesh))

    zeros = jax.tree.map(jnp.zeros_like, chosen)
    if batches is not None:
        batches = check_batches(batches)
        dtype = jnp.result_type(*jax.tree.leaves(chosen))
        shares = _shares(weights, jnp.shape(jax.tree.leaves(batches)[0])[0], dtype)
    elif weights is not None:
        raise ValueError("weights belong to batches: give batches as well, or neither.")
    return HessianOperator(product, flatten(zeros), flatten, unflatten, draw)


def _vectors_of(
    parameters: Params,
) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], PyTree]]:
    """Return the ways from a pytree like the parameters to a vector and back."""
    if any(explicit_sharding(leaf) is not None for leaf in jax.tree.leaves(parameters)):
        return lambda tree: tree, lambda tree: tree
    flat, restore = ravel_pytree(parameters)
    return lambda tree: ravel_pytree(tree)[0].astype(flat.dtype), restore


def _shares(weights: AnyArray | None, n: int, dtype: jnp.dtype) -> jax.Array:
    """Return the weights of n batches, scaled to the sum one."""
    weights = jnp.ones(n) if weights is None else weights
    if np.shape(weights) != (n,):
        raise ValueError(f"weights must have the shape [n] = ({n},), got {np.shape(weights)}.")
    given = known(weights)
    if given is not None and not (
        np.all(given >= 0) and np.isfinite(given).all() and given.sum() > 0
    ):
        raise ValueError(
            f"weights must be finite, none negative and one positive, got {given.tolist()}."
        )
    weights = jnp.asarray(weights, dtype)
    return weights / jnp.sum(weights)
