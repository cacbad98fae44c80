"""The networks of nets.py as Flax modules, their variables, and random batches."""

import importlib.metadata
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from experiments.benchmark.nets import NETS
from sam_jax import models
from sam_jax.typing import Params, PyTree

KEY = jax.random.key(0)
# The precision of a row -> that of matrix products, which for float32 says whether TF32 may be
# used, and the type of the computation.
PRECISIONS = {
    "float32": ("highest", "float32"),
    "tf32": ("default", "float32"),
    "bfloat16": ("default", "bfloat16"),
}


class DenseNet(nn.Module):
    """A perceptron with ReLUs on flattened images.

    Attributes:
      num_classes: the number of logits.
      widths: of the hidden layers.
      dtype: the type of the computation.
    """

    num_classes: int
    widths: tuple[int, ...] = (256, 256)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return logits [n, num_classes]; training makes no difference."""
        x = images.reshape(len(images), -1).astype(self.dtype)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes)(x)


class Network(NamedTuple):
    """A network with its first variables."""

    model: nn.Module
    params: Params
    batch_stats: PyTree
    image: tuple[int, int, int]

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))


def network(name: str, precision: str = "float32") -> Network:
    """Return a network of nets.py, computing in a precision of `PRECISIONS`."""
    net = NETS[name]
    attributes: dict[str, Any] = net.attributes | {"dtype": jnp.dtype(PRECISIONS[precision][1])}
    if net.model == "dense":
        model: nn.Module = DenseNet(net.classes, **attributes)
    else:
        model = models.create(net.model, net.classes, **attributes)
    images = jnp.zeros((1, *net.image))
    variables = jax.jit(lambda key: model.init(key, images, train=False))(KEY)
    return Network(model, variables["params"], variables.get("batch_stats", {}), net.image)


def random_batch(name: str, batch: int) -> tuple[jax.Array, jax.Array]:
    """Return Gaussian images and labels."""
    net = NETS[name]
    images = jax.random.normal(KEY, (batch, *net.image))
    return images, jax.random.randint(KEY, (batch,), 0, net.classes)


def about() -> dict[str, Any]:
    """Return the versions and the device of this process."""
    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "flax": flax.__version__,
        "optax": optax.__version__,
        "platform": device.platform,
        "device": device.device_kind,
    }
