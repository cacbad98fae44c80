"""GSAM and WSAM: five steps against NumPy, and their closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_close, assert_trees_equal, trees_close, update
from numpy_problem import (
    NAMES,
    flat,
    jax_trajectory,
    largest_difference,
    numpy_trajectory,
)
from numpy_vectors import both_gradients, dot, examples, plus

from sam_jax import optim, pytree

RHO, ALPHA, GAMMA, RATE, DECAY = 0.2, 0.6, 0.8, 0.1, 0.01
PENALTY = 0.4  # a = lambda / r of GNP


def falling_rate(step):
    """From RATE towards 0; optax's linear schedule would round to float32."""
    return RATE * (1 - 0.1 * step)


def gsam_rule(g, p, alpha=ALPHA):
    orthogonal = plus(g, p, -dot(g, p) / dot(p, p))
    return plus(p, orthogonal, -alpha)


def wsam_rule(g, p, gamma=GAMMA):
    # The gradient of (1 - 2 gamma) / (1 - gamma) L + gamma / (1 - gamma) L_p.
    return {n: ((1 - 2 * gamma) * g[n] + gamma * p[n]) / (1 - gamma) for n in NAMES}


def gradient_norm_penalty(g, p, a):
    """GNP: the clean and the perturbed gradient, interpolated with a = lambda / r."""
    return {n: (1 - a) * g[n] + a * p[n] for n in NAMES}


def falling_rho(step):
    return 0.05 + (0.3 - 0.05) * (1 - 0.1 * step)


LINKS = {
    "gsam": (
        lambda: optim.gsam(optim.gsam_rho(falling_rate, 0.05, 0.3, 0.0, RATE), ALPHA),
        falling_rho,
        gsam_rule,
        functools.partial(gsam_rule, alpha=0.0),  # SAM
    ),
    "wsam": (
        lambda: optim.wsam(RHO, GAMMA),
        lambda step: RHO,
        wsam_rule,
        functools.partial(wsam_rule, gamma=0.5),  # SAM
    ),
    "wsam as GNP": (
        lambda: optim.wsam(RHO, gamma=PENALTY / (1 + PENALTY)),
        lambda step: RHO,
        functools.partial(gradient_norm_penalty, a=PENALTY),
        functools.partial(gradient_norm_penalty, a=1.0),  # SAM
    ),
}


@pytest.mark.parametrize("m", [8, 2])
@pytest.mark.parametrize("name", LINKS)
def test_five_steps_equal_numpy(name, m):
    make, rho_of, rule, without_term = LINKS[name]
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        link = make() if m == 8 else optim.m_sam(make(), m)
        result = jax_trajectory(link, problem)
    x, y = examples(problem)

    def reference(rule, rho_of):
        def gradient_of(w, step):
            total = {n: 0.0 for n in NAMES}
            for part in np.split(np.arange(8), 8 // m):
                total = plus(total, rule(*both_gradients(w, x[part], y[part], rho_of(step))))
            return {n: total[n] * m / 8 for n in NAMES}

        return numpy_trajectory(gradient_of, flat(problem.params))

    assert largest_difference(result, reference(rule, rho_of)) < 1e-10
    # Negative controls: the method's own term dropped, and the rho of the step before.
    assert largest_difference(result, reference(without_term, rho_of)) > 1e-3
    late_rho = reference(rule, lambda step: rho_of(step - 1))
    assert (largest_difference(result, late_rho) > 1e-3) == (name == "gsam")


def test_gsam_subtracts_only_what_is_orthogonal_to_the_perturbed_gradient():
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        clean = problem.grad_fn(problem.params)
        perturbed, _ = update(optim.sam(RHO), problem)
        result, _ = update(optim.gsam(RHO, ALPHA), problem)
        subtracted = pytree.add(perturbed, result, -1.0)
        size = float(pytree.norm(subtracted) * pytree.norm(perturbed))
        assert size > 1e-3
        assert abs(float(pytree.vdot(subtracted, perturbed))) < 1e-12 * size
        # It is part of the clean gradient: that much less of the step lowers the clean loss.
        assert float(pytree.vdot(subtracted, clean)) > 1e-3


def test_the_weights_at_which_the_methods_are_sam_or_sgd():
    problem = problems.tanh_net()
    plain, (sam, _) = problem.grad_fn(problem.params), update(optim.sam(RHO), problem)
    assert_trees_equal(update(optim.gsam(RHO, alpha=0.0), problem)[0], sam)
    assert_trees_close(update(optim.wsam(RHO, gamma=0.5), problem)[0], sam)
    assert_trees_equal(update(optim.wsam(RHO, gamma=0.0), problem)[0], plain)
    assert not trees_close(sam, plain, 1e-3)


def test_gsam_rho_follows_the_learning_rate_between_its_ends():
    warm_up = optax.join_schedules(
        [optax.linear_schedule(0.0, 0.4, 4), optax.linear_schedule(0.4, 0.0, 4)], [4]
    )
    schedule = optim.gsam_rho(warm_up, 0.1, 0.7, 0.1, 0.4)
    values = [float(schedule(step)) for step in range(9)]
    # Learning rates 0, 0.1, ..., 0.4, ..., 0; the lowest, 0, lies below learning_rate_min.
    np.testing.assert_allclose(values, [0.1, 0.1, 0.3, 0.5, 0.7, 0.5, 0.3, 0.1, 0.1], atol=1e-6)
    assert float(optim.gsam_rho(0.25, 0.1, 0.7, 0.1, 0.4)(3)) == pytest.approx(0.4)


BAD_ARGUMENTS = {
    "alpha": (lambda: optim.gsam(RHO, alpha=-1.0), "alpha must be zero or positive"),
    "gamma": (lambda: optim.wsam(RHO, gamma=1.0), r"gamma must lie in \[0, 1\), got 1.0"),
    "rhos": (lambda: optim.gsam_rho(falling_rate, 0.2, 0.1, 0.0, 1.0), "rho_min must not exceed"),
    "rates": (lambda: optim.gsam_rho(falling_rate, 0.1, 0.2, 0.1, 0.1), "a constant rho"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_a_bad_argument_says_what_to_do(name):
    make, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        make()
