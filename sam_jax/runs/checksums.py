"""Checksums of the arrays of a state, the same however they are split over devices and processes.

The checksum of an array with the bits x_i at its places i is

    sum over i of mix(x_i + i K)  mod 2^64,

where mix is one to one: a change of one number always changes it, and another change stays unseen
with a probability of 2^-64. As a sum it can be taken over the parts of an array in any order.
"""

import math
import zlib
from typing import Any

import jax
import numpy as np

from sam_jax.runs.distributed import total
from sam_jax.typing import PyTree

_PLACE, _FIRST, _SECOND = (
    np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_AT_ONCE = 2**16  # numbers, whose few temporary arrays stay in the cache


def of_tree(tree: PyTree) -> dict[str, str]:
    """Return type, shape and checksum of every array by its name, the path in the tree.

    Of several processes all have to call it together where one of them holds a part of an array
    alone; each then reads what lies on its own devices.

    >>> of_tree({"w": np.zeros(2, np.float32)}) == of_tree({"w": np.zeros(2, np.float32)})
    True
    >>> list(of_tree({"w": {"b": np.int32(3)}}))
    ['w/b']
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    sums = np.array([_own_part(leaf) for _, leaf in leaves], np.uint64)
    shared = np.array([_is_shared(leaf) for _, leaf in leaves], bool)
    if shared.any():
        sums[shared] = total(sums[shared])
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{leaf.dtype} {list(np.shape(leaf))} {int(found):016x}"
        )
        for (path, leaf), found in zip(leaves, sums, strict=True)
    }


def of_lines(data: bytes) -> list[str]:
    """Return the CRC-32 of every whole line; what follows the last end of a line is left out."""
    return [of_bytes(line) for line in data.split(b"\n")[:-1]]


def of_bytes(data: bytes) -> str:
    """Return the CRC-32 of some bytes, as eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def _is_shared(leaf: Any) -> bool:
    """Say whether other processes hold parts of an array that this one lacks."""
    if not isinstance(leaf, jax.Array):
        return False
    return not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def _own_part(leaf: Any) -> int:
    """Return the sum over the parts that lie here, each part once over all processes."""
    if not isinstance(leaf, jax.Array):
        return _sum_of(np.asarray(leaf), np.shape(leaf), ())
    if leaf.is_fully_replicated:
        return _sum_of(np.asarray(leaf.addressable_data(0)), leaf.shape, ())
    parts = (s for s in leaf.addressable_shards if s.replica_id == 0)
    found = (_sum_of(np.asarray(s.data), leaf.shape, s.index) for s in parts)
    return sum(found) % 2**64


def _sum_of(part: np.ndarray, shape: tuple[int, ...], index: tuple[slice, ...]) -> int:
    """Return the sum over a part of an array of this shape, or over the whole."""
    size = part.dtype.itemsize
    words = np.ascontiguousarray(part).reshape(-1).view(f"u{min(size, 8)}")
    per_number = max(size // 8, 1)  # complex numbers of 16 bytes have two words
    places = None if part.shape == shape else _places(part.shape, shape, index)
    found = 0
    for first in range(0, len(words), _AT_ONCE):
        some = words[first : first + _AT_ONCE].astype(np.uint64)
        if places is None:
            place = np.arange(first, first + len(some), dtype=np.uint64)
        else:
            word = np.arange(first, first + len(some))
            place = places[word // per_number] * np.uint64(per_number)
            place += (word % per_number).astype(np.uint64)
        some += place * _PLACE
        for shift, factor in ((30, _FIRST), (27, _SECOND)):
            some ^= some >> np.uint64(shift)
            some *= factor
        found += int(some.sum(dtype=np.uint64))
    return found % 2**64


def _places(part: tuple[int, ...], shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """Return where the numbers of a part stand in the whole array, counted row by row."""
    found = np.zeros((1,) * len(shape), np.uint64)
    for axis, (length, where) in enumerate(zip(part, index, strict=True)):
        places = (np.arange(length) + (where.start or 0)) * math.prod(shape[axis + 1 :])
        found = found + places.astype(np.uint64).reshape(
            [-1 if other == axis else 1 for other in range(len(shape))]
        )
    return found.reshape(-1)
