"""Small problems with known answers, shared by the tests."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def squared_errors(logits, batch):
    """Return the squared error of every output, [n, outputs]."""
    return (logits - batch["y"]) ** 2


@functools.partial(jax.jit, static_argnums=0)
def compiled_gradient(loss_fn, params, batch):
    """Return the gradient; one program for each loss and shape, whichever test asks."""
    return jax.grad(loss_fn)(params, batch)


class Problem(NamedTuple):
    """loss_fn(params, batch) -> mean loss, and the point and the data to evaluate it at."""

    loss_fn: Any
    params: Any
    batch: Any
    logits_fn: Any = None  # (params, batch) -> [n, outputs]

    def grad_fn(self, params, batch=None, term=None):
        """Return the gradient of loss + term(logits), by default on the whole batch."""
        batch = self.or_whole(batch)
        if term is None:
            with jax.disable_jit(False):  # a rule that runs eagerly is not about this gradient
                return compiled_gradient(self.loss_fn, params, batch)

        def loss(params):
            logits = self.logits_fn(params, batch)
            return jnp.mean(squared_errors(logits, batch)) + term(logits)

        return jax.grad(loss)(params)

    def aux_grad_fn(self, params, batch=None, term=None):
        """Return (gradient, params it was taken at)."""
        return self.grad_fn(params, batch, term), params

    def logits(self, params, batch=None):
        """Return the outputs for every example, [n, outputs]."""
        return self.logits_fn(params, self.or_whole(batch))

    def losses(self, params, batch=None):
        """Return the loss of every example, [n]."""
        errors = squared_errors(self.logits(params, batch), self.or_whole(batch))
        return jnp.mean(errors, axis=-1)

    def or_whole(self, batch):
        """Return the batch, or that of the problem for None."""
        return self.batch if batch is None else batch


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


def dense(layer, x):
    """Return x times the kernel plus the bias, broadcast over the leading axes in so many words."""
    y = x @ layer["kernel"]
    return y + jnp.expand_dims(layer["bias"], tuple(range(y.ndim - layer["bias"].ndim)))


def least_squares(seed=0, examples=8):
    """Return a linear regression whose float32 arithmetic is exact: integers and powers of two."""
    random = np.random.default_rng(seed)

    def integers(*shape):
        return jnp.asarray(random.integers(-4, 5, shape), jnp.float32)

    def loss_fn(params, batch):
        prediction = dense(params["layer"], batch["x"])
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
        prediction = dense(second, jnp.tanh(dense(first, batch["x"])))
        return jnp.mean((prediction - batch["y"]) ** 2)

    params = {
        "first": {"kernel": normal(inputs, hidden), "bias": normal(hidden)},
        "second": {"kernel": normal(hidden, 1), "bias": normal(1)},
    }
    batch = {"x": normal(examples, inputs), "y": normal(examples, 1)}
    return Problem(loss_fn, params, batch)


@functools.cache
def dense_losses(names, activation):
    """Return (loss_fn, logits_fn) of a net of dense layers; cached, so that programs are shared."""

    def logits_fn(params, batch):
        h = batch["x"]
        for name in names[:-1]:
            h = activation(dense(params[name], h))
        return dense(params[names[-1]], h)

    def loss_fn(params, batch):
        return jnp.mean(squared_errors(logits_fn(params, batch), batch))

    return loss_fn, logits_fn


@functools.cache
def dense_numbers(names, sizes, examples, seed):
    """Return (params, batch) of a net of dense layers in NumPy."""
    random = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return scale * random.normal(size=shape)

    params = {
        name: {"kernel": normal(inputs, outputs, scale=inputs**-0.5), "bias": normal(outputs)}
        for name, inputs, outputs in zip(names, sizes[:-1], sizes[1:], strict=True)
    }
    return params, {"x": normal(examples, sizes[0]), "y": normal(examples, sizes[-1])}


def dense_net(sizes=(3, 4, 2), examples=8, activation=jnp.tanh, dtype=jnp.float32, seed=0):
    """Return a net of dense layers with biases and its mean squared error.

    The first layer is named as a norm layer is, for methods that choose layers by their names.
    """
    names = ("LayerNorm_0", *(f"Dense_{i}" for i in range(len(sizes) - 2)))
    loss_fn, logits_fn = dense_losses(names, activation)
    numbers = dense_numbers(names, tuple(sizes), examples, seed)
    params, batch = jax.tree.map(lambda x: jnp.asarray(x, dtype), numbers)
    return Problem(loss_fn, params, batch, logits_fn)


def identity(h):
    return h


def exact_net(examples=8):
    """Return a net without activations whose float32 arithmetic is exact: small integers."""

    def whole(x):
        return jnp.round(3 * x)

    problem = dense_net(examples=examples, activation=identity, seed=1)
    params, batch = (jax.tree.map(whole, tree) for tree in (problem.params, problem.batch))
    return problem._replace(params=params, batch=batch)


def wide_net(width=128, examples=8192, inputs=64):
    """Return a net in which matrix products dominate, to count floating-point operations on."""
    return dense_net((inputs, width, width, width, 2), examples)
