"""Cutting one set of examples into batches of m, for several m."""

import jax
import jax.numpy as jnp

from sam_jax.metrics.checks import check_count
from sam_jax.metrics.placement import with_whole_first_axis
from sam_jax.typing import Batch


def split_batches(examples: Batch, m: int) -> Batch:
    """Return N examples as N / m batches of m, in their order.

    The m of an m-sharpness is the size of the batches that `adversarial_sharpness` gets, whatever
    the number N of examples. Cutting the same N examples by different m changes m alone:

        by_m = {m: split_batches(examples, m) for m in (32, 128, 512)}

    The batch of a multiple of m is then the union of batches of m. Hence the exact m-sharpness of a
    mean loss cannot grow with m. Shuffle examples that are sorted, by class for example, before.

    Args:
      examples: a pytree whose leaves share their leading axis [N, ...].
      m: examples in a batch; it divides N, so that no m leaves examples out.

    Returns:
      The same pytree with leaves of shape [N / m, m, ...].

    Raises:
      ValueError: `m` below one or not a divisor of N, or leaves without a common leading axis.

    References:
      Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization,
      2021, https://arxiv.org/abs/2010.01412 (the m-sharpness).

    >>> split_batches(jnp.arange(6), 3).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    check_count("m", m)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    if len({shape[:1] for shape in shapes}) != 1 or not shapes[0] or not shapes[0][0]:
        raise ValueError(
            "examples must be arrays that share one leading axis [N, ...] with at least one "
            f"example, got the shapes {shapes}."
        )
    count = shapes[0][0]
    if count % m:
        raise ValueError(
            f"m = {m} does not divide the {count} examples, and leaving some out would measure "
            "every m on other examples. Take a number of examples that all m divide"
            + (f", such as the first {count - count % m}." if count > m else ".")
        )
    return jax.tree.map(
        lambda x: jnp.reshape(x, (count // m, m, *jnp.shape(x)[1:])),
        with_whole_first_axis(examples),
    )
