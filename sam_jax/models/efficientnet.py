"""EfficientNets (Tan and Le, 2019, arXiv:1905.11946)."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, checkpointed, uniform
from sam_jax.models.norms import batch_norm
from sam_jax.models.randomness import check_probability, stochastic_depth

MOMENTUM = 0.99  # of the running statistics
EPSILON = 1e-3  # added to the variances
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
SQUEEZE = 0.25  # channels of the squeeze, over the block's input

# He's initialisation, truncated. The fan_out of a depthwise kernel is its area: one output channel
# an input channel, as in TensorFlow's layout.
kernel_init = variance_scaling(2.0, "fan_out", "truncated_normal")
depthwise_init = variance_scaling(2.0, "fan_out", "truncated_normal", in_axis=-1, out_axis=-2)


class Variant(NamedTuple):
    """How a variant scales EfficientNet-B0, and the settings that were published with it."""

    width: float  # multiplier of the channels
    depth: float  # multiplier of the blocks of each stage
    image_size: int  # side of the training images
    dropout: float  # before the dense layer


VARIANTS = {
    "b0": Variant(1.0, 1.0, 224, 0.2),
    "b1": Variant(1.0, 1.1, 240, 0.2),
    "b2": Variant(1.1, 1.2, 260, 0.3),
    "b3": Variant(1.2, 1.4, 300, 0.3),
    "b4": Variant(1.4, 1.8, 380, 0.4),
    "b5": Variant(1.6, 2.2, 456, 0.4),
    "b6": Variant(1.8, 2.6, 528, 0.5),
    "b7": Variant(2.0, 3.1, 600, 0.5),
    "l2-475": Variant(4.3, 5.3, 475, 0.5),
}


class Stage(NamedTuple):
    """One row of the paper's Table 1."""

    expansion: int  # channels of the depthwise convolution, over the block's input
    channels: int  # output channels
    blocks: int
    stride: int  # of the first block; the others have 1
    size: int  # side of the depthwise kernel


STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


