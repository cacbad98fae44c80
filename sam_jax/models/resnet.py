"""Residual networks for small images (He et al., 2015, arXiv:1512.03385)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import EPSILON, Classifier, Conv, batch_norm, uniform


class BasicBlock(nn.Module):
    """3x3 convolution, norm, ReLU, 3x3 convolution, norm; add the shortcut; ReLU.

    The shortcut is the identity where the block keeps the shape, else a 1x1 convolution with norm.

    Attributes:
      features: output channels.
      norm: called with `name=`, returns a normalisation layer.
      stride: stride of the first convolution.
      dtype: the type of the computation.
    """

    features: int
    norm: Callable[..., nn.Module]
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), features]."""
        y = Conv(self.features, stride=self.stride, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = Conv(self.features, dtype=self.dtype, name="conv2")(y)
        y = self.norm(name="norm2")(y)
        if self.stride == 1 and x.shape[-1] == self.features:
            return nn.relu(x + y)
        x = Conv(self.features, 1, self.stride, dtype=self.dtype, name="shortcut")(x)
        return nn.relu(self.norm(name="shortcut_norm")(x) + y)


class ResNet(nn.Module):
    """A ResNet of basic blocks with strides for 32x32 images, by default ResNet-18.

    ResNet-18 has 11,173,962 parameters for 3 channels and 10 classes, 11,220,132 for 100 classes.
    It is the variant commonly trained on CIFAR: the paper's net for ImageNet, but the stem is a
    3x3 convolution of stride 1 without max pooling.
    Every kernel is drawn from U(-b, b), b = 1 / sqrt(fan_in), and so is the dense bias.
    The pooling is global, hence any image size will do: 32x32 images end as 4x4 maps, as do 28x28.

    Attributes:
      num_classes: the number of logits.
      width: channels of the stem and of the first stage; every further stage doubles them.
      blocks: the basic blocks of each stage; (3, 4, 6, 3) is ResNet-34.
      norm: "batch", or "group": group norm (Wu and He, 2018, arXiv:1803.08494) treats every example
        by itself and keeps no running statistics. Every layer has `width` / 2 groups, the paper's
        32 at the default width.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `layers.batch_norm`.

    Raises:
      ValueError: if the norm is unknown, or group norm is asked for with an odd width.

    >>> import jax, jax.numpy as jnp
    >>> model = ResNet(num_classes=10)
    >>> images = jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    11173962
    """

    num_classes: int
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True

    def __post_init__(self) -> None:
        """Validate the norm."""
        if self.norm not in ("batch", "group"):
            raise ValueError(f'norm must be "batch" or "group", got {self.norm!r}.')
        if self.norm == "group" and self.width % 2:
            raise ValueError(f"group norm needs an even width, got {self.width}.")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return logits.

        Args:
          images: float [n, H, W, C].
          train: normalise with the statistics of the batch; needs `mutable=["batch_stats"]`.
            Group norm does the same in either mode.

        Returns:
          Logits [n, num_classes], float32 or wider.
        """
        if self.norm == "batch":
            norm = functools.partial(batch_norm, train, self.dtype)
        else:
            norm = functools.partial(
                nn.GroupNorm, self.width // 2, epsilon=EPSILON, dtype=self.dtype
            )
        norm = functools.partial(norm, use_fast_variance=self.use_fast_variance)
        x = Conv(self.width, dtype=self.dtype, name="stem")(images)
        x = nn.relu(norm(name="stem_norm")(x))
        for i, blocks in enumerate(self.blocks):
            for j in range(blocks):
                x = BasicBlock(
                    self.width * 2**i,
                    norm,
                    stride=2 if i > 0 and j == 0 else 1,
                    dtype=self.dtype,
                    name=f"stage{i}_block{j}",
                )(x)
        return Classifier(
            self.num_classes,
            bias_init=uniform(x.shape[-1] ** -0.5),
            dtype=self.dtype,
            name="classifier",
        )(x)
