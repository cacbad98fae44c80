"""The ascent of adversarial sharpness: schedules, masks, balls, restarts."""

import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from sam_jax import metrics
from sam_jax.metrics.sharpness import balls
from sam_jax.metrics.sharpness.adversarial import halved_by_quarters

KEY = jax.random.key(3)
ONES = np.ones((1, 4))


def sharpness(loss_fn, w, batches=ONES, **arguments):
    """The sharpness in float64, as a number."""
    with jax.enable_x64(True):
        w = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), w)
        measure = jax.jit(lambda w: metrics.adversarial_sharpness(loss_fn, w, batches, **arguments))
        return float(measure(w).sharpness)


def linear(slopes):
    def loss_fn(p, batch):
        terms = jax.tree.map(lambda w, slope: jnp.sum(w * slope), p, slopes)
        return jnp.mean(batch) * sum(jax.tree.leaves(terms))

    return loss_fn


def test_step_sizes_follow_a_schedule():
    slope = np.array([1.0, 2.0, -2.0])  # norm 3
    taken = lambda size, steps: (  # noqa: E731
        sharpness(linear(slope), np.ones(3), rho=9.0, steps=steps, step_size=size) / 3
    )
    np.testing.assert_allclose(taken(lambda k: 0.1 * (k + 1), 4), 0.1 + 0.2 + 0.3 + 0.4, rtol=1e-12)
    quarters = halved_by_quarters(0.8, 6)  # the quarters begin at steps 0, 1.5, 3, 4.5
    np.testing.assert_allclose(taken(quarters, 6), 0.8 + 0.8 + 0.4 + 0.4 + 0.2 + 0.1, rtol=1e-12)
    np.testing.assert_allclose(taken(lambda k: 0.2, 5), taken(0.2, 5), rtol=1e-14)
    with pytest.raises(ValueError, match="step_size must be a positive number"):
        halved_by_quarters(-1.0, 6)
    with pytest.raises(ValueError, match="steps must be an integer"):
        halved_by_quarters(1.0, 0)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 8, 10, 20, 100])
def test_quarters_hold_the_step_on_their_border(steps):
    # The released code compares k / n with the quarters by <=, in floating point.
    taken = jax.vmap(halved_by_quarters(1.0, steps))(jnp.arange(steps))
    shares = np.arange(steps) / steps
    released = np.select([shares <= 0.25, shares <= 0.5, shares <= 0.75], [1, 1 / 2, 1 / 4], 1 / 8)
    np.testing.assert_array_equal(taken, released)
    if steps % 4 == 0:  # elsewhere no step lies on a border
        assert np.any(taken != 0.5 ** np.floor(4 * shares))


def test_shrinking_steps_find_a_maximum_that_equal_steps_jump_over():
    # A ridge across the ball: steps of length rho swing from side to side of it for ever.
    loss_fn = lambda w, batch: jnp.mean(batch) * (w[1] - 25 * (w[0] - 0.3) ** 2)  # noqa: E731
    rho, steps = 1.0, 40
    # The maximum lies on the circle (sin a, cos a), where the derivative along it vanishes.
    angle = brentq(lambda a: 50 * (np.sin(a) - 0.3) + np.tan(a), 0.0, 1.0)
    exact = np.cos(angle) - 25 * (np.sin(angle) - 0.3) ** 2 + 25 * 0.09
    equal = sharpness(loss_fn, np.zeros(2), rho=rho, steps=steps)
    shrinking = sharpness(
        loss_fn, np.zeros(2), rho=rho, steps=steps, step_size=lambda k: 0.5 * 0.9**k
    )
    assert equal < exact - 0.05
    np.testing.assert_allclose(shrinking, exact, rtol=1e-6)


def test_masked_perturbation_has_the_whole_radius():
    # Dividing by the norm over all leaves would leave rho * 5 / 13 for the chosen one.
    slopes = {"a": np.array([3.0, 4.0]), "b": {"c": np.array([12.0])}}
    w = jax.tree.map(np.ones_like, slopes)
    rise = lambda mask: sharpness(linear(slopes), w, rho=0.1, mask=mask)  # noqa: E731
    np.testing.assert_allclose(rise({"a": True, "b": False}), 0.1 * 5, rtol=1e-12)
    np.testing.assert_allclose(rise({"a": False, "b": {"c": True}}), 0.1 * 12, rtol=1e-12)
    np.testing.assert_allclose(rise(lambda p: {"a": True, "b": False}), 0.1 * 5, rtol=1e-12)
    np.testing.assert_allclose(rise(None), 0.1 * 13, rtol=1e-12)
    np.testing.assert_allclose(rise(True), rise(None), rtol=1e-12)