def scaled(channels: int, width: float, multiple: int = 8) -> int:
    """Return `channels` times `width`, to the nearest multiple of 8 not 10 % below the product."""
    product = channels * width
    nearest = max(multiple, int(product + multiple / 2) // multiple * multiple)
    return nearest + multiple if nearest < 0.9 * product else nearest


class MobileBlock(nn.Module):
    """Expand by a 1x1, filter depthwise, squeeze and excite, project by a 1x1; add the input.

    Batch norm follows every convolution, and swish all but the last. The input is added where the
    block keeps the shape; in training the branch is then dropped at random.

    Attributes:
      features: output channels.
      stage: expansion and kernel size.
      stride: stride of the depthwise convolution.
      norm: called with `name=`, returns a normalisation layer.
      drop_probability: of the branch, for each example.
      dtype: the type of the computation.
    """

    features: int
    stage: Stage
    stride: int
    norm: Callable[..., nn.Module]
    drop_probability: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), features]."""
        inputs = x.shape[-1]
        channels = inputs * self.stage.expansion
        pointwise = functools.partial(Conv, size=1, dtype=self.dtype, kernel_init=kernel_init)
        y = x
        if self.stage.expansion != 1:
            y = pointwise(channels, name="expand")(y)
            y = nn.swish(self.norm(name="expand_norm")(y))
        y = Conv(
            channels,
            size=self.stage.size,
            stride=self.stride,
            depthwise=True,
            dtype=self.dtype,
            kernel_init=depthwise_init,
            name="depthwise",
        )(y)
        y = nn.swish(self.norm(name="depthwise_norm")(y))
        y *= self.excitation(y, max(1, int(inputs * SQUEEZE)))
        y = pointwise(self.features, name="project")(y)
        y = self.norm(name="project_norm")(y)
        if self.stride != 1 or inputs != self.features:
            return y
        if train and self.drop_probability:
            y = stochastic_depth(y, self.drop_probability, self.make_rng("model"))
        return x + y

    def excitation(self, y: jax.Array, squeezed: int) -> jax.Array:
        """Return the factor of every channel, [n, 1, 1, C], from the means of all channels."""
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=kernel_init)
        means = jnp.mean(y, axis=(1, 2), keepdims=True)
        z = nn.swish(dense(squeezed, name="squeeze")(means))
        return nn.sigmoid(dense(y.shape[-1], name="excite")(z))


class EfficientNet(nn.Module):
    """An EfficientNet, B0 to B7 or L2.

    Parameters for 3 channels and 1000 classes: B0 5,288,548, B1 7,794,184, B2 9,109,994, B3
    12,233,232, B4 19,341,616, B5 30,389,784, B6 43,040,704, B7 66,347,960, L2 480,309,308.
    Batch norm keeps 0.99 of its running statistics in an update and adds 1e-3 to the variances.
    Initialisation as in the first SAM release: convolution kernels are drawn from a truncated
    normal law of variance 2 / fan_out, the dense kernel from U(-b, b), b = 1 / sqrt(num_classes);
    biases are zero. Images are padded symmetrically, as in PyTorch; that release pads strided
    windows only below and on the right where the image has an even side. It also takes batch
    statistics over all devices; here they are those of the batch that the model is given.
    The pooling is global, hence any image size will do; `VARIANTS` has the published ones.
    With `train=True` dropout and stochastic depth draw from the random stream "model": pass
    `rngs={"model": key}`.

    Attributes:
      num_classes: the number of logits.
      variant: "b0" to "b7", or "l2-475".
      stages: expansion, channels, blocks, stride and kernel size of each stage of B0, which the
        variant scales.
      dropout: the share of features that is dropped before the dense layer; None for the variant's.
      stochastic_depth: d; block l of L is dropped with probability d l / L, the first block being
        l = 0.
      freeze_batch_norm: normalise with the running statistics in training too, and keep them, as
        the first SAM release does in fine-tuning.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

    Raises:
      ValueError: if the variant is unknown or a probability is not at least 0 and below 1.

    >>> import jax, jax.numpy as jnp
    >>> model = EfficientNet(num_classes=1000, variant="b0")
    >>> images = jnp.zeros((1, VARIANTS["b0"].image_size, VARIANTS["b0"].image_size, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    5288548
    """

    num_classes: int
    variant: str = "b0"
    stages: tuple[tuple[int, int, int, int, int], ...] = STAGES
    dropout: float | None = None
    stochastic_depth: float = 0.2
    freeze_batch_norm: bool = False
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        """Validate the variant and the probabilities."""
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}.")
        check_probability("dropout", self.dropout or 0)
        check_probability("stochastic_depth", self.stochastic_depth)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return logits.

        Args:
          images: float [n, H, W, C].
          train: drop at random and normalise with the statistics of the batch; needs
            `mutable=["batch_stats"]` and the random stream "model".

        Returns:
          Logits [n, num_classes], float32 or wider.
        """
        variant = VARIANTS[self.variant]
        norm = functools.partial(
            batch_norm,
            train and not self.freeze_batch_norm,
            self.dtype,
            use_fast_variance=self.use_fast_variance,
            momentum=MOMENTUM,
            epsilon=EPSILON,
        )
        conv = functools.partial(Conv, dtype=self.dtype, kernel_init=kernel_init)
        x = conv(scaled(STEM_CHANNELS, variant.width), stride=2, name="stem")(images)
        x = nn.swish(norm(name="stem_norm")(x))
        stages = [Stage(*stage) for stage in self.stages]
        repeats = [math.ceil(stage.blocks * variant.depth) for stage in stages]
        blocks_before = 0
        for i, (stage, blocks) in enumerate(zip(stages, repeats, strict=True)):
            for j in range(blocks):
                x = checkpointed(MobileBlock, self.checkpoint_blocks, static=(2,))(
                    scaled(stage.channels, variant.width),
                    stage,
                    stride=stage.stride if j == 0 else 1,
                    norm=norm,
                    drop_probability=self.stochastic_depth * blocks_before / sum(repeats),
                    dtype=self.dtype,
                    name=f"stage{i}_block{j}",
                )(x, train)
                blocks_before += 1
        x = conv(scaled(HEAD_CHANNELS, variant.width), size=1, name="head")(x)
        x = nn.swish(norm(name="head_norm")(x))
        features = jnp.mean(x, axis=(1, 2), keepdims=True)
        rate = variant.dropout if self.dropout is None else self.dropout
        features = nn.Dropout(rate, deterministic=not train, rng_collection="model")(features)
        return Classifier(
            self.num_classes,
            kernel_init=uniform(self.num_classes**-0.5),
            dtype=self.dtype,
            name="classifier",
        )(features)
