"""Layers that the architectures share: convolutions fit for CPUs, and the classifier."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from sam_jax.models import winograd
from sam_jax.models.depthwise import depthwise_sum
from sam_jax.typing import Key

IMPLEMENTATIONS = ("shifted", "native")

# Variance 1 / (3 fan_in): U(-b, b) with b = 1 / sqrt(fan_in), PyTorch's default for every layer.
fan_in_uniform: Initializer = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# He et al. (2015): N(0, 2 / fan_out), with fan_out = kernel height * width * output channels.
fan_out_normal: Initializer = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform(bound: float) -> Initializer:
    """Return an initialiser that draws from U(-bound, bound)."""

    def initialise(key: Key, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        del out_sharding
        return jax.random.uniform(key, shape, dtype or jnp.float32, -bound, bound)

    return initialise


def stages(width: int, blocks: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    """Yield the channels, the stride and the name of every block of a residual network.

    Every stage after the first doubles the channels and halves the image in its first block.

    Args:
      width: channels of the first stage.
      blocks: the blocks of each stage.

    >>> list(stages(64, (1, 2)))
    [(64, 1, 'stage0_block0'), (128, 2, 'stage1_block0'), (128, 1, 'stage1_block1')]
    """
    for i, count in enumerate(blocks):
        for j in range(count):
            yield width * 2**i, 2 if i > 0 and j == 0 else 1, f"stage{i}_block{j}"


def choose_implementation(implementation: str | None, *, small: bool) -> str:
    """Return the implementation of convolutions to use: the given one, or the platform's.

    GPUs take small kernels as products and sums. cuDNN is slow for depthwise kernels in channels
    last, and trying its algorithms for one network took minutes on an H100.

    Args:
      implementation: one of `IMPLEMENTATIONS`, or None.
      small: whether the kernel sees one pixel of all channels, or one channel.

    Raises:
      ValueError: if the implementation is unknown.
    """
    if implementation is None:
        shifted = ("cpu", "gpu") if small else ("cpu",)
        return "shifted" if jax.default_backend() in shifted else "native"
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be None or one of {IMPLEMENTATIONS}, got {implementation!r}."
        )
    return implementation


def native_convolution(x: jax.Array, kernel: jax.Array, stride: int, groups: int) -> jax.Array:
    """Convolve [n, H, W, C] by XLA's convolution, padded symmetrically with zeros."""
    height, width = kernel.shape[:2]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(height // 2, height // 2), (width // 2, width // 2)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def padded(x: jax.Array, height: int, width: int) -> jax.Array:
    """Return images [n, H, W, C] with the zeros around them that a kernel of odd sides needs."""
    p, q = height // 2, width // 2
    return jnp.pad(x, ((0, 0), (p, p), (q, q), (0, 0)))


def shifts(x: jax.Array, height: int, width: int, stride: int) -> list[jax.Array]:
    """Return the part of the padded images that each entry of a kernel sees, in the kernel's order.

    Args:
      x: images [n, H, W, C].
      height: of the kernel, odd; the images are padded with `height // 2` zeros on both sides.
      width: of the kernel, odd.
      stride: the step between windows along both axes.

    Returns:
      height * width images [n, ceil(H / stride), ceil(W / stride), C].
    """
    rows, columns = x.shape[1:3]
    x = padded(x, height, width)
    return [
        x[:, a : a + rows : stride, b : b + columns : stride]
        for a in range(height)
        for b in range(width)
    ]


def convolution(
    x: jax.Array, kernel: jax.Array, stride: int = 1, implementation: str | None = None
) -> jax.Array:
    """Convolve images with a kernel over all channels, padded symmetrically with zeros.

        y[n, i, j, o] = sum_{a, b, c} kernel[a, b, c, o] x[n, s i + a - p, s j + b - q, c]

    with s = `stride` and p, q = height // 2, width // 2 of the kernel: PyTorch's `padding=p`.

    The implementations compute the same sum and differ by rounding only. "shifted" gathers the
    windows and takes one matrix product. On CPUs XLA's own convolution is slower than that for few
    channels and for 1x1 kernels. Inside `lax.scan`, where it runs without its fast library, it is
    slower by a factor of up to fifty. The price is memory: height * width times the input.
    Left to choose, CPUs take fewer multiplications where that pays, see `winograd.pays`.

    Args:
      x: images [n, H, W, C].
      kernel: [height, width, C, O], odd height and width.
      stride: the step between windows along both axes.
      implementation: "shifted", "native" (XLA's convolution), or None: "shifted" where JAX's
        default backend is the CPU, and for 1x1 kernels on a GPU, else "native".

    Returns:
      Images [n, ceil(H / stride), ceil(W / stride), O].

    Raises:
      ValueError: if the implementation is unknown.

    >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    >>> print(convolution(x, jnp.ones((3, 3, 1, 1)))[0, :, :, 0])
    [[ 8. 15. 12.]
     [21. 36. 27.]
     [20. 33. 24.]]
    """
    small = kernel.shape[:2] == (1, 1)
    if choose_implementation(implementation, small=small) == "native":
        return native_convolution(x, kernel, stride, groups=1)
    if implementation is None and winograd.pays(x, kernel, stride):
        return winograd.convolution(x, kernel)
    height, width, channels, features = kernel.shape
    windows = jnp.concatenate(shifts(x, height, width, stride), axis=-1)
    # One product of two matrices: a contraction of the four-axis array runs slower on CPUs.
    product = windows.reshape(-1, height * width * channels) @ kernel.reshape(-1, features)
    return product.reshape(*windows.shape[:-1], features)


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, stride: int = 1, implementation: str | None = None
) -> jax.Array:
    """Convolve every channel with its own kernel, padded symmetrically with zeros.

        y[n, i, j, c] = sum_{a, b} kernel[a, b, 0, c] x[n, s i + a - p, s j + b - q, c]

    with the symbols of `convolution`. "shifted" is the sum as it stands, one multiply-add of
    whole images for each kernel entry: on CPUs several times faster than XLA's grouped
    convolution, forwards and backwards.

    Args:
      x: images [n, H, W, C].
      kernel: [height, width, 1, C], odd height and width.
      stride: the step between windows along both axes.
      implementation: "shifted", "native", or None: "shifted" on CPUs and GPUs, else "native".

    Returns:
      Images [n, ceil(H / stride), ceil(W / stride), C].

    Raises:
      ValueError: if the implementation is unknown.

    >>> x = jnp.ones((1, 3, 3, 2))
    >>> kernel = jnp.ones((3, 3, 1, 2)) * jnp.array([[[[1.0, 10.0]]]])
    >>> print(depthwise_convolution(x, kernel)[0, 1])
    [[ 6. 60.]
     [ 9. 90.]
     [ 6. 60.]]
    """
    if choose_implementation(implementation, small=True) == "native":
        return native_convolution(x, kernel, stride, groups=x.shape[-1])
    return depthwise_sum(padded(x, *kernel.shape[:2]), kernel, stride)


