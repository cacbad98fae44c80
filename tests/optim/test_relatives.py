"""SmoothOut, AWP, AMP, Entropy-SGD and ExtraP-SGD against their formulas in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from contract_runs import assert_trees_close, assert_trees_equal, trees_close, update
from numpy_problem import (
    NAMES,
    flat,
    jax_trajectory,
    largest_difference,
    nested,
    numpy_gradient,
    numpy_trajectory,
)
from scipy import stats

from sam_jax import draws, optim
from sam_jax.optim import perturbations

SEED, COPIES = 5, 3
RADIUS, GAMMA, EPSILON, RATE = 0.2, 0.1, 0.3, 0.4
RELATIVE = 0.1  # deviation of the factors of weight noise
SCOPE, STEP, NOISE, ALPHA, LANGEVIN = 0.5, 0.2, 0.3, 0.25, 4
AHEAD = 0.1


def key():
    return jax.random.key(SEED)


# --- the formulas: (w, x, y, step, sub_batch, factor) -> gradient; factor 1 is the method ---------


def axpy(w, factor, direction):
    return {n: w[n] + factor * direction[n] for n in NAMES}


def entry_norm(array):
    return sum(entry**2 for entry in array.ravel()) ** 0.5


def random_numbers(w, step, index, distribution):
    # Only the random numbers come from JAX, with a key for each update and copy.
    one = jax.random.fold_in(jax.random.fold_in(key(), step), index)
    return flat(draws.random_like(one, nested(w), distribution))


def weight_noise_gradient(w, x, y, step, sub_batch, factor):
    added = random_numbers(w, step, sub_batch, "gaussian")
    one = jax.random.fold_in(jax.random.fold_in(key(), step), sub_batch)
    factors = flat(draws.random_like(jax.random.fold_in(one, 2**31 - 1), nested(w)))
    noise = {n: RADIUS * added[n] + RELATIVE * factors[n] * w[n] for n in NAMES}
    return numpy_gradient(axpy(w, factor, noise), x, y)


def smooth_out_gradient(w, x, y, step, sub_batch, factor, *, copies=1, adaptive=False):
    total = {n: np.zeros_like(w[n]) for n in NAMES}
    for copy in range(copies):
        draw = random_numbers(w, step, sub_batch * copies + copy, "uniform")
        noise = {n: 2 * draw[n] - 1 for n in NAMES}
        if adaptive:
            for n in ("bias1", "bias2"):
                noise[n] = np.sign(noise[n]) * np.abs(w[n])
            for n in ("kernel1", "kernel2"):
                for output in range(w[n].shape[1]):
                    lengths = entry_norm(w[n][:, output]), entry_norm(noise[n][:, output])
                    noise[n][:, output] *= lengths[0] / lengths[1]
        g = numpy_gradient(axpy(w, factor * RADIUS, noise), x, y)
        total = axpy(total, 1 / copies, g)
    return total


def awp_gradient(w, x, y, step, sub_batch, factor):
    g = numpy_gradient(w, x, y)
    epsilon = {n: np.zeros_like(w[n]) for n in NAMES}
    for n in ("kernel1", "kernel2"):
        epsilon[n] = GAMMA * entry_norm(w[n]) / entry_norm(g[n]) * g[n]
    return numpy_gradient(axpy(w, factor, epsilon), x, y)


def amp_perturbations(w, x, y, steps, factor=1.0):
    """Delta before each projection and after it."""
    delta, history = {n: np.zeros_like(w[n]) for n in NAMES}, []
    for _ in range(steps):
        moved = axpy(delta, RATE, numpy_gradient(axpy(w, factor, delta), x, y))
        delta = {n: moved[n] * min(1.0, EPSILON / entry_norm(moved[n])) for n in NAMES}
        history.append((moved, delta))
    return history


def amp_gradient(w, x, y, step, sub_batch, factor, *, steps=1):
    _, delta = amp_perturbations(w, x, y, steps, factor)[-1]
    return numpy_gradient(axpy(w, factor, delta), x, y)


def entropy_gradient(w, x, y, step, sub_batch, factor, *, split=False):
    update_key = jax.random.fold_in(jax.random.fold_in(key(), step), sub_batch)
    point, mean = dict(w), dict(w)
    for i in range(LANGEVIN):
        part = slice(i, None, LANGEVIN) if split else slice(None)
        g = numpy_gradient(point, x[part], y[part])
        xi = flat(draws.random_like(jax.random.fold_in(update_key, i), nested(w)))
        for n in NAMES:
            drift = g[n] - factor * SCOPE * (w[n] - point[n])
            point[n] = point[n] - STEP * drift + factor * STEP**0.5 * NOISE * xi[n]
            mean[n] = (1 - ALPHA) * mean[n] + ALPHA * point[n]
    return {n: SCOPE * (w[n] - mean[n]) for n in NAMES}


def extrapolated():
    """Return a fresh reference with the memory of its last gradient."""
    previous = {n: 0.0 for n in NAMES}

    def gradient(w, x, y, step, sub_batch, factor):
        previous.update(numpy_gradient(axpy(w, -factor * AHEAD, previous), x, y))
        return dict(previous)

    return gradient


def gradient_of(one, m, x, y, factor):
    """gradient_of(w, step): the mean over sub-batches."""

    def mean(w, step):
        count, total = len(x) // m, {n: np.zeros_like(w[n]) for n in NAMES}
        for i in range(count):
            rows = slice(i * m, (i + 1) * m)
            total = axpy(total, 1 / count, one(w, x[rows], y[rows], step, i, factor))
        return total

    return mean


def entropy_sgd(**keywords):
    return optim.entropy_sgd(SCOPE, key(), LANGEVIN, STEP, NOISE, ALPHA, **keywords)


# name: (transformation, fresh reference, sizes of sub-batches out of 8 examples)
METHODS = {
    "smooth_out": (lambda: optim.smooth_out(RADIUS, key()), lambda: smooth_out_gradient, (8, 2)),
    "smooth_out_copies": (
        lambda: optim.smooth_out(RADIUS, key(), COPIES),
        lambda: functools.partial(smooth_out_gradient, copies=COPIES),
        (8, 2),
    ),
    "smooth_out_adaptive": (
        lambda: optim.smooth_out(RADIUS, key(), adaptive=True),
        lambda: functools.partial(smooth_out_gradient, adaptive=True),
        (8,),
    ),
    "weight_noise": (
        lambda: optim.weight_noise(RADIUS, key(), RELATIVE),
        lambda: weight_noise_gradient,
        (8, 2),
    ),
    "awp": (lambda: optim.awp(GAMMA), lambda: awp_gradient, (8, 2)),
    "amp": (lambda: optim.amp(EPSILON, RATE), lambda: amp_gradient, (8, 2)),
    "amp_3_steps": (
        lambda: optim.amp(EPSILON, RATE, inner_steps=3),
        lambda: functools.partial(amp_gradient, steps=3),
        (8,),
    ),
    "entropy_sgd": (
        entropy_sgd,
        lambda: functools.partial(entropy_gradient, split=True),
        (8, 4),
    ),
    "entropy_sgd_on_one_batch": (
        lambda: entropy_sgd(split_batch=False),
        lambda: entropy_gradient,
        (8, 2),
    ),
    "extrap_sgd": (lambda: optim.extrap_sgd(AHEAD), extrapolated, (8,)),
}


@pytest.mark.parametrize(
    ("name", "m"), [(name, m) for name, (_, _, sizes) in METHODS.items() for m in sizes]
)
def test_five_steps_equal_numpy(name, m):
    make, fresh, _ = METHODS[name]
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        result = jax_trajectory(make() if m == 8 else optim.m_sam(make(), m), problem)
        x, y = map(np.asarray, (problem.batch["x"], problem.batch["y"]))

        def reference(factor):
            return numpy_trajectory(gradient_of(fresh(), m, x, y, factor), flat(problem.params))

        assert largest_difference(result, reference(1.0)) < 1e-10
        # Negative controls: no perturbation (Entropy-SGD: no noise and no pull), the wrong sign.
        for factor in (0.0, -1.0):
            assert largest_difference(result, reference(factor)) > 1e-3


def test_amp_projects_some_leaves_and_not_others():
    # Otherwise the comparison above would not tell a ball for each leaf from one for all.
    problem = problems.tanh_net()
    x, y = map(np.asarray, (problem.batch["x"], problem.batch["y"]))
    history = amp_perturbations(flat(problem.params), x, y, steps=3)
    lengths = [entry_norm(moved[n]) for moved, _ in history for n in NAMES]
    assert min(lengths) < 0.9 * EPSILON and max(lengths) > 1.1 * EPSILON


# --- closed forms and laws -----------------------------------------------------------------------


def test_noise_is_uniform_and_drawn_anew():
    params = {"a": jnp.ones((100, 50)), "b": jnp.ones(5000)}
    noise = perturbations.uniform_noise(0.5, key())
    first, state = noise.update(None, noise.init(params), params)
    second, _ = noise.update(None, state, params)
    other_sub_batch, _ = noise.update(None, noise.init(params), params, sub_batch=1)
    entries = np.concatenate([np.ravel(x) for x in jax.tree.leaves(first)])
    assert np.abs(entries).max() <= 0.5
    # The largest distance to the law of U(-a, a): beyond 2 / sqrt(n) with probability 7e-4.
    sorted_entries = np.sort(entries)
    law = (sorted_entries + 0.5) / 1.0
    distance = np.abs(law - (np.arange(len(law)) + 0.5) / len(law)).max()
    assert distance < 2 / len(law) ** 0.5
    assert not trees_close(first, second, 0.1) and not trees_close(first, other_sub_batch, 0.1)


def test_relative_noise_is_gaussian_in_proportion_to_the_weight():
    params = {"a": jnp.full((100, 50), -3.0), "b": jnp.zeros(5000), "c": jnp.ones((400, 400))}

    def drawn(rho, relative, sub_batch=0):
        noise = perturbations.random_relative(rho, relative, key())
        return noise.update(None, noise.init(params), params, sub_batch=sub_batch)[0]

    relative = drawn(0.0, 0.1)
    assert not np.any(relative["b"])
    for name, deviation in (("a", 0.3), ("c", 0.1)):
        # The largest distance to the law: beyond 2 / sqrt(n) with probability 7e-4.
        entries = np.ravel(relative[name]) / deviation
        assert stats.kstest(entries, "norm").statistic < 2 / entries.size**0.5
    # The factors and what is added are independent: a correlation has a deviation of 1 / sqrt(n).
    added = np.concatenate([np.ravel(drawn(1.0, 0.0)[name]) for name in ("a", "c")])
    factors = np.concatenate([np.ravel(relative[name]) for name in ("a", "c")])
    assert abs(np.corrcoef(added, factors)[0, 1]) < 4 / added.size**0.5
    both = drawn(1.0, 0.1)
    for name in params:
        wanted = relative[name] + drawn(1.0, 0.0)[name]
        np.testing.assert_allclose(both[name], wanted, rtol=1e-5, atol=1e-6)
    assert not trees_close(relative["a"], drawn(0.0, 0.1, sub_batch=1)["a"], 0.1)


def test_adaptive_noise_is_as_long_as_its_filter_times_the_radius():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 6))
    kernel = kernel * jnp.arange(6).reshape(1, 1, 1, 6)  # one zero filter
    params = {"kernel": kernel, "bias": jnp.array([-2.0, 0.0, 3.0]), "scale": jnp.array(4.0)}
    noise = perturbations.uniform_noise(0.25, key(), adaptive=True)
    epsilon, _ = noise.update(None, noise.init(params), params)
    lengths = jnp.sqrt(jnp.sum(epsilon["kernel"] ** 2, (0, 1, 2)))
    wanted = 0.25 * jnp.sqrt(jnp.sum(kernel**2, (0, 1, 2)))
    np.testing.assert_allclose(lengths, wanted, rtol=1e-6)
    np.testing.assert_allclose(jnp.abs(epsilon["bias"]), [0.5, 0.0, 0.75], rtol=1e-6)
    np.testing.assert_allclose(jnp.abs(epsilon["scale"]), 1.0, rtol=1e-6)


@pytest.mark.parametrize("adaptive", [False, True])
def test_noise_stays_off_masked_leaves_even_where_they_are_infinite(adaptive):
    params = {"a": jnp.array([jnp.inf, 1.0]), "b": jnp.ones((2, 3))}
    tx = optim.smooth_out(0.1, key(), adaptive=adaptive, mask={"a": False, "b": True})
    result, _ = tx.gradient(lambda w: (w, w), params, tx.init(params))
    assert_trees_equal(result.perturbed_aux["a"], params["a"])
    assert bool(
        jnp.all(result.perturbed_aux["b"] != 1) & jnp.all(jnp.isfinite(result.gradient["b"]))
    )


def test_the_mean_of_equal_copies_is_exactly_one_of_them():
    w = {"a": jnp.linspace(-2, 3, 1000), "b": jnp.linspace(0, 1, 10).astype(jnp.bfloat16)}
    assert bool(jnp.any(w["a"] * 7 / 7 != w["a"]))  # summing and dividing would round
    tx = optim.smooth_out(0.0, key(), copies=7)
    result, _ = tx.gradient(lambda w: (w, w["a"]), w, tx.init(w))
    assert_trees_equal(result.gradient, w)
    assert_trees_equal(result.perturbed_aux, w["a"])


def test_awp_leaves_what_the_mask_or_the_axes_exclude():
    params = {
        "bias": jnp.array([jnp.inf, 1.0]),
        "kernel": jnp.ones((2, 2)),
        "frozen": jnp.full((2, 2), jnp.inf),
    }
    tx = optim.awp(0.5, mask={"bias": True, "kernel": True, "frozen": False})
    gradient = jax.tree.map(jnp.ones_like, params)
    result, _ = tx.gradient(lambda w: (gradient, w), params, tx.init(params))
    assert_trees_equal(result.perturbed_aux["bias"], params["bias"])
    assert_trees_equal(result.perturbed_aux["frozen"], params["frozen"])
    np.testing.assert_allclose(result.perturbed_aux["kernel"], 1.5 * np.ones((2, 2)))


def test_amp_shrinks_with_the_gradient_and_stops_at_the_ball():
    params = {"small": jnp.zeros(2), "large": jnp.zeros(2)}
    gradient = {"small": jnp.array([0.03, -0.04]), "large": jnp.array([30.0, 40.0])}
    for steps in (1, 4):
        tx = optim.amp(0.5, inner_learning_rate=2.0, inner_steps=steps)
        result, _ = tx.gradient(lambda w: (gradient, w), params, tx.init(params))
        small = 2.0 * steps * gradient["small"]  # of length 0.1 or 0.4
        np.testing.assert_allclose(result.perturbed_aux["small"], small, rtol=1e-6)
        np.testing.assert_allclose(result.perturbed_aux["large"], [0.3, 0.4], rtol=1e-6)


def test_extrapolation_looks_down_the_gradient_and_not_up():
    tx = optim.extrap_sgd(0.5)
    w = jnp.array([1.0, -2.0])
    state = tx.init(w)
    for expected in (w, 0.5 * w, 0.75 * w):  # each at w - 0.5 * the gradient before
        result, state = tx.gradient(lambda w: (w, w), w, state)
        np.testing.assert_allclose(result.perturbed_aux, expected)
    assert int(state.count) == 3


# --- cost, memory, errors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "cost"),
    [
        (lambda: optim.smooth_out(0.1, key()), 1),
        (lambda: optim.smooth_out(0.1, key(), copies=3), 3),
        (lambda: optim.awp(), 1),  # and the clean gradient
        (lambda: optim.amp(), 1),
        (lambda: optim.amp(inner_steps=4), 4),
        (lambda: optim.entropy_sgd(0.1, key(), steps=5, split_batch=False), 5),
        (lambda: optim.extrap_sgd(0.1), 1),
    ],
)
def test_gradients_in_an_update_besides_the_one_it_is_given(make, cost):
    problem, tx, calls = problems.tanh_net(), make(), []

    def grad_fn(params):
        jax.debug.callback(lambda: calls.append(None))
        return problem.grad_fn(params)

    jax.jit(lambda w, g: tx.update(g, tx.init(w), w, grad_fn=grad_fn)[0])(
        problem.params, problem.params
    )
    jax.effects_barrier()
    assert len(calls) == cost


def test_a_memory_of_gradients_is_for_one_sub_batch():
    problem = problems.tanh_net()
    tx = optim.extrap_sgd(0.1)
    with pytest.raises(ValueError, match="keeps the previous gradient"):
        update(optim.m_sam(tx, 4), problem)
    assert_trees_close(update(optim.m_sam(tx, 8), problem)[0], update(tx, problem)[0])


def test_the_memory_is_wide_and_survives_donation():
    params = {"a": jnp.ones(3, jnp.float16), "b": jnp.ones(2)}
    tx = optim.extrap_sgd(0.1)
    step = jax.jit(
        lambda params, state: tx.update(params, state, params, grad_fn=lambda w: w),
        donate_argnums=(0, 1),
    )
    state = tx.init(params)
    gradient, state = step(jax.tree.map(jnp.copy, params), state)
    assert {x.dtype.name for x in jax.tree.leaves(state.previous)} == {"float32"}
    assert [x.dtype.name for x in jax.tree.leaves(gradient)] == ["float16", "float32"]
    step(jax.tree.map(jnp.copy, params), state)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: optim.smooth_out(-1.0, key()), ValueError, "radius must be zero or positive"),
        (lambda: optim.smooth_out(1.0, 0), TypeError, "typed key"),
        (lambda: optim.smooth_out(1.0, key(), copies=0), ValueError, "copies .* got 0"),
        (lambda: optim.awp(-0.1), ValueError, "gamma must be"),
        (lambda: optim.amp(-0.1), ValueError, "epsilon must be"),
        (lambda: optim.amp(0.1, -1.0), ValueError, "inner_learning_rate must be"),
        (lambda: optim.amp(0.1, 1.0, 1.5), ValueError, "inner_steps .* got 1.5"),
        (lambda: optim.entropy_sgd(-0.1, key()), ValueError, "gamma must be"),
        (lambda: optim.entropy_sgd(0.1, key(), steps=0), ValueError, "steps .* got 0"),
        (lambda: optim.entropy_sgd(0.1, key(), noise=-1.0), ValueError, "noise must be"),
        (lambda: optim.entropy_sgd(0.1, key(), alpha=1.5), ValueError, "alpha .* got 1.5"),
        (lambda: optim.entropy_sgd(0.1, 7), TypeError, "typed key"),
        (lambda: optim.extrap_sgd(-0.1), ValueError, "extrapolation must be"),
        (lambda: optim.extrap_sgd(None), ValueError, "extrapolation must be a number"),
    ],
)
def test_wrong_arguments_are_named(make, error, match):
    with pytest.raises(error, match=match):
        make()
