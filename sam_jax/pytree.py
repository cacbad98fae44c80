"""Arithmetic on pytrees of parameters: which leaves count, safe norms, sums.

A leaf that is None stands for nothing: it adds nothing to a norm, and a direction that is None at a
leaf leaves the parameters there as they are, bit for bit.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sam_jax.known import is_known, known
from sam_jax.shardings import on_explicit_mesh
from sam_jax.typing import Mask, Params, PyTree, Scalar

# --- what counts as a parameter -----------------------------------------------------------------


def is_parameter(x: Any) -> bool:
    """Say whether a leaf can be perturbed: it is a floating-point or complex array or number."""
    if hasattr(x, "dtype"):
        return jnp.issubdtype(x.dtype, jnp.inexact)
    return isinstance(x, float | complex)


def partition(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Return the parameters among the leaves, as arrays, and the other leaves; None elsewhere."""
    parameters = jax.tree.map(lambda x: _as_array(x) if is_parameter(x) else None, tree)
    return parameters, jax.tree.map(lambda x: None if is_parameter(x) else x, tree)


def merge(tree: PyTree, other: PyTree) -> PyTree:
    """Return the tree that `partition` took apart."""
    return jax.tree.map(lambda a, b: b if a is None else a, tree, other, is_leaf=_is_none)


def chosen_leaves(mask: Mask, params: Params, tree: PyTree) -> PyTree:
    """Return the mask's booleans, one for each leaf of a tree with the structure of params."""
    chosen = mask(params) if callable(mask) and _is_function(mask) else mask
    chosen = True if chosen is None else chosen
    try:
        booleans = jax.tree.broadcast(chosen, tree)
    except ValueError as error:
        raise ValueError(
            f"mask must hold booleans in the structure of params, or of a prefix of it: {error}"
        ) from error
    for (path, leaf), x in zip(
        jax.tree.leaves_with_path(booleans), jax.tree.leaves(tree), strict=True
    ):
        is_boolean = isinstance(leaf, bool) or getattr(leaf, "dtype", None) == jnp.bool_
        if is_parameter(x) and not is_boolean:
            place = f" at {jax.tree_util.keystr(path)}" if path else ""
            raise ValueError(
                f"mask must hold one boolean a leaf, got {leaf!r}{place}. Choose leaves by their "
                "paths with sam_jax.leaves_where."
            )
    return booleans


def _is_function(mask: Any) -> bool:
    """Say whether a callable mask has to be called; a module is a tree of leaves, if callable."""
    is_leaf = jax.tree_util.all_leaves([mask]) or isinstance(mask, jax.tree_util.Partial)
    return is_leaf


def is_key(x: Any) -> bool:
    """Say whether `x` is a typed key, or an array of them."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def real_dtype(tree: PyTree) -> jnp.dtype:
    """Return the dtype of norms over all leaves: float32 or wider, and real."""
    dtypes = (jnp.finfo(jnp.result_type(leaf)).dtype for leaf in jax.tree.leaves(tree))
    return jnp.result_type(jnp.float32, *dtypes)


def size(tree: PyTree) -> int:
    """Return the number of scalars in a pytree."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def _as_array(x: Any) -> jax.Array:
    """Return an array for a number, and zeros for an array if only its shape is known."""
    return jnp.zeros_like(x) if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x)


def _is_none(x: Any) -> bool:
    return x is None


# --- norms and products -------------------------------------------------------------------------


def widen(x: jax.Array) -> jax.Array:
    """Return `x` in float32, or unchanged where it is already that wide."""
    x = jnp.asarray(x)  # a parameter may be a plain number
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def vdot(a: PyTree, b: PyTree) -> jax.Array:
    """Return the inner product of two pytrees, accumulated in float32 or wider.

    For complex leaves it is the product of their real and imaginary parts.
    """
    return _sum(jax.tree.map(lambda x, y: jnp.sum(_product(widen(x), widen(y))), a, b))


def stack(scalars: PyTree) -> jax.Array:
    """Return the scalars of a pytree, one a leaf, as one array to sum or to maximise.

    The barrier keeps one reduction one: XLA would turn it into a chain of additions, and copy the
    chain into every later use. That makes networks with many leaves slow to compile.
    """
    leaves = jax.tree.leaves(scalars)
    return jax.lax.optimization_barrier(jnp.stack(leaves)) if leaves else jnp.zeros(0)


def largest(tree: PyTree) -> jax.Array:
    """Return the largest magnitude in a pytree, zero for an empty one."""
    maxima = jax.tree.map(lambda x: jnp.max(jnp.abs(widen(x)), initial=0), tree)
    return jnp.max(stack(maxima), initial=0)


def in_safe_range(tree: PyTree) -> tuple[PyTree, jax.Array]:
    """Return `tree` times a power of two that brings its largest entry near one, and that."""
    power = power_of_two(largest(tree))
    return scale(tree, power), power


