"""Three regressions: linear with and without interpolation, and a net that interpolates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam_jax.typing import AnyArray, Batch, Key, Params


class Problem(NamedTuple):
    """A regression with squared loss, of one seed; leaves may have a leading axis of seeds."""

    inputs: AnyArray  # [n, d]
    outputs: AnyArray  # [n]
    start: Params
    minimum: AnyArray  # of the training loss


class Kind(NamedTuple):
    """A family of problems, and what suits it.

    Attributes:
      name: in texts.
      make: key -> a problem.
      predict: (params, inputs [d]) -> the output for one example.
      learning_rate: the first step size.
      usam_rho: the first factor of the gradient in the perturbation of unnormalised SAM.
      sam_rho: the first radius of SAM.
    """

    name: str
    make: Callable[[Key], Problem]
    predict: Callable[[Params, jax.Array], jax.Array]
    learning_rate: float
    usam_rho: float
    sam_rho: float


def loss(kind: Kind, params: Params, batch: Batch) -> jax.Array:
    """Return the mean of (f(x) - y)^2 / 2 over a batch (inputs, outputs)."""
    inputs, outputs = batch
    found = jax.vmap(lambda x: kind.predict(params, x))(inputs)
    return jnp.mean((found - outputs) ** 2) / 2


def _unit(x: jax.Array) -> jax.Array:
    """Scale rows to length 1, so that the loss of every example is 1-smooth in linear models."""
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def _overparametrised(key: Key, n: int = 32, d: int = 128) -> Problem:
    """Return random labels, which a linear model with d > n parameters fits exactly."""
    keys = jax.random.split(key)
    inputs = _unit(jax.random.normal(keys[0], (n, d)))
    return Problem(inputs, jax.random.normal(keys[1], (n,)), jnp.zeros(d), jnp.zeros(()))


def _noisy(key: Key, n: int = 64, d: int = 8) -> Problem:
    """Return random labels, of which a linear model with d < n parameters explains a part."""
    keys = jax.random.split(key)
    inputs = _unit(jax.random.normal(keys[0], (n, d)))
    outputs = jax.random.normal(keys[1], (n,))
    best, *_ = jnp.linalg.lstsq(inputs, outputs)
    return Problem(inputs, outputs, jnp.zeros(d), jnp.mean((inputs @ best - outputs) ** 2) / 2)


def _net(key: Key, n: int = 16, d: int = 16, width: int = 64) -> Problem:
    """Return random labels for a net with one hidden layer and more parameters than examples."""
    keys = jax.random.split(key, 4)
    start = {
        "hidden": jax.random.normal(keys[0], (width, d)),
        "output": jax.random.normal(keys[1], (width,)),
    }
    inputs = _unit(jax.random.normal(keys[2], (n, d)))
    return Problem(inputs, jax.random.normal(keys[3], (n,)), start, jnp.zeros(()))


def _predict_linear(params: Params, x: jax.Array) -> jax.Array:
    return x @ params


def _predict_net(params: Params, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(params["hidden"] @ x)
    return params["output"] @ hidden / jnp.sqrt(len(hidden))


OVERPARAMETRISED, NOISY, NET = KINDS = (
    Kind("linear, interpolates", _overparametrised, _predict_linear, 0.5, 0.5, 0.1),
    Kind("linear, noisy", _noisy, _predict_linear, 0.5, 0.5, 0.1),
    Kind("net, interpolates", _net, _predict_net, 0.5, 0.3, 0.2),
)
