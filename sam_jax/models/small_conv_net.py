"""A small convolutional network for 8x8 digits: a training in seconds on a laptop's CPU."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, Conv, uniform
from sam_jax.models.norms import batch_norm


class SmallConvNet(nn.Module):
    """3x3 convolutions, each with batch norm and ReLU; average pooling; a dense layer.

    The default has 14,458 parameters for one channel and ten classes. Every kernel is drawn from
    U(-b, b), b = 1 / sqrt(fan_in), and so is the dense bias.

    Attributes:
      num_classes: the number of logits.
      features: output channels of the convolutions.
      strides: their strides.
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.

    Raises:
      ValueError: if `features` and `strides` differ in length, or are empty.

    >>> import jax, jax.numpy as jnp
    >>> model = SmallConvNet(num_classes=10)
    >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    >>> model.apply(variables, jnp.zeros((2, 8, 8, 1))).shape
    (2, 10)
    """

    num_classes: int
    features: tuple[int, ...] = (16, 32, 32)
    strides: tuple[int, ...] = (1, 2, 2)
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True

    def __post_init__(self) -> None:
        """Validate the convolutions."""
        if not self.features or len(self.features) != len(self.strides):
            raise ValueError(
                "features and strides need one entry for each convolution, at least one; "
                f"got features={self.features}, strides={self.strides}."
            )
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
        x = images
        for i, (features, stride) in enumerate(zip(self.features, self.strides, strict=True)):
            x = Conv(features, stride=stride, dtype=self.dtype, name=f"conv{i}")(x)
            x = nn.relu(norm(name=f"norm{i}")(x))
        return Classifier(
            self.num_classes,
            bias_init=uniform(x.shape[-1] ** -0.5),
            dtype=self.dtype,
            name="classifier",
        )(x)