def test_masked_ascent_moves_the_chosen_leaves_only():
    matrix = minima.spd_matrix(6)
    split = lambda w: {"a": w[:4], "b": w[4:]}  # noqa: E731
    joined = lambda p, batch: minima.quadratic(matrix, np.zeros(6))(  # noqa: E731
        jnp.concatenate([p["a"], p["b"]]), batch
    )
    w = np.linspace(0.5, 1.5, 6)
    many = sharpness(joined, split(w), rho=0.5, steps=300, mask={"a": True, "b": False})
    np.testing.assert_allclose(
        many, minima.largest_rise(matrix[:4, :4], (matrix @ w)[:4], 0.5), rtol=1e-6
    )
    assert many < minima.largest_rise(matrix, matrix @ w, 0.5) - 1e-2


def test_box_has_its_own_steepest_ascent():
    slope, w = np.array([3.0, -1.0, 0.5]), np.array([2.0, -0.5, 0.0])
    rise = lambda **kw: sharpness(linear(slope), w, rho=0.1, norm="linf", **kw)  # noqa: E731
    np.testing.assert_allclose(rise(), 0.1 * np.sum(np.abs(slope)), rtol=1e-12)
    np.testing.assert_allclose(rise(adaptive=True), 0.1 * np.sum(np.abs(w * slope)), rtol=1e-12)
    np.testing.assert_allclose(rise(steps=5, step_size=0.03), rise(), rtol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
def test_box_maximum_of_a_convex_loss_is_at_a_corner(adaptive):
    matrix, w, rho = minima.spd_matrix(6), np.linspace(-0.4, 0.6, 6), 0.5
    corners = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    deltas = rho * corners * (np.abs(w) if adaptive else 1)
    rises = deltas @ matrix @ w + 0.5 * np.sum(deltas @ matrix * deltas, axis=1)
    found = sharpness(
        minima.quadratic(matrix, np.zeros(6)),
        w,
        rho=rho,
        steps=10,
        norm="linf",
        adaptive=adaptive,
        restarts=20,
        key=KEY,
    )
    np.testing.assert_allclose(found, rises.max(), rtol=1e-12)


@pytest.mark.parametrize("metric", balls.METRICS)
def test_adaptive_ascent_reaches_the_maximum_over_the_ellipsoid(metric):
    matrix, w, rho = minima.spd_matrix(6), np.array([1.5, -0.7, 0.2, 0.05, -1.0, 0.4]), 0.5
    c = np.abs(w)
    # In the coordinates delta / c the ellipsoid is the ball.
    exact = minima.largest_rise(c[:, None] * matrix * c, c * (matrix @ w), rho)
    loss_fn = minima.quadratic(matrix, np.zeros(6))
    rise = lambda steps: sharpness(  # noqa: E731
        loss_fn, w, rho=rho, steps=steps, adaptive=True, metric=metric
    )
    np.testing.assert_allclose(rise(300), exact, rtol=1e-6)
    assert rise(1) < exact * (1 - 1e-3)
    # Not the unscaled ball, nor half of this one.
    assert abs(minima.largest_rise(matrix, matrix @ w, rho) / exact - 1) > 0.1


def test_adaptive_step_and_projection_must_share_their_metric():
    # The step of one metric with the projection of the other, as released, stops below the maximum.
    matrix, w, rho = minima.spd_matrix(6), np.array([1.5, -0.7, 0.2, 0.05, -1.0, 0.4]), 0.5
    c = np.abs(w)
    exact = minima.largest_rise(c[:, None] * matrix * c, c * (matrix @ w), rho)
    with jax.enable_x64(True):
        ball, round_ball = (balls.Ball(rho, "l2", jnp.asarray(c), m) for m in balls.METRICS)
        delta, best = jnp.zeros(6), -np.inf
        ascend = jax.jit(
            lambda d: balls.project(
                round_ball, d + rho * balls.steepest_ascent(ball, matrix @ (w + d))
            )
        )
        for _ in range(300):
            delta = ascend(delta)
            best = max(best, float(delta @ matrix @ w + 0.5 * delta @ matrix @ delta))
    assert best < exact * (1 - 1e-3)


def test_adaptive_first_step_is_the_maximum_of_a_linear_loss():
    slope, w = np.array([3.0, -4.0, 7.0]), np.array([-2.0, 0.5, 0.0])
    rise = sharpness(linear(slope), w, rho=0.1, adaptive=True)
    np.testing.assert_allclose(rise, 0.1 * np.linalg.norm(w * slope), rtol=1e-12)


@pytest.mark.parametrize("metric", balls.METRICS)
@pytest.mark.parametrize("norm", balls.NORMS)
def test_adaptive_ball_fixes_weights_that_are_zero(norm, metric):
    w = {"moves": np.array([1.0, -2.0]), "fixed": np.zeros(3)}
    slopes = {"moves": np.array([0.1, 0.1]), "fixed": np.full(3, 1e3)}
    arguments = {"norm": norm, "adaptive": True, "metric": metric, "rho": 0.1, "steps": 3}
    rise = sharpness(linear(slopes), w, restarts=2, key=KEY, **arguments)
    dual = {"l2": np.hypot(0.1, 0.2), "linf": 0.1 + 0.2}[norm]
    if (norm, metric) == ("l2", "euclidean"):  # creeps along the surface
        assert 0.9 * 0.1 * dual < rise <= 0.1 * dual * (1 + 1e-12)
    else:
        np.testing.assert_allclose(rise, 0.1 * dual, rtol=1e-12)
    nothing_moves = sharpness(linear(slopes), jax.tree.map(np.zeros_like, w), **arguments)
    assert nothing_moves == 0


def relu_loss(params, batch):
    logits = jax.nn.relu(batch["x"] @ params["first"]) @ params["second"]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), batch["y"][:, None], 1))


