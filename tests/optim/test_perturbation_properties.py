"""Limits, masks, dtypes, memories and refusals of the methods that differ in their perturbation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_close, assert_trees_equal, trees_close, update
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import optim
from sam_jax.optim import combinations, perturbations

RHO = 0.3
KEY = jax.random.key(3)
PERTURBATIONS = {
    "unified": functools.partial(perturbations.unified_ascent, RHO, 0.4),
    "unnormalised": functools.partial(perturbations.unified_ascent, RHO, 0.0),
    "fisher": functools.partial(perturbations.fisher_ascent, RHO, 2.0),
    "layerwise": functools.partial(perturbations.layerwise_ascent, RHO),
    "filter": functools.partial(perturbations.adaptive_ascent, RHO, rescaling="filter"),
    "multi_step": functools.partial(perturbations.multi_step_ascent, RHO, 2, None),
    "friendly": functools.partial(perturbations.friendly_ascent, RHO, 0.8, 0.6, "paper"),
    "friendly, code": functools.partial(perturbations.friendly_ascent, RHO, 0.8, 0.6, "code"),
    "averaged": functools.partial(perturbations.averaged_ascent, RHO, 0.4),
}
over_perturbations = pytest.mark.parametrize("name", PERTURBATIONS)


def epsilons(perturbation, gradients, params, grad_fn=None):
    """The perturbation at each of several gradients, one update after the other."""
    state, result = perturbation.init(params), []
    for gradient in gradients:
        epsilon, state = perturbation.update(gradient, state, params, grad_fn=grad_fn)
        result.append(epsilon)
    return result


def norm(tree):
    return float(jnp.sqrt(sum(jnp.sum(jnp.float32(x) ** 2) for x in jax.tree.leaves(tree))))


# --- limits ------------------------------------------------------------------------------------

LIMITS = {
    "unified_sam, lmbda=1": (lambda: optim.unified_sam(RHO, 1.0), lambda: optim.sam(RHO)),
    "unified_sam, lmbda=0": (lambda: optim.unified_sam(RHO, 0.0), lambda: optim.usam(RHO)),
    "fisher_sam, eta=0": (lambda: optim.fisher_sam(RHO, 0.0), lambda: optim.sam(RHO)),
    "multi_step_sam, steps=1": (lambda: optim.multi_step_sam(RHO, 1), lambda: optim.sam(RHO)),
    "multi_step_sam, unnormalised, steps=1": (
        lambda: optim.multi_step_sam(0.1 * RHO, 1, normalised=False),
        lambda: optim.usam(0.1 * RHO, project=True),
    ),
    "weight_noise, relative=0": (
        lambda: optim.weight_noise(RHO, jax.random.key(3)),
        lambda: optim.average_sam(RHO, jax.random.key(3), distribution="gaussian"),
    ),
    "friendly_sam, sigma=0": (lambda: optim.friendly_sam(RHO, 0.0), lambda: optim.sam(RHO)),
    "vasso, theta=1": (lambda: optim.vasso(RHO, 1.0), lambda: optim.sam(RHO)),
    "sam_on, all leaves": (lambda: optim.sam_on(RHO, mask=True), lambda: optim.sam(RHO)),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name):
    problem = problems.tanh_net()
    one, other = (make() for make in LIMITS[name])
    state, other_state = one.init(problem.params), other.init(problem.params)
    params = problem.params
    for _ in range(2):
        result, state = update(one, problem, state, params)
        wanted, other_state = update(other, problem, other_state, params)
        assert_trees_close(result, wanted, 1e-5)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, wanted)


@given(st.integers(0, 2**16), st.floats(0.0, 50.0), st.floats(0.01, 2.0))
@settings(max_examples=20, deadline=None)
def test_fisher_epsilon_has_length_rho_in_its_metric_and_is_the_steepest(seed, eta, rho):
    with jax.enable_x64(True):
        random = np.random.default_rng(seed)
        g = random.normal(size=6)
        (epsilon,) = epsilons(perturbations.fisher_ascent(rho, eta), [jnp.asarray(g)], jnp.zeros(6))
        metric = 1 + eta * g**2
        np.testing.assert_allclose(np.sum(metric * epsilon**2) ** 0.5, rho, rtol=1e-10)
        other = random.normal(size=6)
        other *= rho / np.sum(metric * other**2) ** 0.5
        assert g @ other <= g @ np.asarray(epsilon) * (1 + 1e-10)


def test_layerwise_epsilon_is_a_fraction_of_every_layer():
    problem = problems.tanh_net()
    g = problem.grad_fn(problem.params)
    (epsilon,) = epsilons(perturbations.layerwise_ascent(RHO), [g], problem.params)
    for e, w, g_l in zip(*map(jax.tree.leaves, (epsilon, problem.params, g)), strict=True):
        np.testing.assert_allclose(norm(e), RHO * norm(w), rtol=1e-6)
        np.testing.assert_allclose(jnp.vdot(e, g_l), norm(e) * norm(g_l), rtol=1e-5)


@pytest.mark.parametrize(("steps", "expected"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0), (5, 1.0)])
def test_ascent_steps_add_up_to_the_sphere(steps, expected):
    slope = jnp.array([3.0, -4.0])  # of a linear loss: all steps have one direction
    perturbation = perturbations.multi_step_ascent(RHO, steps, step_size=RHO / 3)
    (epsilon,) = epsilons(perturbation, [slope], jnp.zeros(2), grad_fn=lambda w: slope)
    np.testing.assert_allclose(epsilon, expected * RHO * slope / 5, rtol=1e-6)


def test_more_steps_come_closer_to_the_worst_point_of_the_sphere():
    with jax.enable_x64(True):
        hessian, w = jnp.diag(jnp.array([1.0, 5.0])), jnp.array([1.0, 0.1])
        angles = jnp.linspace(0, 2 * jnp.pi, 100_001)
        points = w[None] + RHO * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
        worst = jnp.max(jnp.einsum("ni,ij,nj->n", points, hessian, points)) / 2

        def grad_fn(w):
            return hessian @ w

        gaps = []
        for steps in (1, 2, 5, 40):
            perturbation = perturbations.multi_step_ascent(RHO, steps)
            (e,) = epsilons(perturbation, [grad_fn(w)], w, grad_fn)
            gaps.append(float(worst - (w + e) @ hessian @ (w + e) / 2))
        assert gaps[0] > gaps[1] > gaps[2] > gaps[3] > -1e-9
        assert gaps[3] < 1e-3 * gaps[0]


def test_rescaled_has_the_clean_length_and_the_perturbed_direction():
    problem = problems.tanh_net()
    clean = problem.grad_fn(problem.params)
    perturbed = jax.tree.map(lambda g: 3 * g + 1, clean)
    result = combinations.rescaled(clean, perturbed)
    np.testing.assert_allclose(norm(result), norm(clean), rtol=1e-6)
    factor = norm(clean) / norm(perturbed)
    assert_trees_close(result, jax.tree.map(lambda p: factor * p, perturbed))
    assert_trees_equal(combinations.rescaled(clean, clean), clean)
    zero = jax.tree.map(jnp.zeros_like, clean)
    assert_trees_equal(combinations.rescaled(clean, zero), zero)


def test_gaussian_noise_has_deviation_rho():
    count = 100_000
    perturbation = perturbations.random_gaussian(RHO, KEY)
    first, second = epsilons(perturbation, [None, None], jnp.zeros(count))
    # The standard error of the deviation is rho / sqrt(2 n); five of them.
    np.testing.assert_allclose(jnp.std(first), RHO, rtol=5 / (2 * count) ** 0.5)
    assert abs(jnp.mean(first)) < 5 * RHO / count**0.5
    assert abs(jnp.corrcoef(first, second)[0, 1]) < 5 / count**0.5
    on_sphere = perturbations.random_on_sphere(RHO * count**0.5, KEY)
    # The same draw, but for its length.
    (wanted,) = epsilons(on_sphere, [None], jnp.zeros(count))
    np.testing.assert_allclose(first, wanted * norm(first) / (RHO * count**0.5), rtol=1e-4)


# --- masks and dtypes --------------------------------------------------------------------------


@over_perturbations
def test_the_mask_is_applied_before_the_norm(name):
    problem, other = problems.tanh_net(), problems.tanh_net(seed=1)
    params, make = problem.params, PERTURBATIONS[name]
    gradients = [problem.grad_fn(params), other.grad_fn(params)]

    def grad_fn_of_first(first):
        return {"first": problem.grad_fn(params | first)["first"]}

    def parts(trees):
        return [{"first": tree["first"]} for tree in trees]

    # The chosen part moves as if it were all of the parameters.
    wanted = epsilons(make(), parts(gradients), *parts([params]), grad_fn_of_first)
    masked = make(mask={"first": True, "second": False})
    result = epsilons(masked, gradients, params, problem.grad_fn)
    whole = epsilons(make(), gradients, params, problem.grad_fn)
    for epsilon, alone, of_all in zip(result, wanted, whole, strict=True):
        assert_trees_close({"first": epsilon["first"]}, alone)
        assert norm(epsilon["second"]) == 0
        if name not in ("unnormalised", "layerwise"):  # whose layers do not share a norm
            assert not trees_close({"first": of_all["first"]}, alone, 1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", [300.0, 1e-4])
@over_perturbations
def test_low_precision_gradients_give_the_epsilon_of_their_numbers(name, size, dtype):
    # Squares of these overflow or vanish in float16, and the norm does in both.
    random = np.random.default_rng(0)
    params = jnp.asarray(random.normal(size=(2, 2, 4)), dtype)
    gradients = [jnp.asarray(size * random.normal(size=(2, 2, 4)), dtype) for _ in range(2)]
    wide_params, *wide = (jnp.float32(x) for x in (params, *gradients))

    def grad_fn(w):
        return gradients[1].astype(w.dtype)

    result = epsilons(PERTURBATIONS[name](), gradients, params, grad_fn)
    wanted = epsilons(PERTURBATIONS[name](), wide, wide_params, grad_fn)
    for epsilon, e in zip(result, wanted, strict=True):
        assert epsilon.dtype == jnp.float32
        np.testing.assert_allclose(epsilon, e, rtol=1e-6)
        assert norm(e) > 0


@over_perturbations
def test_zero_gradients_give_zero(name):
    params = problems.tanh_net().params
    zero = jax.tree.map(jnp.zeros_like, params)
    for epsilon in epsilons(PERTURBATIONS[name](), [zero, zero], params, lambda w: zero):
        assert_trees_equal(epsilon, zero)


# --- memories, sub-batches, refusals -----------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "mean"),
    [
        (lambda: optim.friendly_sam(RHO, 1.0, 0.9), lambda g: 0.9 * g[0] + 0.1 * g[1]),
        (lambda: optim.friendly_sam(RHO, order="code"), lambda g: 0.9 * g[0] + 0.1 * g[1]),
        (lambda: optim.vasso(RHO, 0.4), lambda g: 0.6 * g[0] + 0.4 * g[1]),
    ],
    ids=["friendly_sam", "friendly_sam, code", "vasso"],
)
def test_the_average_takes_in_the_gradients_themselves(make, mean):
    tx, params = make(), jnp.ones(3, jnp.bfloat16)
    gradients = [jnp.array([1.0, 2.0, 4.0], jnp.bfloat16), jnp.array([-3.0, 0.0, 8.0])]
    gradients[1] = gradients[1].astype(jnp.bfloat16)
    state = tx.init(params)
    for gradient in gradients:
        _, state = tx.update(gradient, state, params, grad_fn=lambda w: 7 * w)
    assert state.average.dtype == jnp.float32
    wanted = mean([np.float32(g) for g in gradients])
    np.testing.assert_allclose(state.average, wanted, rtol=1e-6)


@pytest.mark.parametrize("make", [optim.friendly_sam, optim.vasso])
def test_a_memory_is_refused_with_several_sub_batches(make):
    problem = problems.tanh_net()
    assert make(RHO).memory == "the moving average of gradients"
    with pytest.raises(ValueError, match="moving average of gradients.*4 sub-batches"):
        update(optim.m_sam(make(RHO), 2), problem)
    result, _ = update(optim.m_sam(make(RHO), 8), problem)
    assert_trees_equal(result, update(make(RHO), problem)[0])


def test_the_previous_batch_sets_the_perturbation_and_the_clean_gradient_is_not_used():
    problem, before = problems.tanh_net(), problems.tanh_net(seed=1).batch
    tx = optim.previous_batch_sam(RHO)
    state = tx.init(problem.params)
    nan = jax.tree.map(lambda w: w * jnp.nan, problem.params)
    result, state = tx.update(
        nan, state, problem.params, grad_fn=problem.grad_fn, previous_batch=before
    )
    assert int(state.count) == 1
    ascent = problem.grad_fn(problem.params, before)
    moved = jax.tree.map(lambda w, g: w + RHO * g / norm(ascent), problem.params, ascent)
    assert_trees_close(result, problem.grad_fn(moved))
    with pytest.raises(ValueError, match="previous_batch=previous_batch"):
        tx.update(ascent, state, problem.params, grad_fn=problem.grad_fn)


REFUSALS = {
    "rho": lambda: optim.usam(-0.1),
    "lmbda must lie in": lambda: optim.unified_sam(lmbda=1.5),
    "eta": lambda: optim.fisher_sam(eta=-1.0),
    "sigma": lambda: optim.friendly_sam(sigma=-1.0),
    "lmbda must lie": lambda: optim.friendly_sam(lmbda=-0.1),
    'order must be "paper" or "code"': lambda: optim.friendly_sam(order="reverse"),
    "theta must lie": lambda: optim.vasso(theta=2.0),
    "steps must be a positive int, got 0": lambda: optim.multi_step_sam(steps=0),
    "steps must be a positive int, got 1.5": lambda: optim.multi_step_sam(steps=1.5),
    "step_size": lambda: optim.multi_step_sam(step_size=-1.0),
    "rescaling must be": lambda: optim.asam(rescaling="leaf"),
    "rescaled must be": lambda: optim.asam(rescaled="biases"),
    "norm_order must lie": lambda: optim.asam(norm_order=1.0),
    "distribution must be": lambda: optim.average_sam(0.1, KEY, distribution="uniform"),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_arguments_out_of_range_are_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSALS[message]()


INJECTED = {
    optim.unified_sam: {"rho": RHO, "lmbda": 0.3},
    optim.fisher_sam: {"rho": RHO, "eta": 2.0},
    optim.friendly_sam: {"rho": RHO, "sigma": 0.5, "lmbda": 0.6},
    optim.vasso: {"rho": RHO, "theta": 0.4},
    optim.multi_step_sam: {"rho": RHO, "steps": 2, "step_size": 0.1},
}


@pytest.mark.parametrize("make", INJECTED, ids=lambda make: make.__name__)
def test_coefficients_can_be_injected(make):
    problem, arguments = problems.tanh_net(), INJECTED[make]
    static = [name for name in arguments if name == "steps"]
    injected = optax.inject_hyperparams(make, static_args=static)(**arguments)
    assert_trees_close(update(injected, problem)[0], update(make(**arguments), problem)[0])
    if static:
        with pytest.raises(ValueError, match="name it in static_args"):
            optax.inject_hyperparams(make)(**arguments).init(problem.params)
