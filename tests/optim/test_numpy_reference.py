"""Five optimiser steps of every method against an independent NumPy float64 implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest

from sam_jax import optim, pytree

STEPS = 5
RHO, ETA, CLIP, WEIGHT_DECAY, RATE, MOMENTUM = 0.2, 0.05, 1.5, 0.01, 0.1, 0.9
SEED = 3
NAMES = ["bias1", "kernel1", "bias2", "kernel2"]


def numpy_gradient(w, x, y):
    """Gradient of mean((tanh(x K1 + b1) K2 + b2 - y)^2), by hand, one example after the other."""
    g = {name: np.zeros_like(w[name]) for name in NAMES}
    for x_i, y_i in zip(x, y, strict=True):
        h = np.tanh(x_i @ w["kernel1"] + w["bias1"])
        residual = h @ w["kernel2"] + w["bias2"] - y_i
        d_output = 2 * residual / len(x)
        d_hidden = (w["kernel2"] @ d_output) * (1 - h**2)
        g["kernel2"] += np.outer(h, d_output)
        g["bias2"] += d_output
        g["kernel1"] += np.outer(x_i, d_hidden)
        g["bias1"] += d_hidden
    return g


def length(tree):
    total = 0.0
    for name in NAMES:
        for entry in tree[name].ravel():
            total += entry**2
    return total**0.5


def sam_epsilon(w, g, step, sub_batch):
    return {name: RHO * g[name] / length(g) for name in NAMES}


def asam_epsilon(w, g, step, sub_batch):
    t = {n: np.ones_like(w[n]) if "bias" in n else np.abs(w[n]) + ETA for n in NAMES}
    norm = length({n: t[n] * g[n] for n in NAMES})
    return {n: RHO * t[n] ** 2 * g[n] / norm for n in NAMES}


def average_sam_epsilon(w, g, step, sub_batch):
    # Only the random numbers come from JAX, with a key for each update and sub-batch.
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), step), sub_batch)
    z = flat(pytree.random_like(key, nested(w)))
    return {n: RHO * z[n] / length(z) for n in NAMES}


def numpy_trajectory(epsilon_of, m, w, x, y, factor=1.0):
    """The parameters after each step; epsilon is multiplied by factor (the negative controls)."""
    velocity = {n: np.zeros_like(w[n]) for n in NAMES}
    trajectory = []
    for step in range(STEPS):
        total = {n: np.zeros_like(w[n]) for n in NAMES}
        count = len(x) // m
        for i in range(count):
            x_i, y_i = x[i * m : (i + 1) * m], y[i * m : (i + 1) * m]
            epsilon = epsilon_of(w, numpy_gradient(w, x_i, y_i), step, i)
            perturbed = {n: w[n] + factor * epsilon[n] for n in NAMES}
            g = numpy_gradient(perturbed, x_i, y_i)
            for n in NAMES:
                total[n] += g[n] / count
        clip = min(1.0, CLIP / length(total))
        new = {}
        for n in NAMES:
            g = total[n] * clip + WEIGHT_DECAY * w[n]
            velocity[n] = MOMENTUM * velocity[n] + g
            new[n] = w[n] - RATE * (g + MOMENTUM * velocity[n])  # PyTorch's Nesterov step
        w = new
        trajectory.append(w)
    return trajectory


def jax_trajectory(transformation, problem):
    tx = optax.chain(
        transformation,
        optax.clip_by_global_norm(CLIP),
        optax.add_decayed_weights(WEIGHT_DECAY),
        optax.sgd(RATE, momentum=MOMENTUM, nesterov=True),
    )

    @jax.jit
    def step(params, state):
        updates, state = tx.update(
            problem.grad_fn(params), state, params, grad_fn=problem.grad_fn, batch=problem.batch
        )
        return optax.apply_updates(params, updates), state

    params, state, trajectory = problem.params, tx.init(problem.params), []
    for _ in range(STEPS):
        params, state = step(params, state)
        trajectory.append(flat(params))
    return trajectory


def nested(w):
    return {
        layer: {kind: jnp.asarray(w[f"{kind}{i}"]) for kind in ("bias", "kernel")}
        for i, layer in ((1, "first"), (2, "second"))
    }


def flat(params):
    return {
        f"{kind}{i}": np.asarray(params[layer][kind])
        for i, layer in ((1, "first"), (2, "second"))
        for kind in ("bias", "kernel")
    }


METHODS = {
    "sam": (lambda: optim.sam(RHO), sam_epsilon),
    "asam": (lambda: optim.asam(RHO, eta=ETA), asam_epsilon),
    "average_sam": (lambda: optim.average_sam(RHO, jax.random.key(SEED)), average_sam_epsilon),
}


def largest_difference(a, b):
    return max(np.max(np.abs(p[n] - q[n])) for p, q in zip(a, b, strict=True) for n in NAMES)


@pytest.mark.parametrize("m", [8, 2])
@pytest.mark.parametrize("method", METHODS)
def test_five_steps_equal_numpy(method, m):
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        make, epsilon_of = METHODS[method]
        transformation = make() if m == 8 else optim.m_sam(make(), m)
        result = jax_trajectory(transformation, problem)
        arguments = (
            m,
            flat(problem.params),
            *map(np.asarray, (problem.batch["x"], problem.batch["y"])),
        )
        assert largest_difference(result, numpy_trajectory(epsilon_of, *arguments)) < 1e-10
        # Negative controls: no perturbation, and one in the opposite direction.
        for factor in (0.0, -1.0):
            wrong = numpy_trajectory(epsilon_of, *arguments, factor=factor)
            assert largest_difference(result, wrong) > 1e-3


def test_clipping_is_active_at_some_steps_and_idle_at_others():
    # Otherwise the comparison above would not tell the order of clipping and decay.
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        x, y = map(np.asarray, (problem.batch["x"], problem.batch["y"]))
        path = [flat(problem.params)]
        path += numpy_trajectory(sam_epsilon, 8, path[0], x, y)[:-1]
        norms = [
            length(numpy_gradient({n: w[n] + e[n] for n in NAMES}, x, y))
            for w in path
            for e in [sam_epsilon(w, numpy_gradient(w, x, y), 0, 0)]
        ]
        assert min(norms) < CLIP < max(norms)


def test_the_reference_gradient_is_the_derivative_of_the_loss():
    # Complex step: no subtraction, hence no rounding error, and no JAX.
    random = np.random.default_rng(0)
    shapes = {"bias1": 4, "kernel1": (3, 4), "bias2": 1, "kernel2": (4, 1)}
    w = {n: random.normal(size=shapes[n]) for n in NAMES}
    x, y = random.normal(size=(8, 3)), random.normal(size=(8, 1))
    gradient = numpy_gradient(w, x, y)
    for name in NAMES:
        for index in np.ndindex(w[name].shape):
            v = {n: w[n].astype(complex) for n in NAMES}
            v[name][index] += 1e-30j
            prediction = np.tanh(x @ v["kernel1"] + v["bias1"]) @ v["kernel2"] + v["bias2"]
            slope = np.mean((prediction - y) ** 2).imag / 1e-30
            np.testing.assert_allclose(gradient[name][index], slope, rtol=1e-12)