@pytest.mark.parametrize("norm", balls.NORMS)
def test_adaptive_sharpness_does_not_see_a_rescaling_of_the_network(norm):
    rng = np.random.default_rng(0)
    w = {"first": rng.normal(size=(2, 6)), "second": rng.normal(size=(6, 2))}
    factors = 2.0 ** rng.integers(-3, 4, size=6)  # every hidden unit by its own
    rescaled = {"first": w["first"] * factors, "second": w["second"] / factors[:, None]}
    with jax.enable_x64(True):
        batches = minima.mlp_batches(dtype=jnp.float64)
    arguments = {"rho": 0.2, "steps": 4, "norm": norm}
    values = [sharpness(relu_loss, p, batches, adaptive=True, **arguments) for p in (w, rescaled)]
    np.testing.assert_allclose(*values, rtol=1e-10)
    seen = [sharpness(relu_loss, p, batches, **arguments) for p in (w, rescaled)]
    assert abs(seen[1] / seen[0] - 1) > 0.1


def test_restarts_find_the_higher_of_two_hills():
    # From zero the ascent climbs the small hill at 0.5; the large one, at -0.7, is behind a valley.
    def loss_fn(w, batch):
        hills = jnp.exp(-50 * (w - 0.5) ** 2) + 3 * jnp.exp(-50 * (w + 0.7) ** 2)
        return jnp.mean(batch) * hills

    arguments = {"rho": 1.0, "steps": 40, "step_size": lambda k: 0.2 * 0.85**k}
    first = sharpness(loss_fn, 0.2, **arguments)
    best = sharpness(loss_fn, 0.2, restarts=8, key=KEY, **arguments)
    at_start = np.exp(-50 * 0.09) + 3 * np.exp(-50 * 0.81)
    np.testing.assert_allclose(first, 1 - at_start, rtol=1e-3)
    np.testing.assert_allclose(best, 3 - at_start, rtol=1e-3)


def test_every_loss_below_zero_is_found_and_the_restarts_compare_losses():
    # A search for the best that began at zero would never find a loss below it.
    loss_fn = lambda w, batch: jnp.mean(batch) * (w @ np.array([3.0, 4.0]) - 100)  # noqa: E731
    with jax.enable_x64(True):
        result = metrics.adversarial_sharpness(
            loss_fn, jnp.zeros(2), ONES, rho=0.1, restarts=3, key=KEY, steps=2
        )
    np.testing.assert_allclose(result.perturbed_loss, -99.5, rtol=1e-12)
    np.testing.assert_allclose(result.sharpness, 0.5, rtol=1e-10)


