"""Blocks of normalisation, ReLU and convolution (He et al., 2016, arXiv:1603.05027)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import Conv, fan_out_normal


def padded_shortcut(x: jax.Array, features: int, stride: int) -> jax.Array:
    """Return `x` average-pooled by `stride`, with zero channels appended up to `features`.

    Args:
      x: images [n, H, W, C], C at most `features`.
      features: output channels.
      stride: side of the pooling windows; a window over the border averages the pixels inside.

    Returns:
      Images [n, ceil(H / stride), ceil(W / stride), features].
    """
    if stride > 1:
        window = (stride, stride)
        x = nn.avg_pool(x, window, window, padding="SAME", count_include_pad=False)
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice; added to the shortcut.

    Attributes:
      features: output channels.
      norm: called with `name=`, returns a normalisation layer.
      stride: stride of the first convolution.
      shortcut: where the block changes the shape. "convolution": a 1x1 convolution of the
        normalised input. "padding": `padded_shortcut` of the input, also where the shape stays.
      normalise_shortcut: start a padded shortcut after the first batch norm and ReLU, not before.
      dtype: the type of the computation.
    """

    features: int
    norm: Callable[..., nn.Module]
    stride: int = 1
    shortcut: str = "convolution"
    normalise_shortcut: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), features]."""
        y = nn.relu(self.norm(name="norm1")(x))
        if self.shortcut == "padding":
            start = y if self.normalise_shortcut else x
            residual = padded_shortcut(start, self.features, self.stride)
        elif x.shape[-1] == self.features and self.stride == 1:
            residual = x
        else:
            residual = self.convolution("shortcut", self.stride, size=1)(y)
        y = self.convolution("conv1", self.stride)(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.convolution("conv2", 1)(y)
        return y + residual

    def convolution(self, name: str, stride: int, size: int = 3) -> Conv:
        """Return a convolution to `features` channels."""
        return Conv(
            self.features,
            size=size,
            stride=stride,
            dtype=self.dtype,
            kernel_init=fan_out_normal,
            name=name,
        )
