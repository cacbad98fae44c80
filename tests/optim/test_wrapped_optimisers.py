"""Methods that wrap an optimiser: five steps against NumPy, with SGD and with Adam inside."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_close, assert_trees_equal, update
from numpy_problem import (
    NAMES,
    STEPS,
    flat,
    largest_difference,
    length,
    numpy_gradient,
)
from numpy_vectors import both_gradients, examples, plus

from sam_jax import optim, pytree

RHO, ALPHA, GAMMA, RATE, DECAY = 0.2, 0.6, 0.8, 0.1, 0.01


def falling_rate(step):
    """From RATE towards 0; optax's linear schedule would round to float32."""
    return RATE * (1 - 0.1 * step)


class NumpySgd:
    """SGD with momentum 0.9 after weight decay."""

    def __init__(self, zeros):
        self.momentum = zeros

    def update(self, w, g, step):
        self.momentum = plus(plus(g, w, DECAY), self.momentum, 0.9)
        return {n: -RATE * self.momentum[n] for n in NAMES}


class NumpyAdam:
    """Adam with bias correction."""

    def __init__(self, zeros):
        self.momentum, self.squares = zeros, zeros

    def update(self, w, g, step):
        t = step + 1
        self.momentum = {n: 0.9 * self.momentum[n] + 0.1 * g[n] for n in NAMES}
        self.squares = {n: 0.999 * self.squares[n] + 0.001 * g[n] ** 2 for n in NAMES}
        return {
            n: -RATE
            * (self.momentum[n] / (1 - 0.9**t))
            / (np.sqrt(self.squares[n] / (1 - 0.999**t)) + 1e-8)
            for n in NAMES
        }


def sgd():
    return optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=0.9))


OPTIMISERS = {"sgd": (sgd, NumpySgd), "adam": (lambda: optax.adam(RATE), NumpyAdam)}


def wrapped_trajectory(tx, problem):
    """The parameters after each step of a wrapper, which takes the place of the optimiser."""

    @jax.jit
    def step(params, state):
        updates, state = update(tx, problem, state, params)
        return optax.apply_updates(params, updates), state

    params, state, trajectory = problem.params, tx.init(problem.params), []
    for _ in range(STEPS):
        params, state = step(params, state)
        trajectory.append(flat(params))
    return trajectory


def wrapped_reference(problem, optimiser_class, updates_of):
    """The same with `updates_of(optimiser, w, step)` in NumPy."""
    w, trajectory = flat(problem.params), []
    optimiser = optimiser_class({n: np.zeros_like(w[n]) for n in NAMES})
    for step in range(STEPS):
        w = plus(w, updates_of(optimiser, w, step))
        trajectory.append(w)
    return trajectory


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_five_steps_of_decoupled_wsam_equal_numpy(optimiser):
    make, optimiser_class = OPTIMISERS[optimiser]
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        result = wrapped_trajectory(
            optim.decoupled_wsam(make(), falling_rate, lambda step: RHO + 0.01 * step, GAMMA),
            problem,
        )
    x, y = examples(problem)

    def reference(weight, coupled=False):
        def updates_of(optimiser, w, step):
            g, p = both_gradients(w, x, y, RHO + 0.01 * step)
            sharpness = {n: weight * (p[n] - g[n]) for n in NAMES}
            if coupled:
                return optimiser.update(w, plus(g, sharpness), step)
            return plus(optimiser.update(w, g, step), sharpness, -falling_rate(step))

        return wrapped_reference(problem, optimiser_class, updates_of)

    assert largest_difference(result, reference(GAMMA / (1 - GAMMA))) < 1e-10
    # Negative controls: no sharpness, the weight gamma itself, and the coupled form.
    assert largest_difference(result, reference(0.0)) > 1e-3
    assert largest_difference(result, reference(GAMMA)) > 1e-3
    assert largest_difference(result, reference(GAMMA / (1 - GAMMA), coupled=True)) > 1e-3


