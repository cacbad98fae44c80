"""Wide residual networks with Shake-Shake regularisation (Gastaldi, 2017, arXiv:1705.07485)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, checkpointed, fan_out_normal, uniform
from sam_jax.models.norms import batch_norm
from sam_jax.models.randomness import shake_shake
from sam_jax.models.wide_resnet import GROUPS, STEM_CHANNELS


class OffsetShortcut(nn.Module):
    """Two strided 1x1 convolutions of half the channels, the second one pixel off; batch norm.

    Attributes:
      features: output channels, even.
      norm: called with `name=`, returns a normalisation layer.
      stride: the step between the pixels that are taken.
      dtype: the type of the computation.
    """

    features: int
    norm: Callable[..., nn.Module]
    stride: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), features]."""
        below_right = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
        halves = [
            Conv(
                self.features // 2,
                size=1,
                stride=self.stride,
                dtype=self.dtype,
                kernel_init=fan_out_normal,
                name=name,
            )(pixels)
            for name, pixels in (("conv1", x), ("conv2", below_right))
        ]
        return self.norm(name="norm")(jnp.concatenate(halves, axis=-1))


class ShakeShakeBlock(nn.Module):
    """Two branches of ReLU, 3x3 convolution and batch norm, twice; their mixture and the shortcut.

    The shortcut is the identity where the block keeps the number of channels.

    Attributes:
      features: output channels, even.
      norm: called with `name=`, returns a normalisation layer.
      stride: stride of the first convolutions.
      dtype: the type of the computation.
    """

    features: int
    norm: Callable[..., nn.Module]
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, true_gradient: bool) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), features]."""
        a, b = self.branch(x, "a"), self.branch(x, "b")
        if train:
            mixture = shake_shake(a, b, self.make_rng("model"), true_gradient=true_gradient)
        else:
            mixture = (a + b) / 2
        if x.shape[-1] != self.features:
            x = OffsetShortcut(self.features, self.norm, self.stride, self.dtype, name="shortcut")(
                x
            )
        return x + mixture

    def branch(self, x: jax.Array, name: str) -> jax.Array:
        """Return the outputs of the branch called `name`."""
        for i, stride in ((1, self.stride), (2, 1)):
            x = Conv(
                self.features,
                stride=stride,
                dtype=self.dtype,
                kernel_init=fan_out_normal,
                name=f"{name}_conv{i}",
            )(nn.relu(x))
            x = self.norm(name=f"{name}_norm{i}")(x)
        return x


class WideResNetShakeShake(nn.Module):
    """A wide ResNet of two mixed branches, by default Shake-Shake 26 2x96d.

    The default has 26,192,922 parameters for 3 channels and 10 classes: the paper's 26.2 million.
    The first SAM release calls it WideResnet28x6_ShakeShake. Structure and initialisation follow
    that release: convolution kernels are drawn from N(0, 2 / fan_out), the dense kernel from
    U(-b, b) with b = 1 / sqrt(num_classes), and the dense bias is zero. As in `WideResNet`, images
    are padded symmetrically.
    With `train=True` every example of every block draws its mixture from the random stream "model":
    pass `rngs={"model": key}`.

    Attributes:
      num_classes: the number of logits.
      depth: 6 b + 2 with b blocks in each of the three groups.
      width: the multiplier of the groups' channels 16, 32, 64.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

    Raises:
      ValueError: if depth is not 6 b + 2 for some b >= 1.

    >>> import jax, jax.numpy as jnp
    >>> model = WideResNetShakeShake(num_classes=10)
    >>> images = jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    26192922
    """

    num_classes: int
    depth: int = 26
    width: int = 6
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        """Validate the depth."""
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(
                f"depth must be 6 b + 2 with b >= 1 (8, 14, 20, 26, ...), got {self.depth}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, true_gradient: bool = False
    ) -> jax.Array:
        """Return logits.

        Args:
          images: float [n, H, W, C].
          train: draw the mixtures and normalise with the statistics of the batch; needs
            `mutable=["batch_stats"]` and the random stream "model".
          true_gradient: in training, differentiate the function that was evaluated, with the same
            mixtures backwards as forwards.

        Returns:
          Logits [n, num_classes], float32 or wider.
        """
        norm = functools.partial(
            batch_norm, train, self.dtype, use_fast_variance=self.use_fast_variance
        )
        x = Conv(STEM_CHANNELS, dtype=self.dtype, kernel_init=fan_out_normal, name="stem")(images)
        x = norm(name="stem_norm")(x)
        for i, (channels, first_stride) in enumerate(GROUPS):
            for j in range((self.depth - 2) // 6):
                x = checkpointed(ShakeShakeBlock, self.checkpoint_blocks, static=(2, 3))(
                    self.width * channels,
                    norm,
                    stride=first_stride if j == 0 else 1,
                    dtype=self.dtype,
                    name=f"group{i}_block{j}",
                )(x, train, true_gradient)
        return Classifier(
            self.num_classes,
            kernel_init=uniform(self.num_classes**-0.5),
            dtype=self.dtype,
            name="classifier",
        )(nn.relu(x))
