"""The net with one hidden layer, its initialisation and the twelve points that it fits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.typing import AnyArray, Key

INPUTS = np.arange(-5.5, 6.0) / 4 + 0.07
OUTPUTS = 0.345 + np.array([-2, 1.5, 0, 0, 2, 1, 0, -1, 0, 1, 2, -1])
WIDTH = 100


class Net(NamedTuple):
    """f(x) = sum_j output_j relu(weight_j x + bias_j); float32."""

    weight: AnyArray  # [..., width]
    bias: AnyArray  # [..., width]
    output: AnyArray  # [..., width]


def initialise(key: Key, width: int = WIDTH) -> Net:
    """Return a net: weights 2.5 or -2.5, biases N(0, 2.5^2), output weights N(0, 4^2)."""
    keys = jax.random.split(key, 3)
    return Net(
        2.5 * jax.random.rademacher(keys[0], (width,), jnp.float32),
        2.5 * jax.random.normal(keys[1], (width,), jnp.float32),
        4.0 * jax.random.normal(keys[2], (width,), jnp.float32),
    )


def predict(net: Net, inputs: AnyArray) -> jax.Array:
    """Return f(x) for inputs of shape [n]."""
    hidden = jax.vmap(lambda x: jax.nn.relu(net.weight * x + net.bias))(inputs)
    return hidden @ net.output


def loss(net: Net) -> jax.Array:
    """Return sum((f(x) - y)^2) / 2 over the twelve points."""
    inputs, outputs = jnp.asarray(INPUTS, jnp.float32), jnp.asarray(OUTPUTS, jnp.float32)
    return jnp.sum((predict(net, inputs) - outputs) ** 2) / 2