def test_weight_decay_of_the_authors_of_momentum_sam_is_an_l2_term_in_grad_fn():
    # Their SGD adds the decay of the perturbed parameters; decay in the optimiser is that of w.
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)

        class Decayed(problems.Problem):
            def grad_fn(self, params, batch=None, term=None):
                return pytree.add(problem.grad_fn(params, batch), params, DECAY)

        tx = optim.momentum_sam(optax.sgd(RATE, momentum=0.9), RHO)
        result = wrapped_trajectory(tx, Decayed(*problem))
        in_optimiser = wrapped_trajectory(optim.momentum_sam(sgd(), RHO), problem)
    x, y = examples(problem)
    w, v, wanted = flat(problem.params), None, []
    for _ in range(STEPS):
        at = w if v is None else plus(w, v, -RHO / length(v))
        g = plus(numpy_gradient(at, x, y), at, DECAY)
        v = g if v is None else plus(g, v, 0.9)
        w = plus(w, v, -RATE)
        wanted.append(w)
    assert largest_difference(result, wanted) < 1e-10
    assert largest_difference(in_optimiser, wanted) > 1e-5


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_five_steps_of_momentum_sam_equal_numpy(optimiser):
    make, optimiser_class = OPTIMISERS[optimiser]
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        result = wrapped_trajectory(
            optim.momentum_sam(make(), lambda step: RHO + 0.01 * step), problem
        )
    x, y = examples(problem)

    def reference(sign):
        def updates_of(optimiser, w, step):
            norm = length(optimiser.momentum)
            rho = sign * (RHO + 0.01 * step)
            perturbed = plus(w, optimiser.momentum, -rho / norm) if norm > 0 else w
            return optimiser.update(w, numpy_gradient(perturbed, x, y), step)

        return wrapped_reference(problem, optimiser_class, updates_of)

    assert largest_difference(result, reference(1.0)) < 1e-10
    # Negative controls: no perturbation, and one along the momentum instead of against it.
    assert largest_difference(result, reference(0.0)) > 1e-3
    assert largest_difference(result, reference(-1.0)) > 1e-3


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_without_a_perturbation_the_wrappers_are_the_optimiser(optimiser):
    problem, inner = problems.tanh_net(), OPTIMISERS[optimiser][0]()
    wrappers = [optim.decoupled_wsam(inner, RATE, rho=0.0), optim.momentum_sam(inner, rho=0.0)]
    for tx in wrappers:
        state, inner_state = tx.init(problem.params), inner.init(problem.params)
        for _ in range(3):
            result, state = update(tx, problem, state)
            wanted, inner_state = inner.update(
                problem.grad_fn(problem.params), inner_state, problem.params
            )
            assert_trees_equal(result, wanted)
            assert_trees_equal(state.optimiser, inner_state)


def test_plain_sgd_cannot_tell_decoupled_from_coupled():
    problem = problems.tanh_net()
    coupled = optax.chain(optim.wsam(RHO, GAMMA), optax.sgd(RATE))
    decoupled = optim.decoupled_wsam(optax.sgd(RATE), RATE, RHO, GAMMA)
    assert_trees_close(update(decoupled, problem)[0], update(coupled, problem)[0])


def test_momentum_sam_reports_the_pass_that_it_makes():
    problem = problems.tanh_net()
    tx = optim.momentum_sam(optax.sgd(RATE, momentum=0.9), RHO)
    _, state = update(tx, problem)
    result, _ = tx.gradient(problem.aux_grad_fn, problem.params, state)
    epsilon = pytree.add(result.perturbed_aux, problem.params, -1.0)
    # After one step the momentum is the gradient, so epsilon is minus that of SAM.
    wanted = pytree.scale(pytree.normalise(problem.grad_fn(problem.params)), -RHO)
    assert_trees_close(epsilon, wanted, 1e-4)
    assert result.clean_aux is None