def scaled_squares(tree: PyTree) -> tuple[jax.Array, jax.Array]:
    """Return a power of two, and the sum of squares of the tree times that power.

    The power is 1 where the squares neither vanish nor overflow, so that the common case costs one
    pass. Elsewhere it brings the largest entry near one; the product is exact.
    """
    squared = vdot(tree, tree)
    limits = jnp.finfo(squared.dtype)
    is_safe = (squared > limits.tiny * 2.0**60) & (squared <= limits.max)

    def unscaled(tree: PyTree) -> tuple[jax.Array, jax.Array]:
        del tree
        return jnp.ones_like(squared), squared

    def scaled(tree: PyTree) -> tuple[jax.Array, jax.Array]:
        near_one, power = in_safe_range(tree)
        return power, vdot(near_one, near_one)

    if is_known(is_safe):  # outside jit a conditional would compile both branches in each call
        return unscaled(tree) if known(is_safe) else scaled(tree)
    if any(on_explicit_mesh(leaf) for leaf in jax.tree.leaves(tree)):
        return scaled(tree)  # under vmap the branches would become a select of two shardings
    return jax.lax.cond(is_safe, unscaled, scaled, tree)


def power_of_two(magnitude: jax.Array) -> jax.Array:
    """Return the power of two that brings a magnitude near one; 1 for 0, infinity and NaN."""
    magnitude = jax.lax.stop_gradient(magnitude)
    most = jnp.finfo(magnitude.dtype).maxexp - 28  # so that neither it nor its inverse vanishes
    _, exponent = jnp.frexp(magnitude)
    return jnp.ldexp(jnp.ones_like(magnitude), jnp.clip(-exponent, -most, most))


def norm(tree: PyTree) -> jax.Array:
    """Return the Euclidean norm over all leaves, with gradient zero where the norm is zero."""
    power, squared = scaled_squares(tree)
    return _root(squared) / power


def norms(x: jax.Array, axis: int | Sequence[int]) -> jax.Array:
    """Return the Euclidean norms of one array along some axes, which stay with length one."""
    x = widen(x)
    power = power_of_two(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0))
    scaled = x * power
    return _root(jnp.sum(_product(scaled, scaled), axis=axis, keepdims=True)) / power


def normalise(tree: PyTree) -> PyTree:
    """Return `tree` scaled to unit Euclidean norm over all leaves; a zero tree stays zero."""
    power, squared = scaled_squares(tree)
    factor = safe_divide(1.0, _root(squared))
    return jax.tree.map(lambda x: factor * (power * widen(x)), tree)


def inverse_norm(tree: PyTree) -> jax.Array:
    """Return one over the Euclidean norm over all leaves; zero for a zero tree.

    By the largest entry, for a conditional would put a tree that is computed here into memory.
    """
    near_one, power = in_safe_range(tree)
    return safe_divide(1.0, _root(vdot(near_one, near_one))) * power


def slope(tree: PyTree, axis: PyTree) -> jax.Array:
    """Return s of the point s * axis that is nearest to `tree`; zero where `axis` is zero."""
    # By the largest entry, for a conditional would put a difference of two trees into memory.
    power, (axis_power, axis_squared) = power_of_two(largest(tree)), scaled_squares(axis)
    # One tree takes the power of the other too, whose scaled copy would stand in memory. The limits
    # keep it and the products in the range of float32.
    middle = jnp.clip(axis_power, 2.0**-40, 2.0**40)
    product = vdot(scale(scale(tree, power), middle), axis) * (axis_power / middle)
    return safe_divide(product, axis_squared) / power * axis_power


def safe_divide(numerator: Scalar, denominator: jax.Array) -> jax.Array:
    """Return `numerator / denominator`, and zero where the denominator is zero."""
    is_zero = denominator == 0
    return jnp.where(is_zero, 0, numerator / jnp.where(is_zero, 1, denominator))


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.real(x) * jnp.real(y) + jnp.imag(x) * jnp.imag(y) if _any_complex(x, y) else x * y


def _any_complex(*arrays: jax.Array) -> bool:
    return any(jnp.iscomplexobj(x) for x in arrays)


def _sum(scalars: PyTree) -> jax.Array:
    return jnp.sum(stack(scalars))


def _root(squared: jax.Array) -> jax.Array:
    """Return the square root, with gradient zero at zero."""
    is_zero = squared == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squared)))


# --- sums ---------------------------------------------------------------------------------------


def scale(tree: PyTree, factor: Scalar) -> PyTree:
    """Return `factor * tree`, leaf by leaf in float32 or wider."""
    return jax.tree.map(lambda x: factor * widen(x), tree)


def add(params: PyTree, direction: PyTree, distance: Scalar = 1.0) -> PyTree:
    """Return `params + distance * direction`, rounded once to the dtypes of `params`.

    A leaf at which `direction` is None is returned as it is.
    """

    def moved(w: jax.Array, d: jax.Array | None) -> jax.Array:
        if d is None:
            return w
        return (widen(w) + distance * widen(d)).astype(jnp.result_type(w))

    return jax.tree.map(moved, params, direction)


def zeros_like(tree: PyTree) -> PyTree:
    """Return zeros with the structure, shapes and shardings of `tree`, in float32 or wider."""
    return jax.tree.map(
        lambda x: jnp.zeros_like(x, dtype=jnp.promote_types(jnp.result_type(x), jnp.float32)), tree
    )
