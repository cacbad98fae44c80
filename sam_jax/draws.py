"""Random numbers in the structure of parameters, drawn where the parameters lie."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.shardings import explicit_sharding, placed_as
from sam_jax.typing import Key, PyTree

# Leaves of up to so many numbers, half a megabyte each, share one draw.
NUMBERS_OF_A_SMALL_LEAF = 2**17
SAMPLERS = {"gaussian": jax.random.normal, "uniform": jax.random.uniform}


# Compiled, so that without a mesh in the context the devices are known from the unused leaves.
@functools.partial(jax.jit, static_argnames="distribution", keep_unused=True)
def random_like(key: Key, tree: PyTree, distribution: str = "gaussian") -> PyTree:
    """Return independent random numbers, float32 or wider, with the structure of `tree`.

    Small leaves share one draw, of `key` itself, for every draw compiles the generator once more. A
    large leaf has a draw of `fold_in(key, i)`, with i its place among all leaves, counted from
    zero: of a leaf that is split over devices each then draws its own part.

    Args:
      key: a typed key.
      tree: the structure, shapes and shardings to follow.
      distribution: "gaussian" for N(0, 1), "uniform" for U(0, 1).
    """
    if distribution not in SAMPLERS:
        raise ValueError(f"distribution must be one of {sorted(SAMPLERS)}, got {distribution!r}.")
    sample = SAMPLERS[distribution]
    leaves, structure = jax.tree.flatten(tree)
    small = [place for place, leaf in enumerate(leaves) if _is_small(leaf)]
    numbers = dict(
        zip(small, _one_draw(key, [leaves[place] for place in small], sample), strict=True)
    )
    for place, leaf in enumerate(leaves):
        if place not in numbers:
            own_key, sharding = jax.random.fold_in(key, place), explicit_sharding(leaf)
            numbers[place] = sample(own_key, leaf.shape, _wide(leaf), out_sharding=sharding)
    return structure.unflatten(numbers[place] for place in range(len(leaves)))


def _is_small(leaf: jax.Array) -> bool:
    return math.prod(leaf.shape) <= NUMBERS_OF_A_SMALL_LEAF


def _one_draw(
    key: Key, leaves: list[jax.Array], sample: Callable[..., jax.Array]
) -> list[jax.Array]:
    """Return the numbers for several leaves, cut from one draw."""
    if not leaves:
        return []
    dtype = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in leaves))
    ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])
    parts = jnp.split(sample(key, (int(ends[-1]),), dtype), ends[:-1])
    return [
        placed_as(part.reshape(leaf.shape).astype(_wide(leaf)), leaf)
        for part, leaf in zip(parts, leaves, strict=True)
    ]


def _wide(leaf: jax.Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)