def test_batch_without_errors_still_has_a_sharpness():
    # Two examples that stay on the right side within the ball: the error is zero everywhere.
    loss_fn = lambda w, margins: jnp.mean(jnp.log1p(jnp.exp(-margins * w)))  # noqa: E731
    margins, w, rho = np.array([[2.0, 3.0]]), 2.0, 0.5
    found = sharpness(loss_fn, w, margins, rho=rho, restarts=2, key=KEY)
    value = lambda point: np.mean(np.log1p(np.exp(-margins * point)))  # noqa: E731
    assert w - rho > 0
    np.testing.assert_allclose(found, value(w - rho) - value(w), rtol=1e-10)
    assert found > 0 > -value(w)  # the latter is what counting errors made of it


@jax.jit
def RESTARTED(params, batches, rho, key):  # noqa: N802
    return [
        metrics.adversarial_sharpness(
            minima.mlp_loss, params, batches, rho=rho, steps=2, restarts=restarts, key=key
        )
        for restarts in (0, 1, 4)
    ]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rho=st.floats(0.01, 3.0))
def test_more_restarts_never_find_less(seed, rho):
    none, one, four = RESTARTED(
        minima.mlp_params(seed=seed), minima.mlp_batches(), rho, jax.random.key(seed)
    )
    # The same ascents, compiled apart: equal up to float32 rounding, for every batch.
    assert np.all(none.per_batch_perturbed_loss <= one.per_batch_perturbed_loss + 1e-5)
    assert np.all(one.per_batch_perturbed_loss <= four.per_batch_perturbed_loss + 1e-5)
    np.testing.assert_allclose(none.per_batch_loss, four.per_batch_loss, rtol=1e-6)


def test_restarts_depend_on_the_key_and_on_the_batch():
    # Flat but for a ripple too fine to climb: every start ends elsewhere.
    loss_fn = lambda w, batch: jnp.mean(batch) * jnp.sin(1e3 * w @ w)  # noqa: E731
    measure = jax.jit(
        lambda key: (
            metrics.adversarial_sharpness(
                loss_fn, jnp.ones(3), np.ones((3, 2)), steps=1, step_size=1e-6, restarts=1, key=key
            ).per_batch_perturbed_loss
        )
    )
    first, again, other = measure(KEY), measure(KEY), measure(jax.random.key(4))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    assert len(set(np.asarray(first).tolist())) > 1


def test_non_finite_loss_spoils_only_its_batch():
    loss_fn = lambda w, batch: jnp.mean(batch) * jnp.sum(w**2)  # noqa: E731
    batches = np.array([[1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0], [2.0, 2.0]])
    result = metrics.adversarial_sharpness(
        loss_fn, jnp.ones(3), batches, steps=2, restarts=2, key=KEY
    )
    assert np.isnan(result.per_batch_perturbed_loss[1])
    alone = metrics.adversarial_sharpness(loss_fn, jnp.ones(3), batches[:1], steps=2)
    for index, factor in ((0, 1), (3, 2)):
        np.testing.assert_allclose(
            result.per_batch_perturbed_loss[index], factor * alone.perturbed_loss, rtol=1e-5
        )


def test_one_compilation_serves_all_models_radii_steps_and_keys():
    traces = []

    def loss_fn(params, batch):
        traces.append(1)
        return minima.mlp_loss(params, batch)

    @jax.jit
    def measure(params, batches, rho, step_size, key):
        return metrics.adversarial_sharpness(
            loss_fn,
            params,
            batches,
            rho=rho,
            steps=4,
            step_size=halved_by_quarters(step_size, 4),
            restarts=2,
            key=key,
            mask={"first": True, "second": False},
            adaptive=True,
            metric="euclidean",
        ).sharpness

    batches = minima.mlp_batches()
    values = {
        float(measure(minima.mlp_params(seed=seed), batches, rho, rho / 2, jax.random.key(seed)))
        for seed in range(3)
        for rho in (0.1, 0.5)
    }
    assert len(values) == 6 and np.all(np.isfinite(list(values)))
    assert len(traces) == 2  # the loop over the steps, and the last loss


def test_cost_is_what_the_docstring_says_of_restarts():
    calls = []

    def loss_fn(params, batch):
        jax.debug.callback(lambda: calls.append(1))
        return minima.mlp_loss(params, batch)

    result = metrics.adversarial_sharpness(
        loss_fn, minima.mlp_params(), minima.mlp_batches(n=2), steps=3, restarts=2, key=KEY
    )
    jax.block_until_ready(result)
    jax.effects_barrier()
    assert len(calls) == 2 * (1 + 2) * (3 + 1)
