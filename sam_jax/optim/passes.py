"""Several passes of one step: rounds of a loop, and means over them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sam_jax import pytree
from sam_jax.known import is_compiling
from sam_jax.typing import PyTree

Round = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]  # (carry, input) -> (carry, output)


def run_rounds(one_round: Round, carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
    """Return the result of `jax.lax.scan`; outside jit by a loop, where a scan would compile."""
    if is_compiling():
        return jax.lax.scan(one_round, carry, inputs)
    outputs = []
    for index in range(len(jax.tree.leaves(inputs)[0])):
        carry, output = one_round(carry, jax.tree.map(lambda x, i=index: x[i], inputs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def mean_over_passes(stacked: PyTree) -> PyTree:
    """Return the mean over the leading axis of every leaf, in float32 or wider, in its dtype.

    Equal passes have exactly their value as mean: it is taken of the differences to the first. Of
    keys, counts and booleans, which have no mean, the last is returned.
    """

    def mean(x: jax.Array) -> jax.Array:
        if not pytree.is_parameter(x):
            return x[-1]
        wide = pytree.widen(x)
        from_first = wide[0] + jnp.mean(wide - wide[:1], axis=0)
        # Infinity less infinity is no number, but the mean of infinities is infinity.
        result = jnp.where(jnp.isfinite(from_first), from_first, jnp.mean(wide, axis=0))
        return result.astype(x.dtype)

    return jax.tree.map(mean, stacked)