class Conv(nn.Module):
    """A square convolution without bias, padded symmetrically; see `convolution`.

    Attributes:
      features: output channels.
      size: side of the kernel, odd.
      stride: the step between windows.
      depthwise: every channel has its own kernel; `features` must equal the input channels.
      dtype: the type of the computation. The kernel, (size, size, C, features) or depthwise
        (size, size, 1, features) as in `nn.Conv`, is kept in float32.
      kernel_init: initialiser of the kernel.
      implementation: None for the one that suits the platform; parameters do not depend on it.
    """

    features: int
    size: int = 3
    stride: int = 1
    depthwise: bool = False
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = fan_in_uniform
    implementation: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images [n, H, W, C] to [n, ceil(H / stride), ceil(W / stride), features]."""
        inputs = 1 if self.depthwise else x.shape[-1]
        shape = (self.size, self.size, inputs, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        convolve = depthwise_convolution if self.depthwise else convolution
        return convolve(
            x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.implementation
        )


def checkpointed(
    block: type[nn.Module], checkpoint: bool, static: tuple[int, ...] = ()
) -> Callable[..., nn.Module]:
    """Return a class of blocks whose backward pass computes the block anew, if asked for.

    Then only the input of each block is kept for the backward pass: less memory, for about one
    more forward pass. Variables, their names and the results stay the same.

    Args:
      block: the class.
      checkpoint: whether to do so.
      static: the positions of the arguments of `__call__` that are no arrays; self is 0.
    """
    return nn.remat(block, static_argnums=static) if checkpoint else block


class Classifier(nn.Module):
    """Global average pooling and one dense layer, in float32 or wider.

    Attributes:
      num_classes: the number of logits.
      kernel_init: initialiser of the dense kernel.
      bias_init: initialiser of the dense bias.
      dtype: the type of the body; the head computes in float32 where this is narrower.
    """

    num_classes: int
    kernel_init: Initializer = fan_in_uniform
    bias_init: Initializer = jax.nn.initializers.zeros
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [n, H, W, C] to logits [n, num_classes]."""
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return nn.Dense(
            self.num_classes,
            dtype=dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            name="dense",
        )(jnp.mean(x, axis=(1, 2), dtype=dtype))
