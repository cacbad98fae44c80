"""Five optimiser steps of every method against an independent NumPy float64 implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from numpy_problem import (
    CLIP,
    NAMES,
    flat,
    jax_trajectory,
    largest_difference,
    length,
    nested,
    numpy_gradient,
    numpy_trajectory,
    perturbed_gradient,
)

from sam_jax import draws, optim

RHO, ETA, SEED = 0.2, 0.05, 3


def sam_epsilon(w, g, step, sub_batch):
    return {name: RHO * g[name] / length(g) for name in NAMES}


def asam_epsilon(w, g, step, sub_batch):
    t = {n: np.ones_like(w[n]) if "bias" in n else np.abs(w[n]) + ETA for n in NAMES}
    norm = length({n: t[n] * g[n] for n in NAMES})
    return {n: RHO * t[n] ** 2 * g[n] / norm for n in NAMES}


def average_sam_epsilon(w, g, step, sub_batch):
    # Only the random numbers come from JAX, with a key for each update and sub-batch.
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), step), sub_batch)
    z = flat(draws.random_like(key, nested(w)))
    return {n: RHO * z[n] / length(z) for n in NAMES}


METHODS = {
    "sam": (lambda: optim.sam(RHO), sam_epsilon),
    "asam": (lambda: optim.asam(RHO, eta=ETA), asam_epsilon),
    "average_sam": (lambda: optim.average_sam(RHO, jax.random.key(SEED)), average_sam_epsilon),
}


@pytest.mark.parametrize("m", [8, 2])
@pytest.mark.parametrize("method", METHODS)
def test_five_steps_equal_numpy(method, m):
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        make, epsilon_of = METHODS[method]
        transformation = make() if m == 8 else optim.m_sam(make(), m)
        result = jax_trajectory(transformation, problem)
        x, y = map(np.asarray, (problem.batch["x"], problem.batch["y"]))

        def reference(factor):
            gradient_of = perturbed_gradient(epsilon_of, m, x, y, factor)
            return numpy_trajectory(gradient_of, flat(problem.params))

        assert largest_difference(result, reference(1.0)) < 1e-10
        # Negative controls: no perturbation, and one in the opposite direction.
        for factor in (0.0, -1.0):
            assert largest_difference(result, reference(factor)) > 1e-3


def test_clipping_is_active_at_some_steps_and_idle_at_others():
    # Otherwise the comparison above would not tell the order of clipping and decay.
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        x, y = map(np.asarray, (problem.batch["x"], problem.batch["y"]))
        path = [flat(problem.params)]
        path += numpy_trajectory(perturbed_gradient(sam_epsilon, 8, x, y), path[0])[:-1]
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
