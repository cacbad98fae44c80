"""Whether directions are parallel, in float64 on the host."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.known import is_known
from sam_jax.typing import PyTree

ROUNDING = 1e-15  # of the products below; integers are exact themselves


def check_not_parallel(directions: dict[str, PyTree]) -> None:
    r"""Raise a ValueError where two directions are known to be parallel to rounding.

    With d, e two of them, each rounded to its dtype with the unit u, they are parallel where

    .. math::
      \Big\|e - \frac{\langle e, d \rangle}{\|d\|^2} d\Big\| \le 4 u \|e\|

    because rounding a multiple of d changes it by u / 2 of its length at most.

    Args:
      directions: name -> pytree, all of one structure and none of them zero; those that jit traces
        are not known yet and pass.
    """
    for (name, first), (other, second) in itertools.combinations(directions.items(), 2):
        if is_known((first, second)) and _are_parallel(first, second):
            raise ValueError(
                f"{name} and {other} are parallel to rounding and span no plane: every row of the "
                "grid would lie on one line. Take another direction, or loss_line for a line."
            )


def _are_parallel(first: PyTree, second: PyTree) -> bool:
    leaves = jax.tree.leaves((first, second))
    dtypes = [x for x in map(jnp.result_type, leaves) if jnp.issubdtype(x, jnp.floating)]
    unit = max((float(jnp.finfo(x).eps) for x in dtypes), default=0.0)
    d, e = (_scaled(tree) for tree in (first, second))
    ratio = _dot(e, d) / _dot(d, d)
    rest = [y - ratio * x for x, y in zip(d, e, strict=True)]
    return _dot(rest, rest) <= (4 * max(unit, ROUNDING)) ** 2 * _dot(e, e)


def _scaled(direction: PyTree) -> list[np.ndarray]:
    """Return the leaves with a largest entry of one, so that no square leaves the range."""
    leaves = [np.asarray(x).astype(np.float64) for x in jax.tree.leaves(direction)]
    largest = max(np.max(np.abs(x), initial=0) for x in leaves)
    return [x / largest for x in leaves]


def _dot(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return sum(float(np.vdot(x, y)) for x, y in zip(a, b, strict=True))
