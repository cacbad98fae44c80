"""Pre-activation residual networks for small images (He et al., 2016, arXiv:1603.05027)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, checkpointed, fan_out_normal, stages
from sam_jax.models.norms import check_norm, choose_norm
from sam_jax.models.preactivation import PreActivationBlock


class PreActResNet(nn.Module):
    """A ResNet of pre-activation blocks with strides for 32x32 images, by default ResNet-18.

    ResNet-18 has 11,172,170 parameters for 3 channels and 10 classes, with either norm; ResNet-34,
    of the blocks (3, 4, 6, 3), has 21,280,330. With group norm it is the net of Andriushchenko and
    Flammarion, Towards Understanding Sharpness-Aware Minimization (2022, arXiv:2206.06232), and of
    their code, but for two classes, where that code has one logit and a constant zero.
    A shortcut that changes the shape is a 1x1 convolution of the normalised input, without norm.
    The initialisation follows that code: convolution kernels from N(0, 2 / fan_out), the dense
    kernel from U(-b, b), b = 1 / sqrt(fan_in), and a dense bias of zero.
    The pooling is global, hence any image size will do.

    Attributes:
      num_classes: the number of logits.
      width: channels of the stem and of the first stage; every further stage doubles them.
      blocks: the blocks of each stage.
      norm: "batch" or "group", with `width` / 2 groups in every layer; see `norms.choose_norm`.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

    Raises:
      ValueError: if the norm is unknown, or group norm is asked for with an odd width.

    >>> import jax, jax.numpy as jnp
    >>> model = PreActResNet(num_classes=10, norm="group")
    >>> images = jnp.zeros((1, 32, 32, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    11172170
    """

    num_classes: int
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    norm: str = "batch"
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
        x = Conv(self.width, dtype=self.dtype, kernel_init=fan_out_normal, name="stem")(images)
        for channels, stride, name in stages(self.width, self.blocks):
            x = checkpointed(PreActivationBlock, self.checkpoint_blocks)(
                channels,
                norm,
                stride=stride,
                dtype=self.dtype,
                name=name,
            )(x)
        x = nn.relu(norm(name="head_norm")(x))
        return Classifier(self.num_classes, dtype=self.dtype, name="classifier")(x)
