"""Random mixing and dropping of residual branches in training, one draw an example."""

import jax
import jax.numpy as jnp
from jax import lax

from sam_jax.typing import Key

# Of ShakeDrop where a branch is not kept: its factor forwards, its factor backwards.
FORWARD_RANGE = (-1.0, 1.0)
BACKWARD_RANGE = (0.0, 1.0)


def with_gradient_of(value: jax.Array, surrogate: jax.Array) -> jax.Array:
    """Return `value`, bit for bit, with the derivative of `surrogate`, forwards and backwards."""
    return lax.stop_gradient(value) + (surrogate - lax.stop_gradient(surrogate))


def shake_shake(a: jax.Array, b: jax.Array, key: Key, *, true_gradient: bool = False) -> jax.Array:
    """Mix two branches, with one mixture in the value and another one in the derivative.

        value: alpha a + (1 - alpha) b        derivative: beta da + (1 - beta) db

    with alpha and beta drawn from U(0, 1), independently for each example. At test time the mixture
    is the mean, (a + b) / 2.

    Args:
      a: outputs of the first branch [n, ...].
      b: outputs of the second branch [n, ...].
      key: of the draws.
      true_gradient: take alpha in the derivative too, which then is that of the value.

    Returns:
      The mixture [n, ...].

    References:
      Gastaldi, Shake-Shake regularization, 2017, arXiv:1705.07485 ("shake-shake-image").
      `true_gradient` as in the first SAM release.

    >>> a, b = jnp.ones((2, 1)), jnp.zeros((2, 1))
    >>> mixed = shake_shake(a, b, jax.random.key(0))  # alpha of each example
    >>> bool(jnp.all((0 < mixed) & (mixed < 1)) & (mixed[0] != mixed[1]).all())
    True
    """
    forward_key, backward_key = jax.random.split(key)

    def mix(key: Key) -> jax.Array:
        gate = jax.random.uniform(key, _one_each(a)).astype(a.dtype)
        return gate * a + (1 - gate) * b

    value = mix(forward_key)
    return value if true_gradient else with_gradient_of(value, mix(backward_key))


def shake_drop(
    x: jax.Array, keep_probability: float, key: Key, *, true_gradient: bool = False
) -> jax.Array:
    """Scale a residual branch at random, by one factor in the value and another in the derivative.

        value: (k + (1 - k) alpha) x        derivative: (k + (1 - k) beta) dx

    where k is 1 with probability `keep_probability` and else 0, alpha is drawn from U(-1, 1) and
    beta from U(0, 1), independently for each example. The mean of the factor of the value, used at
    test time, is `keep_probability`.

    Args:
      x: outputs of the branch [n, ...].
      keep_probability: of k = 1.
      key: of the draws.
      true_gradient: take alpha in the derivative too, which then is that of the value.

    Returns:
      The scaled branch [n, ...].

    References:
      Yamada et al., ShakeDrop Regularization for Deep Residual Learning, 2018, arXiv:1802.02375,
      equation 6. `true_gradient` as in the first SAM release.

    >>> shake_drop(jnp.ones((3, 1)), 1.0, jax.random.key(0)).tolist()  # always kept
    [[1.0], [1.0], [1.0]]
    """
    keep_key, forward_key, backward_key = jax.random.split(key, 3)
    keep = jax.random.bernoulli(keep_key, keep_probability, _one_each(x))

    def scaled(key: Key, limits: tuple[float, float]) -> jax.Array:
        factor = jax.random.uniform(key, _one_each(x), minval=limits[0], maxval=limits[1])
        return jnp.where(keep, 1.0, factor).astype(x.dtype) * x

    value = scaled(forward_key, FORWARD_RANGE)
    return value if true_gradient else with_gradient_of(value, scaled(backward_key, BACKWARD_RANGE))


def stochastic_depth(x: jax.Array, drop_probability: float, key: Key) -> jax.Array:
    """Drop a residual branch at random; what is kept is divided by the probability of keeping it.

    The mean is hence `x`, which is used at test time.

    Args:
      x: outputs of the branch [n, ...].
      drop_probability: of an example's branch, below 1.
      key: of the draws.

    Returns:
      The branch [n, ...], zero for dropped examples.

    References:
      Huang et al., Deep Networks with Stochastic Depth, 2016, arXiv:1603.09382, which scales by the
      probability at test time instead; as here in EfficientNet.

    >>> kept = stochastic_depth(jnp.ones((8, 1)), 0.5, jax.random.key(0))
    >>> sorted(set(kept.ravel().tolist()))
    [0.0, 2.0]
    """
    keep = jax.random.bernoulli(key, 1 - drop_probability, _one_each(x))
    return jnp.where(keep, x / (1 - drop_probability), jnp.zeros((), x.dtype))


def check_probability(name: str, value: float) -> None:
    """Raise a ValueError unless the attribute `name` is at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}.")


def _one_each(x: jax.Array) -> tuple[int, ...]:
    return (x.shape[0],) + (1,) * (x.ndim - 1)
