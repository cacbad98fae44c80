"""Wide ResNets (Zagoruyko and Komodakis, 2016, arXiv:1605.07146)."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, checkpointed, fan_out_normal, uniform
from sam_jax.models.norms import batch_norm
from sam_jax.models.preactivation import PreActivationBlock, padded_shortcut

STEM_CHANNELS = 16
GROUPS = ((16, 1), (32, 2), (64, 2))  # channels before widening, stride of the first block


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
      additional_skips: each group's input, pooled and padded as above, is also added to its output,
        and the images to the last group's. AutoAugment's model has padding and these skips; the
        first SAM release has padding and, by default, no such skips.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

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
    additional_skips: bool = False
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True
    checkpoint_blocks: bool = False

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
            group_input = x
            for j in range((self.depth - 4) // 6):
                x = checkpointed(PreActivationBlock, self.checkpoint_blocks)(
                    self.width * channels,
                    norm,
                    stride=first_stride if j == 0 else 1,
                    shortcut=self.shortcut,
                    normalise_shortcut=i == j == 0,
                    dtype=self.dtype,
                    name=f"group{i}_block{j}",
                )(x)
            if self.additional_skips:
                x += padded_shortcut(group_input, x.shape[-1], first_stride)
        if self.additional_skips:
            total_stride = math.prod(stride for _, stride in GROUPS)
            x += padded_shortcut(images.astype(x.dtype), x.shape[-1], total_stride)
        x = nn.relu(norm(name="head_norm")(x))
        return Classifier(
            self.num_classes,
            kernel_init=uniform(self.num_classes**-0.5),
            dtype=self.dtype,
            name="classifier",
        )(x)
