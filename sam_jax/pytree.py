"""Arithmetic on pytrees of parameters: safe norms, sums and random directions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.typing import Key, Mask, Params, PyTree, Scalar


def widen(x: jax.Array) -> jax.Array:
    """Return `x` in float32, or unchanged where it is already that wide."""
    x = jnp.asarray(x)  # a parameter may be a plain number
    if jnp.iscomplexobj(x):
        raise ValueError("complex parameters are not supported: split them in two real arrays.")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def vdot(a: PyTree, b: PyTree) -> jax.Array:
    """Return the inner product of two pytrees, accumulated in float32 or wider."""
    return jnp.sum(stack(jax.tree.map(lambda x, y: jnp.sum(widen(x) * widen(y)), a, b)))


def stack(scalars: PyTree) -> jax.Array:
    """Return the scalars of a pytree, one a leaf, as one array to sum or to maximise.

    The barrier keeps one reduction one: XLA would turn it into a chain of additions, and copy the
    chain into every later use, which makes networks with many leaves slow to compile.
    """
    leaves = jax.tree.leaves(scalars)
    return jax.lax.optimization_barrier(jnp.stack(leaves)) if leaves else jnp.zeros(0)


def norm(tree: PyTree) -> jax.Array:
    """Return the Euclidean norm over all leaves, with gradient zero where the norm is zero."""
    squared = vdot(tree, tree)
    is_zero = squared == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squared)))


def safe_divide(numerator: Scalar, denominator: jax.Array) -> jax.Array:
    """Return `numerator / denominator`, and zero where the denominator is zero."""
    is_zero = denominator == 0
    return jnp.where(is_zero, 0, numerator / jnp.where(is_zero, 1, denominator))


def scale(tree: PyTree, factor: Scalar) -> PyTree:
    """Return `factor * tree`, leaf by leaf in float32 or wider."""
    return jax.tree.map(lambda x: factor * widen(x), tree)


def add(params: PyTree, direction: PyTree, distance: Scalar = 1.0) -> PyTree:
    """Return `params + distance * direction`, rounded once to the dtypes of `params`."""
    return jax.tree.map(
        lambda w, d: (widen(w) + distance * widen(d)).astype(jnp.result_type(w)),
        params,
        direction,
    )


def zeros_like(tree: PyTree) -> PyTree:
    """Return zeros with the structure and shapes of `tree`, in float32 or wider."""
    return jax.tree.map(lambda x: jnp.zeros_like(widen(x)), tree)


def chosen_leaves(mask: Mask, params: Params, tree: PyTree) -> PyTree:
    """Return the mask's booleans, one for each leaf of a tree with the structure of params."""
    chosen = mask(params) if callable(mask) else True if mask is None else mask
    try:
        return jax.tree.broadcast(chosen, tree)
    except ValueError as error:
        raise ValueError(
            f"mask must hold booleans in the structure of params, or of a prefix of it: {error}"
        ) from error


def is_key(x: Any) -> bool:
    """Say whether `x` is a typed key, or an array of them."""
    return jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key)


def size(tree: PyTree) -> int:
    """Return the number of scalars in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_like(key: Key, tree: PyTree, distribution: str = "gaussian") -> PyTree:
    """Return independent random numbers, float32 or wider, with the structure of `tree`.

    One draw serves all leaves: a draw of its own for each would compile the generator once a leaf.

    Args:
      key: a typed key.
      tree: the structure and shapes to follow.
      distribution: "gaussian" for N(0, 1), "uniform" for U(0, 1).
    """
    samplers = {"gaussian": jax.random.normal, "uniform": jax.random.uniform}
    if distribution not in samplers:
        raise ValueError(f"distribution must be one of {sorted(samplers)}, got {distribution!r}.")
    leaves, structure = jax.tree.flatten(tree)
    if not leaves:
        return tree
    dtype = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in leaves))
    numbers = samplers[distribution](key, (size(tree),), dtype)
    parts = jnp.split(numbers, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return structure.unflatten(
        part.reshape(leaf.shape).astype(jnp.promote_types(leaf.dtype, jnp.float32))
        for part, leaf in zip(parts, leaves, strict=True)
    )


def normalise(tree: PyTree) -> PyTree:
    """Return `tree` scaled to unit Euclidean norm over all leaves; a zero tree stays zero."""
    return scale(tree, safe_divide(1.0, norm(tree)))
