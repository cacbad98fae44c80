"""Random numbers in the structure of parameters, drawn where the parameters lie."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from sam_jax import threefry
from sam_jax.pytree import is_key
from sam_jax.shardings import explicit_sharding, placed_as
from sam_jax.typing import Key, PyTree

# Leaves of up to so many numbers, half a megabyte each, share one stream.
NUMBERS_OF_A_SMALL_LEAF = 2**17
SAMPLERS = {"gaussian": jax.random.normal, "uniform": jax.random.uniform}


def check_key(key: Any) -> None:
    """Raise a ValueError unless `key` is one typed key."""
    if not is_key(key) or key.ndim != 0:
        raise ValueError(f"key must be one typed key, such as jax.random.key(0), got {key!r}.")


# Compiled, so that without a mesh in the context the devices are known from the unused leaves.
@functools.partial(jax.jit, static_argnames="distribution", keep_unused=True)
def random_like(key: Key, tree: PyTree, distribution: str = "gaussian") -> PyTree:
    """Return independent random numbers, float32 or wider, with the structure of `tree`.

    Small leaves share the stream of `key` itself, one after the other. A large leaf has the stream
    of `fold_in(key, i)`, with i its place among all leaves, counted from zero. The numbers are
    those of `jax.random`; of a leaf that is split over devices each draws its own part. (Of another
    generator than threefry small leaves share one draw, and where they lie is XLA's choice.)

    Args:
      key: a typed key.
      tree: the structure, shapes and shardings to follow.
      distribution: "gaussian" for N(0, 1), "uniform" for U(0, 1).
    """
    if distribution not in SAMPLERS:
        raise ValueError(f"distribution must be one of {sorted(SAMPLERS)}, got {distribution!r}.")
    leaves, structure = jax.tree.flatten(tree)
    small = {place: leaf for place, leaf in enumerate(leaves) if _is_small(leaf)}
    numbers = dict(zip(small, _one_stream(key, list(small.values()), distribution), strict=True))
    for place, leaf in enumerate(leaves):
        if place not in numbers:
            own_key = threefry.fold_in(key, place)
            numbers[place] = _part(own_key, 0, leaf.shape, _wide(leaf), distribution, leaf)
    return structure.unflatten(numbers[place] for place in range(len(leaves)))


def _is_small(leaf: jax.Array) -> bool:
    return math.prod(leaf.shape) <= NUMBERS_OF_A_SMALL_LEAF


def _one_stream(key: Key, leaves: list[jax.Array], distribution: str) -> list[jax.Array]:
    """Return the numbers for several leaves, one after the other from one stream."""
    if not leaves:
        return []
    dtype = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in leaves))
    ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves], dtype=int)
    starts = [0, *ends[:-1]]
    if threefry.makes_bits_of(key, (int(ends[-1]),)):
        parts = [
            _part(key, start, leaf.shape, dtype, distribution, leaf)
            for start, leaf in zip(starts, leaves, strict=True)
        ]
    else:
        numbers = SAMPLERS[distribution](key, (int(ends[-1]),), dtype)
        parts = [
            placed_as(part.reshape(leaf.shape), leaf)
            for part, leaf in zip(jnp.split(numbers, ends[:-1]), leaves, strict=True)
        ]
    return [part.astype(_wide(leaf)) for part, leaf in zip(parts, leaves, strict=True)]


def _part(
    key: Key,
    start: int,
    shape: tuple[int, ...],
    dtype: jnp.dtype,
    distribution: str,
    beside: jax.Array,
) -> jax.Array:
    """Return the numbers of a stream from `start` on, in the sharding of another array."""
    sharding = explicit_sharding(beside)
    if not threefry.makes_bits_of(key, shape):
        return SAMPLERS[distribution](key, shape, dtype, out_sharding=sharding)
    return _from_bits(key, np.uint32(start), shape, dtype, distribution, sharding)


# Compiled once for leaves of one shape.
@functools.partial(
    jax.jit, static_argnames=("shape", "dtype", "distribution", "sharding"), inline=False
)
def _from_bits(
    key: Key,
    start: jax.Array,
    shape: tuple[int, ...],
    dtype: jnp.dtype,
    distribution: str,
    sharding: NamedSharding | None,
) -> jax.Array:
    """Return numbers as `jax.random` makes them of their bits."""
    limits = jnp.finfo(dtype)
    bits = threefry.bits(key, shape, limits.bits, first=start, sharding=sharding)
    # The bits of a mantissa give a number in [1, 2).
    one = np.ones((), dtype).view(bits.dtype)
    mantissa = (bits >> (limits.bits - limits.nmant)) | one
    unit = jax.lax.bitcast_convert_type(mantissa, dtype) - np.ones((), dtype)
    if distribution == "uniform":
        return unit
    low = np.nextafter(-np.ones((), dtype), np.zeros((), dtype))
    symmetric = jnp.maximum(low, unit * (np.ones((), dtype) - low) + low)
    return jax.lax.erf_inv(symmetric) * np.sqrt(np.array(2, dtype))


def _wide(leaf: jax.Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)
