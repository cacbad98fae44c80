"""Random directions in the space of parameters."""

import jax
import jax.numpy as jnp

from sam_jax.metrics.checks import check_count, check_distribution
from sam_jax.pytree import normalise, random_like
from sam_jax.typing import Key, Params, PyTree

DISTRIBUTIONS = ("gaussian", "uniform")


def random_direction(key: Key, params: Params, index: jax.Array | int, distribution: str) -> PyTree:
    """Return direction number `index` of the sequence that `key` and `distribution` name.

    It depends on the key, the index and the structure and shapes of `params`, and not on their
    values, so that all models of one architecture are measured along the same directions.
    """
    # Without the law's number both laws would turn the same random bits into their directions.
    key = jax.random.fold_in(key, DISTRIBUTIONS.index(distribution))
    return normalise(random_like(jax.random.fold_in(key, index), params, distribution))


def random_directions(key: Key, params: Params, num_directions: int, distribution: str) -> PyTree:
    """Return independent random directions of unit norm over all parameters together.

    With z of the size d of all parameters, each direction is u = z / ||z||:

    * "gaussian": z ~ N(0, I), hence u is uniform on the sphere (isotropic).
    * "uniform": z ~ U(0, 1)^d, the law of the study of asymmetry. These directions are all
      nearly the same one: for large d the cosine of u with the vector of ones is
      sqrt(3) / 2 = 0.866 and that of two of them is 3 / 4.

    Args:
      key: a typed key; every law and every direction draws from a key of its own.
      params: parameters; only their structure, shapes and dtypes matter.
      num_directions: how many directions.
      distribution: "gaussian" or "uniform".

    Returns:
      A pytree like `params`, in float32 or wider, whose leaves have one more leading axis of
      size `num_directions`.

    Raises:
      ValueError: for a number of directions below one or an unknown distribution.

    >>> params = {"kernel": jnp.zeros((200, 300)), "bias": jnp.zeros(300)}
    >>> directions = random_directions(jax.random.key(0), params, 2, "uniform")
    >>> directions["kernel"].shape
    (2, 200, 300)
    >>> cosine = sum(jnp.vdot(u[0], u[1]) for u in jax.tree.leaves(directions))
    >>> print(f"{cosine:.2f}")
    0.75
    """
    check_count("num_directions", num_directions)
    check_distribution(distribution, DISTRIBUTIONS)
    return jax.lax.map(
        lambda index: random_direction(key, params, index, distribution),
        jnp.arange(num_directions),
    )
