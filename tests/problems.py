"""Small problems with known answers, shared by the tests."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    """loss_fn(params, batch) -> mean loss, and the point and the data to evaluate it at."""

    loss_fn: Any
    params: Any
    batch: Any

    def grad_fn(self, params, batch=None):
        """Return the gradient on `batch`, by default on the whole batch of the problem."""
        return jax.grad(self.loss_fn)(params, self.batch if batch is None else batch)

    def aux_grad_fn(self, params, batch=None):
        """Return (gradient, params it was taken at)."""
        return self.grad_fn(params, batch), params


def quadratic(dimension=5, seed=0):
    """Return (loss_fn(w) = w'Hw / 2, H, w) with H symmetric positive definite."""
    random = np.random.default_rng(seed)
    a = random.normal(size=(dimension, dimension))
    hessian = jnp.asarray(a @ a.T / dimension + np.eye(dimension))
    w = jnp.asarray(random.normal(size=dimension))
    return lambda w: w @ hessian @ w / 2, hessian, w


def exponential(w):
    """Return a loss that rises faster on one side of every point than on the other."""
    return jnp.sum(jnp.exp(w))


def linear_net(params, batch):
    """Mean squared error of x -> b * (a . x) + bias, unchanged by a -> c a, b -> b / c."""
    prediction = batch["x"] @ params["a"] * params["b"] + params["bias"]
    return jnp.mean((prediction - batch["y"]) ** 2)


def least_squares(seed=0, examples=8):
    """Return a linear regression whose float32 arithmetic is exact: integers and powers of two."""
    random = np.random.default_rng(seed)

    def integers(*shape):
        return jnp.asarray(random.integers(-4, 5, shape), jnp.float32)

    def loss_fn(params, batch):
        prediction = batch["x"] @ params["layer"]["kernel"] + params["layer"]["bias"]
        return jnp.mean((prediction - batch["y"]) ** 2)

    params = {"layer": {"kernel": integers(3, 2), "bias": integers(2)}}
    return Problem(loss_fn, params, {"x": integers(examples, 3), "y": integers(examples, 2)})


def tanh_net(seed=0, dtype=jnp.float32, inputs=3, hidden=4, examples=8):
    """Return a two-layer tanh regression net with biases."""
    random = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape), dtype)

    def loss_fn(params, batch):
        first, second = params["first"], params["second"]
        h = jnp.tanh(batch["x"] @ first["kernel"] + first["bias"])
        prediction = h @ second["kernel"] + second["bias"]
        return jnp.mean((prediction - batch["y"]) ** 2)

    params = {
        "first": {"kernel": normal(inputs, hidden), "bias": normal(hidden)},
        "second": {"kernel": normal(hidden, 1), "bias": normal(1)},
    }
    batch = {"x": normal(examples, inputs), "y": normal(examples, 1)}
    return Problem(loss_fn, params, batch)


def wide_net(width=128, examples=4096, inputs=64):
    """Return a loss in which matrix products dominate, to count floating-point operations on."""
    random = np.random.default_rng(0)

    def loss_fn(params, batch):
        h = batch
        for kernel in params:
            h = jnp.tanh(h @ kernel)
        return jnp.mean(h**2)

    params = [
        jnp.asarray(random.normal(size=shape) / width**0.5, jnp.float32)
        for shape in ((inputs, width), (width, width), (width, width))
    ]
    batch = jnp.asarray(random.normal(size=(examples, inputs)), jnp.float32)
    return Problem(loss_fn, params, batch)
