"""Wide ResNets (Zagoruyko and Komodakis, 2016, arXiv:1605.07146)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, batch_norm, fan_out_normal, uniform

STEM_CHANNELS = 16
GROUPS = ((16, 1), (32, 2), (64, 2))  # channels before widening, stride of the first block


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


class WideBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice; added to the shortcut.

    Attributes:
      features: output channels.
      norm: called with `name=`, returns a normalisation layer.
      stride: stride of the first convolution.
      shortcut: "convolution" or "padding", as in `WideResNet`.
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


class WideResNet(nn.Module):
    """A Wide ResNet-d-k without dropout.

    The default, 28-10, has 36,479,194 parameters for 3 channels and 10 classes, as in the paper.
    The initialisation follows the first SAM release: convolution kernels are drawn from N(0, 2 /
    fan_out), the dense kernel from U(-b, b) with b = 1 / sqrt(num_classes). The dense bias is zero.
    Images are padded symmetrically, as in the paper; that release pads only below and on the right
    where a convolution has stride 2 and the image an even side.

    Attributes:
      num_classes: the number of logits.
      depth: d = 6 b + 4 with b blocks in each of the three groups.
      width: k, the multiplier of the groups' channels 16, 32, 64.
      shortcut: where a block changes the shape. "convolution", the paper's: a 1x1 convolution of
        the normalised input. "padding", as in AutoAugment and the first SAM release: average
        pooling and zero channels, 258,560 parameters fewer in 28-10. The shortcut of the very first
        block then starts after its batch norm and ReLU.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `layers.batch_norm`.

    Raises:
      ValueError: if depth is not 6 b + 4 for some b >= 1, or the shortcut is unknown.

    >>> import jax, jax.numpy as jnp
    >>> model = WideResNet(num_classes=10)
    >>> images = jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    36479194
    """

    num_classes: int
    depth: int = 28
    width: int = 10
    shortcut: str = "convolution"
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True

    def __post_init__(self) -> None:
        """Validate the depth and the shortcut."""
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(
                f"depth must be 6 b + 4 with b >= 1 (10, 16, 22, 28, ...), got {self.depth}."
            )
        if self.shortcut not in ("convolution", "padding"):
            raise ValueError(f'shortcut must be "convolution" or "padding", got {self.shortcut!r}.')
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return logits.

        Args:
          images: float [n, H, W, C].
          train: normalise with the statistics of the batch; needs `mutable=["batch_stats"]`.

        Returns:
          Logits [n, num_classes], float32 or wider.
        """
        norm = functools.partial(
            batch_norm, train, self.dtype, use_fast_variance=self.use_fast_variance
        )
        x = Conv(STEM_CHANNELS, dtype=self.dtype, kernel_init=fan_out_normal, name="stem")(images)
        for i, (channels, first_stride) in enumerate(GROUPS):
            for j in range((self.depth - 4) // 6):
                x = WideBlock(
                    self.width * channels,
                    norm,
                    stride=first_stride if j == 0 else 1,
                    shortcut=self.shortcut,
                    normalise_shortcut=i == j == 0,
                    dtype=self.dtype,
                    name=f"group{i}_block{j}",
                )(x)
        x = nn.relu(norm(name="head_norm")(x))
        return Classifier(
            self.num_classes,
            kernel_init=uniform(self.num_classes**-0.5),
            dtype=self.dtype,
            name="classifier",
        )(x)
