"""Whether a value is known while jit traces a program: all checks of numbers ask here."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sam_jax.typing import PyTree


def is_known(tree: PyTree) -> bool:
    """Say whether all numbers of `tree` can be looked at: none is traced, or on another machine."""
    return all(_is_known(leaf) for leaf in jax.tree.leaves(tree))


def known(value: Any) -> np.ndarray | None:
    """Return `value` as a NumPy array, or None where it is not known.

    Checks have to compare the NumPy array: inside jit the comparison of a jax.Array is traced, even
    of one that was made outside and is known.
    """
    return np.asarray(value) if _is_known(value) else None


def is_compiling() -> bool:
    """Say whether what runs now is traced by jit: then even a constant is."""
    return isinstance(jnp.zeros(()), Tracer)


def _is_known(value: Any) -> bool:
    if isinstance(value, Tracer):
        return False
    if not isinstance(value, jax.Array):
        return True
    return value.is_fully_addressable or value.is_fully_replicated
