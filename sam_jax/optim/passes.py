"""Several passes of one step as one: the mean, and the last of what has none."""

import jax
import jax.numpy as jnp

from sam_jax import pytree
from sam_jax.typing import PyTree


def mean_over_passes(stacked: PyTree) -> PyTree:
    """Return the mean over the leading axis of every leaf, in float32 or wider, in its dtype.

    Equal passes have exactly their value as mean: it is taken of the differences to the first.
    Keys, counts and booleans have no mean; those of the last pass are kept.
    """

    def mean(x: jax.Array) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x[-1]
        wide = pytree.widen(x)
        from_first = wide[0] + jnp.mean(wide - wide[0], axis=0)
        # Infinity less infinity is no number, but the mean of infinities is infinity.
        result = jnp.where(jnp.isfinite(from_first), from_first, jnp.mean(wide, axis=0))
        return result.astype(x.dtype)

    return jax.tree.map(mean, stacked)
