"""The adaptive steps of the ascent against NumPy, against known maxima and against fixed steps."""

import math

import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from scipy.optimize import brentq

from sam_jax import metrics
from sam_jax.metrics.sharpness import ascents, balls

KEY = jax.random.key(3)
BALLS = [("l2", False, "ball"), ("linf", False, "ball"), ("linf", True, "ball")] + [
    ("l2", True, metric) for metric in balls.METRICS
]


def sharpness(loss_fn, w, batches=None, **arguments):
    """The sharpness in float64, as a number."""
    with jax.enable_x64(True):
        w = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), w)
        batches = np.ones((1, 4)) if batches is None else batches
        measure = jax.jit(lambda w: metrics.adversarial_sharpness(loss_fn, w, batches, **arguments))
        return float(measure(w).sharpness)


def numpy_ascent(
    value, gradient, unit_step, project, start, steps, *, length, enough=0.75, momentum=0.25
):
    """Algorithm 1 of the paper, with the first step without momentum; the losses of all points."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    marks = [math.ceil(round(p * steps, 9)) for p in shares[1:]]
    points, losses = [start], [value(start)]
    best, best_loss = start, losses[0]
    before, mark = start, 0
    increases, length_there, best_there = 0, length, best_loss
    for k in range(steps):
        here, here_loss = points[-1], losses[-1]
        if k in marks and k > 0:
            unchanged = length == length_there and best_loss == best_there
            length_there, best_there = length, best_loss
            if increases < enough * (k - mark) or unchanged:
                length, here, here_loss = length / 2, best, best_loss
            increases, mark = 0, k
        aim = project(here + length * unit_step(gradient(here)))
        alpha = 1 - momentum if k else 1.0
        there = project(here + alpha * (aim - here) + (1 - alpha) * (here - before))
        before = here
        points.append(there)
        losses.append(value(there))
        increases += losses[-1] > here_loss
        if losses[-1] > best_loss:
            best, best_loss = there, losses[-1]
    return np.array(losses)


def bumpy(w):
    """Many small hills on a slope, with the gradient; nowhere flat, nowhere convex for long."""
    slope = np.linspace(-1, 1, len(w))
    return np.sin(9 * w).sum() + slope @ w - w @ w, 9 * np.cos(9 * w) + slope - 2 * w


@pytest.mark.parametrize(("norm", "adaptive", "metric"), BALLS)
@pytest.mark.parametrize("steps", [1, 7, 20, 40])
def test_every_loss_is_that_of_the_algorithm_in_numpy(norm, adaptive, metric, steps):
    rng = np.random.default_rng(0)
    w, rho, length = rng.normal(size=6), 0.6, 0.9
    c = np.abs(w) if adaptive else np.ones(6)

    def unit_step(g):
        if norm == "linf":
            return c * np.sign(g)
        step = c * (c * g) / np.linalg.norm(c * g)
        return step if metric == "ball" else np.linalg.norm(step) * g / np.linalg.norm(g)

    def project(d):
        if norm == "linf":
            return np.clip(d, -rho * c, rho * c)
        if np.linalg.norm(d / c) <= rho:
            return d
        if metric == "ball":
            return d * rho / np.linalg.norm(d / c)
        distance = lambda m: np.linalg.norm(c * d / (c**2 + m)) - rho  # noqa: E731
        return c**2 * d / (c**2 + brentq(distance, 0, 1e6, xtol=1e-15, rtol=1e-15))

    expected = numpy_ascent(
        lambda d: bumpy(w + d)[0],
        lambda d: bumpy(w + d)[1],
        unit_step,
        project,
        np.zeros(6),
        steps,
        length=length,
    )
    with jax.enable_x64(True):
        loss_fn = lambda p, batch: (  # noqa: E731
            jnp.sum(jnp.sin(9 * p)) + jnp.linspace(-1, 1, 6) @ p - p @ p
        )
        ball = balls.Ball(rho, norm, jnp.asarray(c) if adaptive else None, metric)
        climb = jax.jit(ascents.adaptive_steps(loss_fn, jnp.asarray(w), ball, steps, length))
        losses = np.asarray(climb(jnp.zeros(6), None))
    # The path is chaotic, so that it also tells every rule of halving from its neighbours.
    np.testing.assert_allclose(losses, expected, rtol=1e-6 if metric == "euclidean" else 1e-9)


@pytest.mark.parametrize("changed", [{"enough": 0.5}, {"enough": 1.1}, {"momentum": 0.0}])
def test_the_losses_that_are_compared_depend_on_every_rule(changed):
    # Otherwise the comparison above would say nothing about halving and momentum.
    w = np.random.default_rng(0).normal(size=6)
    problem = {
        "value": lambda d: bumpy(w + d)[0],
        "gradient": lambda d: bumpy(w + d)[1],
        "unit_step": np.sign,
        "project": lambda d: np.clip(d, -0.6, 0.6),
        "start": np.zeros(6),
        "steps": 40,
        "length": 0.9,
    }
    assert np.abs(numpy_ascent(**problem) - numpy_ascent(**problem, **changed)).max() > 0.1


def test_checkpoints_are_those_of_the_paper():
    # p = .22, .41, .57, .70, .80, .87, .93, .99
    assert ascents.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert ascents.checkpoints(1) == [] and ascents.checkpoints(2) == [1]
    for steps in range(1, 60):
        windows = ascents.checkpoint_windows(steps)
        marks = ascents.checkpoints(steps)
        assert len(windows) == steps and [k for k in range(steps) if windows[k]] == marks
        assert sum(windows) == (marks[-1] if marks else 0)


@pytest.mark.parametrize(("norm", "adaptive", "metric"), BALLS)
def test_one_step_reaches_the_maximum_of_a_linear_loss(norm, adaptive, metric):
    slope, w = np.array([3.0, -1.0, 0.5]), np.array([2.0, -0.5, 0.1])
    c = np.abs(w) if adaptive else np.ones(3)
    dual = np.linalg.norm(c * slope, 2 if norm == "l2" else 1)
    rise = sharpness(
        lambda p, batch: p @ slope,
        w,
        rho=0.1,
        norm=norm,
        adaptive=adaptive,
        metric=metric,
        step_rule="adaptive",
        steps=1 if metric == "ball" else 200,
    )
    np.testing.assert_allclose(rise, 0.1 * dual, rtol=1e-12 if metric == "ball" else 1e-4)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_maximum_over_a_ball_is_found(adaptive):
    matrix, w, rho = minima.spd_matrix(6), np.array([1.5, -0.7, 0.2, 0.05, -1.0, 0.4]), 0.5
    c = np.abs(w) if adaptive else np.ones(6)
    exact = minima.largest_rise(c[:, None] * matrix * c, c * (matrix @ w), rho)
    found = sharpness(
        minima.quadratic(matrix, np.zeros(6)),
        w,
        rho=rho,
        steps=100,
        adaptive=adaptive,
        step_rule="adaptive",
    )
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_halving_finds_a_maximum_that_equal_steps_jump_over():
    # A ridge across the ball: steps of length rho swing from side to side of it for ever.
    loss_fn = lambda w, batch: jnp.mean(batch) * (w[1] - 25 * (w[0] - 0.3) ** 2)  # noqa: E731
    rho, steps = 1.0, 40
    angle = brentq(lambda a: 50 * (np.sin(a) - 0.3) + np.tan(a), 0.0, 1.0)
    exact = np.cos(angle) - 25 * (np.sin(angle) - 0.3) ** 2 + 25 * 0.09
    rise = lambda rule: sharpness(  # noqa: E731
        loss_fn, np.zeros(2), rho=rho, steps=steps, step_rule=rule
    )
    assert rise("fixed") < exact - 0.05
    assert exact - 2e-3 < rise("adaptive") <= exact * (1 + 1e-12)


def test_the_best_point_is_kept_and_the_start_is_one_of_them():
    # Down on every side: the one step of SAM descends, and the adaptive rule stays.
    loss_fn = lambda w, batch: jnp.mean(batch) * (0.1 * w - 0.5 * w**2)  # noqa: E731
    assert sharpness(loss_fn, 0.0, rho=1.0, steps=1) < 0
    assert sharpness(loss_fn, 0.0, rho=1.0, steps=1, step_rule="adaptive") == 0
    found = sharpness(loss_fn, 0.0, rho=1.0, steps=60, step_rule="adaptive")
    np.testing.assert_allclose(found, 0.1**2 / 2, rtol=0.05)


@pytest.mark.parametrize(("norm", "rho"), [("linf", 0.3), ("linf", 0.6), ("l2", 3.0)])
def test_adaptive_steps_find_more_than_equal_ones(norm, rho):
    """Twenty gradients on 24 networks; equal steps of the default length, the radius."""

    @jax.jit
    def measure(params, batches):
        rise = lambda rule: (  # noqa: E731
            metrics.adversarial_sharpness(
                minima.mlp_loss, params, batches, rho=rho, steps=20, norm=norm, step_rule=rule
            ).sharpness
        )
        return rise("adaptive") / rise("fixed") - 1

    gains = np.array(
        [
            measure(minima.mlp_params(seed=seed), minima.mlp_batches(n=2, m=32, seed=seed))
            for seed in range(24)
        ]
    )
    # 1.3 +- 0.5 %, 6.3 +- 1.6 % and 0.2 +- 0.1 %; hardly a network where it finds less.
    assert gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(24)
    assert np.mean(gains > -1e-5) > 0.9


def test_restarts_masks_and_traced_arguments():
    batches = minima.mlp_batches()

    @jax.jit
    def measure(params, rho, step_size, key):
        shared = {"rho": rho, "steps": 6, "step_size": step_size, "step_rule": "adaptive"}
        shared |= {"mask": {"first": True, "second": False}}
        rise = lambda restarts: metrics.adversarial_sharpness(  # noqa: E731
            minima.mlp_loss, params, batches, restarts=restarts, key=key, **shared
        )
        return rise(0), rise(3)

    none, three = measure(minima.mlp_params(), 0.5, 0.3, KEY)
    assert np.all(none.per_batch_perturbed_loss <= three.per_batch_perturbed_loss + 1e-6)
    assert none.sharpness > 0
    frozen = metrics.adversarial_sharpness(
        minima.mlp_loss, minima.mlp_params(), batches, rho=0.0, step_rule="adaptive", steps=3
    )
    assert frozen.sharpness == 0


def test_non_finite_loss_spoils_only_its_batch():
    loss_fn = lambda w, batch: jnp.mean(batch) * jnp.sum(w**2)  # noqa: E731
    batches = np.array([[1.0, 1.0], [np.nan, 1.0], [2.0, 2.0]])
    result = metrics.adversarial_sharpness(
        loss_fn, jnp.ones(3), batches, steps=8, step_rule="adaptive"
    )
    assert np.isnan(result.per_batch_perturbed_loss).tolist() == [False, True, False]


def test_cost_is_that_of_fixed_steps():
    calls = []

    def loss_fn(params, batch):
        jax.debug.callback(lambda: calls.append(1))
        return minima.mlp_loss(params, batch)

    arguments = {"steps": 5, "restarts": 2, "key": KEY}
    for rule in ascents.STEP_RULES:
        calls.clear()
        jax.block_until_ready(
            metrics.adversarial_sharpness(
                loss_fn, minima.mlp_params(), minima.mlp_batches(n=2), step_rule=rule, **arguments
            )
        )
        jax.effects_barrier()
        assert len(calls) == 2 * (1 + 2) * (5 + 1)


def test_errors():
    call = lambda **arguments: metrics.adversarial_sharpness(  # noqa: E731
        minima.mlp_loss, minima.mlp_params(), minima.mlp_batches(), **arguments
    )
    with pytest.raises(ValueError, match=r"step_rule must be one of \['fixed', 'adaptive'\]"):
        call(step_rule="apgd")
    with pytest.raises(ValueError, match='shortens its steps itself.*step_rule="fixed"'):
        call(step_rule="adaptive", step_size=lambda k: 0.1)
    with pytest.raises(ValueError, match="step_size must be a positive number"):
        call(step_rule="adaptive", step_size=-1.0)
