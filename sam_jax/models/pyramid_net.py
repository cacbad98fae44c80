"""PyramidNets with ShakeDrop (Han et al., 2017, arXiv:1610.02915; Yamada et al., 1802.02375)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, checkpointed, fan_out_normal, uniform
from sam_jax.models.norms import batch_norm
from sam_jax.models.preactivation import padded_shortcut
from sam_jax.models.randomness import shake_drop

STEM_CHANNELS = 16
STRIDES = (1, 2, 2)  # of the first block of each group
EXPANSION = 4  # output channels of a bottleneck, over its inner ones
LAST_KEEP_PROBABILITY = 0.5


class BottleneckBlock(nn.Module):
    """Batch norm, 1x1, 3x3 and 1x1 convolution with batch norms; ShakeDrop; padded shortcut.

    Batch norm and ReLU stand between the convolutions; the first and the last batch norm have no
    ReLU.

    Attributes:
      channels: of the inner convolutions; the output has four times as many.
      norm: called with `name=`, returns a normalisation layer.
      keep_probability: of ShakeDrop.
      stride: stride of the 3x3 convolution.
      dtype: the type of the computation.
    """

    channels: int
    norm: Callable[..., nn.Module]
    keep_probability: float
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, true_gradient: bool) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), 4 channels]."""
        features = EXPANSION * self.channels
        y = self.norm(name="norm1")(x)
        y = self.convolution("conv1", self.channels, size=1)(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.convolution("conv2", self.channels, size=3, stride=self.stride)(y)
        y = nn.relu(self.norm(name="norm3")(y))
        y = self.convolution("conv3", features, size=1)(y)
        y = self.norm(name="norm4")(y)
        if train:
            key = self.make_rng("model")
            y = shake_drop(y, self.keep_probability, key, true_gradient=true_gradient)
        else:
            y = self.keep_probability * y
        return padded_shortcut(x, features, self.stride) + y

    def convolution(self, name: str, features: int, size: int, stride: int = 1) -> Conv:
        """Return a convolution to `features` channels."""
        return Conv(
            features,
            size=size,
            stride=stride,
            dtype=self.dtype,
            kernel_init=fan_out_normal,
            name=name,
        )


class PyramidNet(nn.Module):
    """A PyramidNet of bottlenecks with ShakeDrop, by default of depth 272 and alpha 200.

    The inner channels of block l of L are 16 + alpha l / L, rounded. The paper's code truncates
    instead, which gives about 0.2 million parameters fewer than the 26,210,842 of the default for 3
    channels and 10 classes. Block l is kept with probability 1 - 0.5 l / L.
    Structure and initialisation follow the first SAM release: convolution kernels are drawn from
    N(0, 2 / fan_out), the dense kernel from U(-b, b) with b = 1 / sqrt(num_classes), and the dense
    bias is zero. As in `WideResNet`, images are padded symmetrically.
    With `train=True` every example of every block draws from the random stream "model": pass
    `rngs={"model": key}`.

    Attributes:
      num_classes: the number of logits.
      depth: 9 b + 2 with b blocks in each of the three groups.
      alpha: the inner channels that the blocks add to the stem's 16, all together.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

    Raises:
      ValueError: if depth is not 9 b + 2 for some b >= 1, or alpha is negative.

    >>> import jax, jax.numpy as jnp
    >>> model = PyramidNet(num_classes=10, depth=11, alpha=30)
    >>> images = jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> variables["params"]["group2_block0"]["conv3"]["kernel"].shape
    (1, 1, 46, 184)
    """

    num_classes: int
    depth: int = 272
    alpha: int = 200
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        """Validate the depth and alpha."""
        if self.depth < 11 or self.depth % 9 != 2:
            raise ValueError(
                f"depth must be 9 b + 2 with b >= 1 (11, 20, 29, ..., 272), got {self.depth}."
            )
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, true_gradient: bool = False
    ) -> jax.Array:
        """Return logits.

        Args:
          images: float [n, H, W, C].
          train: draw the factors of ShakeDrop and normalise with the statistics of the batch; needs
            `mutable=["batch_stats"]` and the random stream "model".
          true_gradient: in training, differentiate the function that was evaluated, with the same
            factors backwards as forwards.

        Returns:
          Logits [n, num_classes], float32 or wider.
        """
        norm = functools.partial(
            batch_norm, train, self.dtype, use_fast_variance=self.use_fast_variance
        )
        x = Conv(STEM_CHANNELS, dtype=self.dtype, kernel_init=fan_out_normal, name="stem")(images)
        x = norm(name="stem_norm")(x)
        blocks = (self.depth - 2) // 9
        for block in range(3 * blocks):
            group, place = divmod(block, blocks)
            progress = (block + 1) / (3 * blocks)
            x = checkpointed(BottleneckBlock, self.checkpoint_blocks, static=(2, 3))(
                round(STEM_CHANNELS + self.alpha * progress),
                norm,
                keep_probability=1 - (1 - LAST_KEEP_PROBABILITY) * progress,
                stride=STRIDES[group] if place == 0 else 1,
                dtype=self.dtype,
                name=f"group{group}_block{place}",
            )(x, train, true_gradient)
        x = nn.relu(norm(name="head_norm")(x))
        return Classifier(
            self.num_classes,
            kernel_init=uniform(self.num_classes**-0.5),
            dtype=self.dtype,
            name="classifier",
        )(x)
