"""A check for debugging: are the copies of parameters on several devices still the same?"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sam_jax import pytree
from sam_jax.typing import PyTree


def assert_replicas_agree(tree: PyTree, stacked: bool = False, tolerance: float = 0.0) -> None:
    """Raise where the copies of an array on several devices differ.

    Under pmap, and under shard_map with check_vma=False, parameters stay the same on all devices
    only if every device takes the same step. A gradient that is not averaged over the devices lets
    them drift apart. Then one device's copy is saved or evaluated. The mean belongs into m_sam
    (`axis_name`); or, for one perturbation of all devices by another method, into `grad_fn`, as
    `jax.lax.pmean` of its gradient. Call this outside jit, now and then: it brings all copies to
    the host.

    Args:
      tree: parameters or an optimiser's state, concrete arrays. Parts of an array that lie on one
        device each, as with sharded parameters, are not copies and not compared.
      stacked: whether the leading axis of every array counts the copies, as pmap returns them.
      tolerance: the largest difference to accept; NaN agrees with NaN.

    Returns:
      Nothing. Of several processes each compares the copies on its own devices.

    Raises:
      ValueError: copies differ; with the path of the first such array and the difference. Or an
        array is traced.

    Example:
      >>> import jax.numpy as jnp, sam_jax
      >>> sam_jax.assert_replicas_agree({"w": jnp.ones((2, 3))}, stacked=True)
      >>> try:
      ...     sam_jax.assert_replicas_agree({"w": jnp.array([[1.0], [1.5]])}, stacked=True)
      ... except ValueError as error:
      ...     print(str(error).split(". ")[0])
      The copies of ['w'] on 2 devices differ by up to 0.5
    """
    for path, x in jax.tree.leaves_with_path(tree):
        if isinstance(x, Tracer):
            raise ValueError(
                "assert_replicas_agree compares concrete arrays: call it outside jit, pmap and "
                "shard_map, on their results."
            )
        x = jax.random.key_data(x) if pytree.is_key(x) else x
        for copies in _copies(x, stacked):
            difference = max((_difference(copies[0], other) for other in copies[1:]), default=0.0)
            if difference > tolerance:
                raise ValueError(
                    f"The copies of {jax.tree_util.keystr(path)} on {len(copies)} devices differ "
                    f"by up to {difference:.3g}. Average the gradient over the devices: wrap the "
                    "method as m_sam(method, m, axis_name=...), where m is the examples that share "
                    "a perturbation, or let grad_fn return jax.lax.pmean(gradient, axis_name)."
                )


def _copies(x: Any, stacked: bool) -> Iterable[list[np.ndarray]]:
    """Return groups of arrays that should be the same."""
    if stacked:
        return [list(np.asarray(x))]
    groups: dict[str, list[np.ndarray]] = {}
    for shard in getattr(x, "addressable_shards", ()):
        groups.setdefault(str(shard.index), []).append(np.asarray(shard.data))
    return groups.values()


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference; infinite where only one is NaN or the signs of infinity."""
    if not a.size or np.array_equal(a, b):
        return 0.0
    if not jnp.issubdtype(a.dtype, jnp.inexact):  # unsigned numbers and booleans wrap around
        a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | ((a != a) & (b != b))
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b)
    return float(np.max(np.where(same, 0, np.where(distance == distance, distance, np.inf))))
