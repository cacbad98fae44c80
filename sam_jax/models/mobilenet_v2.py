"""MobileNetV2 for small images (Sandler et al., 2018, arXiv:1801.04381)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, checkpointed, uniform
from sam_jax.models.norms import batch_norm

# A stage: expansion, output channels, blocks, stride of its first block (the others have 1).
# Table 2 of the paper but for the second stage, whose stride is 1 instead of 2 for 32x32 images.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


def scaled(channels: int, width: float) -> int:
    """Return `channels` times the width multiplier, rounded, at least one."""
    return max(1, round(channels * width))


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter by a depthwise 3x3, project by a linear 1x1; add the shortcut.

    Only a block of stride 1 has a shortcut: the identity where input and output have as many
    channels, else a 1x1 convolution with batch norm.

    Attributes:
      features: output channels.
      expansion: channels between the 1x1 convolutions, over the input's.
      stride: stride of the depthwise convolution.
      norm: called with `name=`, returns a normalisation layer.
      dtype: the type of the computation.
    """

    features: int
    expansion: int
    stride: int
    norm: Callable[..., nn.Module]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), features]."""
        channels = self.expansion * x.shape[-1]
        y = Conv(channels, size=1, dtype=self.dtype, name="expand")(x)
        y = nn.relu(self.norm(name="expand_norm")(y))
        y = Conv(channels, stride=self.stride, depthwise=True, dtype=self.dtype, name="depthwise")(
            y
        )
        y = nn.relu(self.norm(name="depthwise_norm")(y))
        y = Conv(self.features, size=1, dtype=self.dtype, name="project")(y)
        y = self.norm(name="project_norm")(y)
        if self.stride != 1:
            return y
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, dtype=self.dtype, name="shortcut")(x)
            x = self.norm(name="shortcut_norm")(x)
        return x + y


class MobileNetV2(nn.Module):
    """MobileNetV2 with strides for 32x32 images: 2,296,922 parameters for 3 channels, 10 classes.

    The variant commonly trained on CIFAR-10, which the study of SAM and the asymmetry of minima
    used. It differs from the paper: the stem and the second stage have stride 1; ReLU instead of
    ReLU6; the first block, too, has an expanding 1x1 convolution, with expansion 1; blocks of
    stride 1 that change the number of channels have a convolutional shortcut; no dropout.
    Every kernel is drawn from U(-b, b), b = 1 / sqrt(fan_in), and so is the dense bias.
    The pooling is global, hence any image size will do: 32x32 images end as 4x4 maps, as do 28x28.

    Attributes:
      num_classes: the number of logits.
      width: multiplier of all channels, the head's included.
      stages: (expansion, channels, blocks, stride) of each stage.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

    >>> import jax, jax.numpy as jnp
    >>> model = MobileNetV2(num_classes=10)
    >>> images = jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    2296922
    """

    num_classes: int
    width: float = 1.0
    stages: tuple[tuple[int, int, int, int], ...] = STAGES
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True
    checkpoint_blocks: bool = False

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
        x = Conv(scaled(STEM_CHANNELS, self.width), dtype=self.dtype, name="stem")(images)
        x = nn.relu(norm(name="stem_norm")(x))
        for i, (expansion, channels, blocks, first_stride) in enumerate(self.stages):
            for j in range(blocks):
                x = checkpointed(InvertedResidual, self.checkpoint_blocks)(
                    scaled(channels, self.width),
                    expansion,
                    stride=first_stride if j == 0 else 1,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"stage{i}_block{j}",
                )(x)
        x = Conv(scaled(HEAD_CHANNELS, self.width), size=1, dtype=self.dtype, name="head")(x)
        x = nn.relu(norm(name="head_norm")(x))
        return Classifier(
            self.num_classes,
            bias_init=uniform(x.shape[-1] ** -0.5),
            dtype=self.dtype,
            name="classifier",
        )(x)
