"""Residual networks for small images (He et al., 2015, arXiv:1512.03385)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from sam_jax.models.layers import (
    Classifier,
    Conv,
    checkpointed,
    fan_in_uniform,
    fan_out_normal,
    stages,
    uniform,
)
from sam_jax.models.norms import check_norm, choose_norm


class BasicBlock(nn.Module):
    """3x3 convolution, norm, ReLU, 3x3 convolution, norm; add the shortcut; ReLU.

    The shortcut is the identity where the block keeps the shape, else a 1x1 convolution with norm.

    Attributes:
      features: output channels.
      norm: called with `name=`, returns a normalisation layer.
      stride: stride of the first convolution.
      kernel_init: initialiser of the convolutions.
      dtype: the type of the computation.
    """

    features: int
    norm: Callable[..., nn.Module]
    stride: int = 1
    kernel_init: Initializer = fan_in_uniform
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), features]."""
        y = self.convolution("conv1", self.stride)(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.convolution("conv2", 1)(y)
        y = self.norm(name="norm2")(y)
        if self.stride == 1 and x.shape[-1] == self.features:
            return nn.relu(x + y)
        x = self.convolution("shortcut", self.stride, size=1)(x)
        return nn.relu(self.norm(name="shortcut_norm")(x) + y)

    def convolution(self, name: str, stride: int, size: int = 3) -> Conv:
        """Return a convolution to `features` channels."""
        return Conv(
            self.features,
            size=size,
            stride=stride,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name=name,
        )


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
      norm: "batch" or "group", with `width` / 2 groups in every layer; see `norms.choose_norm`.
      he_initialisation: draw convolution kernels from N(0, 2 / fan_out) and set the dense bias to
        zero, as the code of understanding-sam does for its ResNet-34.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

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
    he_initialisation: bool = False
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        """Validate the norm."""
        check_norm(self.norm, self.width)
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
        norm = choose_norm(self.norm, self.width, train, self.dtype, self.use_fast_variance)
        kernel_init = fan_out_normal if self.he_initialisation else fan_in_uniform
        x = Conv(self.width, dtype=self.dtype, kernel_init=kernel_init, name="stem")(images)
        x = nn.relu(norm(name="stem_norm")(x))
        for channels, stride, name in stages(self.width, self.blocks):
            x = checkpointed(BasicBlock, self.checkpoint_blocks)(
                channels,
                norm,
                stride=stride,
                kernel_init=kernel_init,
                dtype=self.dtype,
                name=name,
            )(x)
        zeros = jax.nn.initializers.zeros
        return Classifier(
            self.num_classes,
            bias_init=zeros if self.he_initialisation else uniform(x.shape[-1] ** -0.5),
            dtype=self.dtype,
            name="classifier",
        )(x)
