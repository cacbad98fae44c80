"""Normalisation layers: batch norm, and the choice between it and group norm."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

MOMENTUM = 0.9  # running <- MOMENTUM * running + (1 - MOMENTUM) * batch
EPSILON = 1e-5  # added to the variance

NORMS = ("batch", "group")


class BatchNorm(nn.BatchNorm):
    """Batch normalisation over all axes but the last: `nn.BatchNorm` in fewer passes.

        y = (x - mean) / sqrt(variance + epsilon) * scale + bias

    With `use_fast_variance` it is computed as x * factor + shift, so that neither x - mean nor its
    gradient is an array of its own: on CPUs about half of the passes over x, forwards and
    backwards, of `nn.BatchNorm`.

    Of the attributes of `nn.BatchNorm` it knows those that `batch_norm` sets.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise [..., C], and update the running statistics unless they are used."""
        shape, zeros = x.shape[-1:], jax.nn.initializers.zeros
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.use_running_average:
            mean, variance = running_mean.value, running_variance.value
        else:
            mean, variance = self._statistics(x)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_variance, variance)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        if self.use_fast_variance:
            y = x * _beside(factor, x) + _beside(bias - mean * factor, x)
        else:
            y = (x - _beside(mean, x)) * _beside(factor, x) + _beside(bias, x)
        return y.astype(self.dtype)

    def _statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the mean and the biased variance of every channel."""
        axes = tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axes)
        if self.use_fast_variance:
            return mean, jnp.maximum(jnp.mean(x * x, axes) - mean * mean, 0.0)
        return mean, jnp.mean(jnp.square(x - _beside(mean, x)), axes)


def _beside(channels: jax.Array, x: jax.Array) -> jax.Array:
    return channels.reshape((1,) * (x.ndim - 1) + channels.shape)


def batch_norm(
    train: bool,
    dtype: DTypeLike,
    *,
    use_fast_variance: bool = True,
    momentum: float = MOMENTUM,
    epsilon: float = EPSILON,
    scale_init: Initializer = jax.nn.initializers.ones,
    name: str | None = None,
) -> BatchNorm:
    """Return the batch normalisation of every model of this room.

    Statistics are taken in float32 or wider whatever `dtype` is. The running variance follows the
    biased batch variance, as Flax does it; PyTorch's follows the unbiased one, which is larger by
    n / (n - 1) with n = examples * height * width.

    Args:
      train: normalise with the statistics of the batch, and update the running ones.
      dtype: the type of the output.
      use_fast_variance: take the variance as mean(x^2) - mean(x)^2, in one pass over x. In float32
        it is off by about (mean / std)^2 * 6e-8 of itself: a tenth at mean / std = 1000, and at
        4000 it is lost. False takes mean((x - mean(x))^2), which no mean drowns.
      momentum: the share of the running statistics that an update keeps.
      epsilon: added to the variance.
      scale_init: initialiser of the scale.
      name: the name of the module.
    """
    return BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        use_fast_variance=use_fast_variance,
        scale_init=scale_init,
        name=name,
    )


def check_norm(norm: str, width: int) -> None:
    """Raise a ValueError unless `norm` is known and can normalise layers of `width` channels."""
    if norm not in NORMS:
        raise ValueError(f'norm must be "batch" or "group", got {norm!r}.')
    if norm == "group" and width % 2:
        raise ValueError(f"group norm needs an even width, got {width}.")


def choose_norm(
    norm: str, width: int, train: bool, dtype: DTypeLike, use_fast_variance: bool
) -> Callable[..., nn.Module]:
    """Return a function of `name=` that makes the norms of one model.

    Args:
      norm: "batch", or "group": group norm (Wu and He, 2018, arXiv:1803.08494) treats every example
        by itself and keeps no running statistics.
      width: channels of the stem. Group norm has `width` / 2 groups in every layer: the paper's 32
        for 64 channels.
      train: as in `batch_norm`.
      dtype: the type of the output.
      use_fast_variance: as in `batch_norm`.
    """
    kind = (
        functools.partial(batch_norm, train)
        if norm == "batch"
        else functools.partial(nn.GroupNorm, width // 2, epsilon=EPSILON)
    )
    return functools.partial(kind, dtype=dtype, use_fast_variance=use_fast_variance)
