"""Vision transformers (Dosovitskiy et al., 2020, arXiv:2010.11929)."""

import functools
import re
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, normal, xavier_uniform, zeros
from jax.typing import DTypeLike

from sam_jax.models.layers import Classifier, checkpointed
from sam_jax.models.randomness import check_probability, stochastic_depth

EPSILON = 1e-6  # added to the variances of the layer norms
MLP_EXPANSION = 4  # hidden features of a block's perceptron, over the width


class Size(NamedTuple):
    """A size of the transformer."""

    width: int  # features of a token
    heads: int


SIZES = {"Ti": Size(192, 3), "S": Size(384, 6), "B": Size(768, 12)}


class SelfAttention(nn.Module):
    """Multi-head self-attention, softmax(q k' / sqrt(d)) v with d features a head; a dense layer.

    Attributes:
      heads: the number of heads; must divide the width.
      dtype: the type of the computation; the softmax is taken in float32 or wider.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map tokens [n, T, width] to [n, T, width]."""
        n, tokens, width = x.shape
        dense = functools.partial(
            nn.Dense, width, dtype=self.dtype, kernel_init=xavier_uniform(), bias_init=zeros
        )

        def project(name: str) -> jax.Array:
            return dense(name=name)(x).reshape(n, tokens, self.heads, width // self.heads)

        query, key, value = (project(name) for name in ("query", "key", "value"))
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) * (width // self.heads) ** -0.5
        weights = jax.nn.softmax(scores.astype(jnp.promote_types(self.dtype, jnp.float32)))
        mixed = jnp.einsum("nhqk,nkhd->nqhd", weights.astype(self.dtype), value)
        return dense(name="out")(mixed.reshape(n, tokens, width))


class EncoderBlock(nn.Module):
    """Layer norm and self-attention, layer norm and perceptron; each added to its input.

    The perceptron has one hidden layer with GELU, by its approximation with tanh as in the
    authors' release.

    Attributes:
      heads: of the attention.
      drop_probability: of either branch, for each example, in training.
      dtype: the type of the computation.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
    """

    heads: int
    drop_probability: float
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map tokens [n, T, width] to [n, T, width]."""
        norm = functools.partial(
            nn.LayerNorm, EPSILON, dtype=self.dtype, use_fast_variance=self.use_fast_variance
        )
        y = norm(name="norm1")(x)
        y = SelfAttention(self.heads, self.dtype, name="attention")(y)
        x += self.dropped(y, train)
        y = norm(name="norm2")(x)
        y = self.dense("hidden", MLP_EXPANSION * x.shape[-1])(y)
        y = self.dense("out", x.shape[-1])(nn.gelu(y, approximate=True))
        return x + self.dropped(y, train)

    def dense(self, name: str, features: int) -> nn.Dense:
        """Return a layer of the perceptron."""
        return nn.Dense(
            features,
            dtype=self.dtype,
            kernel_init=xavier_uniform(),
            bias_init=normal(1e-6),
            name=name,
        )

    def dropped(self, branch: jax.Array, train: bool) -> jax.Array:
        """Return the branch, in training dropped at random."""
        if not train or not self.drop_probability:
            return branch
        return stochastic_depth(branch, self.drop_probability, self.make_rng("model"))


class VisionTransformer(nn.Module):
    """A vision transformer with a class token, by default ViT-S/16.

    Parameters for 224x224 images of 3 channels and 1000 classes, as in the authors' release
    (google-research/vision_transformer): S/32 22,878,952, S/16 22,050,664, B/32 88,224,232, B/16
    86,567,656. There is no dropout. Initialisation as in that release: dense kernels are drawn from
    Glorot's uniform law, the patches' embedding from a truncated normal law of variance 1 / fan_in,
    the perceptrons' biases from N(0, 1e-12), the position embeddings from N(0, 0.02^2). The class
    token and the classifier begin at zero, hence so do the logits.
    The position embeddings fit images of one size.
    Where the stochastic depth is not zero, `train=True` draws from the random stream "model": pass
    `rngs={"model": key}`.

    Attributes:
      num_classes: the number of logits.
      variant: size and side of the patches: "Ti", "S" or "B", a slash, and a number, as in "S/32".
      depth: the number of encoder blocks L.
      stochastic_depth: d; either branch of block l, counted from 0, is dropped with probability
        d l / (L - 1).
      dtype: the type of the computation; parameters are kept in float32.
      use_fast_variance: how the norms take their variance, see `norms.batch_norm`.
      checkpoint_blocks: keep the inputs of the blocks alone, see `layers.checkpointed`.

    Raises:
      ValueError: if the variant is none, the depth is below 1 or the stochastic depth no
        probability below 1; and, when called, if the patches do not tile the images.

    >>> import jax, jax.numpy as jnp
    >>> model = VisionTransformer(num_classes=1000, variant="S/32")
    >>> images = jnp.zeros((1, 224, 224, 3))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    22878952
    """

    num_classes: int
    variant: str = "S/16"
    depth: int = 12
    stochastic_depth: float = 0.0
    dtype: DTypeLike = jnp.float32
    use_fast_variance: bool = True
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        """Validate the variant, the depth and the stochastic depth."""
        size, _, patch = self.variant.partition("/")
        if size not in SIZES or not re.fullmatch("[1-9][0-9]*", patch):
            raise ValueError(
                f"variant must be one of {', '.join(SIZES)}, a slash and the side of the patches, "
                f'such as "S/16"; got {self.variant!r}.'
            )
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}.")
        check_probability("stochastic_depth", self.stochastic_depth)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return logits.

        Args:
          images: float [n, H, W, C].
          train: drop branches at random; needs the random stream "model" where the stochastic depth
            is not zero.

        Returns:
          Logits [n, num_classes], float32 or wider.
        """
        size, _, patch = self.variant.partition("/")
        width, heads = SIZES[size]
        x = patches(images.astype(self.dtype), int(patch))
        x = nn.Dense(width, dtype=self.dtype, kernel_init=lecun_normal(), name="embedding")(x)
        class_token = self.param("class_token", zeros, (1, 1, width), jnp.float32)
        class_tokens = jnp.broadcast_to(class_token.astype(self.dtype), (x.shape[0], 1, width))
        x = jnp.concatenate([class_tokens, x], axis=1)
        positions = self.param(
            "position_embedding", normal(0.02), (1, x.shape[1], width), jnp.float32
        )
        x += positions.astype(self.dtype)
        for i in range(self.depth):
            x = checkpointed(EncoderBlock, self.checkpoint_blocks, static=(2,))(
                heads,
                drop_probability=self.stochastic_depth * i / max(1, self.depth - 1),
                dtype=self.dtype,
                use_fast_variance=self.use_fast_variance,
                name=f"block{i}",
            )(x, train)
        x = nn.LayerNorm(
            EPSILON, dtype=self.dtype, use_fast_variance=self.use_fast_variance, name="head_norm"
        )(x)
        first = x[:, None, :1]  # the class token as images of one pixel
        return Classifier(self.num_classes, kernel_init=zeros, dtype=self.dtype, name="classifier")(
            first
        )


def patches(images: jax.Array, side: int) -> jax.Array:
    """Return the square patches of images, row by row.

    Args:
      images: [n, H, W, C].
      side: of the patches; must divide H and W.

    Returns:
      Patches [n, H W / side^2, side * side * C], each in the order of its rows, columns, channels.

    Raises:
      ValueError: if the patches do not tile the images.

    >>> print(patches(jnp.arange(8.0).reshape(1, 2, 4, 1), 2))
    [[[0. 1. 4. 5.]
      [2. 3. 6. 7.]]]
    """
    n, height, width, channels = images.shape
    if height % side or width % side:
        raise ValueError(
            f"patches of {side}x{side} pixels do not tile images of {height}x{width}; choose a "
            "variant whose patch divides both sides, or another image size."
        )
    rows, columns = height // side, width // side
    x = images.reshape(n, rows, side, columns, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * columns, side * side * channels)
