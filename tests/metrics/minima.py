"""Losses with known sharpness, shared by the tests of the instruments."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import brentq


def spd_matrix(d, seed=0):
    """A positive definite matrix with eigenvalues 0.5 ... 3."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    return basis @ np.diag(np.linspace(0.5, 3.0, d)) @ basis.T


def quadratic(matrix, vector):
    """L(w) = w'Aw / 2 + b'w, times the mean of the batch where there is one."""

    def loss_fn(w, batch=1.0):
        return jnp.mean(batch) * (0.5 * w @ matrix @ w + vector @ w)

    return loss_fn


def mlp_loss(params, batch):
    """Cross entropy of a tanh network 2-6-2, without biases at its output."""
    hidden = jnp.tanh(batch["x"] @ params["first"]["kernel"] + params["first"]["bias"][None])
    logits = hidden @ params["second"]["kernel"]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), batch["y"][:, None], 1))


def mlp_params(dtype=jnp.float32, seed=3):
    """The 30 parameters of `mlp_loss`."""
    rng = np.random.default_rng(seed)
    return {
        "first": {
            "kernel": jnp.asarray(rng.normal(size=(2, 6)), dtype),
            "bias": jnp.asarray(rng.normal(size=6), dtype),
        },
        "second": {"kernel": jnp.asarray(rng.normal(size=(6, 2)), dtype)},
    }


def mlp_batches(n=3, m=16, dtype=jnp.float32, seed=1):
    """n batches of m points with noisy labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, m, 2))
    y = (x[..., 0] * x[..., 1] + 0.5 * rng.normal(size=(n, m)) > 0).astype(np.int32)
    return {"x": jnp.asarray(x, dtype), "y": jnp.asarray(y)}


def mean_mlp_loss(params, batches):
    """The mean over all batches by vmap, not the loop of the instruments."""
    return jnp.mean(jax.vmap(mlp_loss, (None, 0))(params, batches))


def dense_derivatives(loss_fn, params):
    """Gradient and dense Hessian over the raveled parameters, as NumPy arrays."""
    flat, unravel = ravel_pytree(params)
    loss = lambda w: loss_fn(unravel(w))  # noqa: E731
    derivatives = jax.jit(lambda w: (jax.grad(loss)(w), jax.hessian(loss)(w)))
    return jax.tree.map(np.asarray, derivatives(flat))


def largest_rise(matrix, gradient, rho):
    """max over ||delta|| <= rho of g'delta + delta'A delta / 2, from its secular equation."""
    eigenvalues, basis = np.linalg.eigh(matrix)
    components = basis.T @ gradient
    length = lambda shift: np.linalg.norm(components / (shift - eigenvalues))  # noqa: E731
    top = eigenvalues[-1]
    shift = brentq(lambda s: length(s) - rho, top + 1e-12, top + 1e6, xtol=1e-14)
    delta = components / (shift - eigenvalues)
    return components @ delta + 0.5 * eigenvalues @ delta**2