def test_momentum_is_found_inside_other_states():
    problem = problems.tanh_net()
    inner = optax.inject_hyperparams(optax.sgd, static_args="nesterov")(
        learning_rate=RATE, momentum=0.9, nesterov=True
    )
    plain = optax.sgd(RATE, momentum=0.9, nesterov=True)
    results = []
    for optimiser in (inner, plain):
        tx = optim.momentum_sam(optax.chain(optax.clip_by_global_norm(1.0), optimiser), RHO)
        _, state = update(tx, problem)
        results.append(update(tx, problem, state)[0])
    assert_trees_close(*results)


BAD_ARGUMENTS = {
    "gamma": (
        lambda: optim.decoupled_wsam(optax.sgd(1.0), RATE, gamma=1.0),
        r"gamma must lie in \[0, 1\), got 1.0",
    ),
    "rate": (lambda: optim.decoupled_wsam(optax.sgd(1.0), -1.0), "learning_rate must be zero or"),
    "no momentum": (lambda: optim.momentum_sam(optax.sgd(RATE), RHO), "the state holds 0"),
    "two momenta": (
        lambda: optim.momentum_sam(optax.chain(optax.adam(RATE), optax.trace(0.9)), RHO),
        "the state holds 2",
    ),
    "flat momentum": (
        lambda: optim.momentum_sam(optax.flatten(optax.sgd(RATE, momentum=0.9)), RHO),
        "in the structure of the parameters.*optax.flatten",
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_a_bad_argument_says_what_to_do(name):
    make, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        make().init(problems.tanh_net().params)


FREEZERS = {
    "masked": lambda optimiser: optax.chain(
        optimiser, optax.masked(optax.set_to_zero(), {"first": False, "second": True})
    ),
    "partition": lambda optimiser: optax.partition(
        {"train": optimiser, "stay": optax.set_to_zero()}, {"first": "train", "second": "stay"}
    ),
    "freeze": lambda optimiser: optax.chain(
        optimiser, optax.transforms.freeze({"first": False, "second": True})
    ),
}
WRAPPERS = {
    "decoupled_wsam": lambda optimiser: optim.decoupled_wsam(optimiser, RATE, RHO),
    "momentum_sam": lambda optimiser: optim.momentum_sam(optimiser, RHO),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("freezer", FREEZERS)
def test_what_the_optimiser_freezes_stays_frozen(freezer, wrapper):
    problem = problems.tanh_net()
    tx = WRAPPERS[wrapper](FREEZERS[freezer](optax.sgd(RATE, momentum=0.9)))
    params, state = problem.params, tx.init(problem.params)
    for _ in range(3):
        result, state = update(tx, problem, state, params)
        params = optax.apply_updates(params, result)
    assert_trees_equal(params["second"], problem.params["second"])
    pairs = jax.tree.map(
        lambda a, b: jnp.max(jnp.abs(a - b)), params["first"], problem.params["first"]
    )
    for distance in jax.tree.leaves(pairs):
        assert float(distance) > 1e-3


def test_a_leaf_whose_gradient_is_zero_at_w_alone_is_not_frozen():
    def loss_fn(w, batch):
        del batch
        return w["a"] ** 2 + w["a"] ** 2 * w["b"] ** 2 / 2 + w["b"] ** 3

    params = {"a": jnp.float32(1.0), "b": jnp.float32(0.0)}
    problem = problems.Problem(loss_fn, params, jnp.zeros((1, 1)))
    tx = optim.decoupled_wsam(optax.sgd(RATE), RATE, rho=0.5, gamma=0.5)
    state = tx.init(params)
    grad_fn = problem.grad_fn
    assert float(grad_fn(params)["b"]) == 0
    # The gradient of b is not zero where a second perturbation has moved b, too.
    shifted = lambda w: grad_fn({"a": w["a"], "b": w["b"] + (w["a"] - 1)})  # noqa: E731
    result, _ = tx.update(shifted(params), state, params, grad_fn=shifted)
    wanted = -RATE * float(shifted({"a": jnp.float32(1.5), "b": jnp.float32(0.0)})["b"])
    assert float(result["b"]) == pytest.approx(wanted, rel=1e-6) and wanted != 0
