"""Residual networks of bottlenecks for ImageNet (He et al., 2015, arXiv:1512.03385)."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, zeros
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, checkpointed, stages
from sam_jax.models.norms import batch_norm

EXPANSION = 4  # output channels of a bottleneck, over its inner ones


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, each with batch norm; add the shortcut; ReLU.

    ReLU stands between the convolutions, and the stride is that of the 3x3 one. The scale of the
    last batch norm begins at zero, hence the block as its shortcut: the identity where the block
    keeps the shape, else a 1x1 convolution with batch norm.

    Attributes:
      channels: of the inner convolutions; the output has four times as many.
      norm: called with `name=`, returns a normalisation layer.
      stride: stride of the 3x3 convolution.
      dtype: the type of the computation.
    """

    channels: int
    norm: Callable[..., nn.Module]
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), 4 channels]."""
        features = EXPANSION * self.channels
        y = self.convolution("conv1", self.channels, size=1)(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.convolution("conv2", self.channels, size=3, stride=self.stride)(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.convolution("conv3", features, size=1)(y)
        y = self.norm(name="norm3", scale_init=zeros)(y)
        if self.stride == 1 and x.shape[-1] == features:
            return nn.relu(x + y)
        x = self.convolution("shortcut", features, size=1, stride=self.stride)(x)
        return nn.relu(self.norm(name="shortcut_norm")(x) + y)

    def convolution(self, name: str, features: int, size: int, stride: int = 1) -> Conv:
        """Return a convolution to `features` channels."""
        return Conv(
            features,
            size=size,
            stride=stride,
            dtype=self.dtype,
            kernel_init=lecun_normal(),
            name=name,
        )


class ImageNetResNet(nn.Module):
    """A ResNet of bottlenecks with strides for ImageNet, by default ResNet-50.

    For 3 channels and 1000 classes ResNet-50 has 25,557,032 parameters, ResNet-101 of the blocks
    (3, 4, 23, 3) has 44,549,160, and ResNet-152 of the blocks (3, 8, 36, 3) has 60,192,808.
    Strides and initialisation follow the first SAM release: kernels are drawn from a truncated
    normal law of variance 1 / fan_in, the dense bias is zero. Images are padded symmetrically, as
    in PyTorch; that release pads the strided 3x3 windows only below and on the right where the
    image has an even side.
    The pooling is global, hence any image size will do; the stem divides it by four.

    Attributes:
      num_classes: the number of logits.
      blocks: the bottlenecks of each stage.
      width: channels of the stem and inner channels of the first stage; every further stage doubles
        them.
      stem_relu: apply ReLU before the max pooling, as in the paper. The first SAM release does not.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

    >>> import jax, jax.numpy as jnp
    >>> model = ImageNetResNet(num_classes=1000)
    >>> images = jnp.zeros((1, 224, 224, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    25557032
    """

    num_classes: int
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    stem_relu: bool = True
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
        x = Conv(
            self.width,
            size=7,
            stride=2,
            dtype=self.dtype,
            kernel_init=lecun_normal(),
            name="stem",
        )(images)
        x = norm(name="stem_norm")(x)
        if self.stem_relu:
            x = nn.relu(x)
        padding: Any = ((1, 1), (1, 1))  # Flax annotates the names of paddings alone
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for channels, stride, name in stages(self.width, self.blocks):
            x = checkpointed(Bottleneck, self.checkpoint_blocks)(
                channels,
                norm,
                stride=stride,
                dtype=self.dtype,
                name=name,
            )(x)
        return Classifier(
            self.num_classes, kernel_init=lecun_normal(), dtype=self.dtype, name="classifier"
        )(x)
