"""Any method between two steps: as it is inside, the plain gradient for one gradient outside."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import arguments, assert_trees_close, assert_trees_equal, trees_close, update
from contract_table import METHODS, SGD

from sam_jax import optim

START, END, STEPS = 2, 4, 6
PROBLEM = problems.dense_net()


def plain(problem, states, params):
    """Return what a method without a perturbation gives: a gradient, or the optimiser's update."""
    gradient = problem.grad_fn(params)
    if states is None:
        return gradient, None
    return SGD.update(gradient, states, params)


@pytest.mark.parametrize("case", [c for c in METHODS if c.evaluates], ids=lambda case: case.name)
def test_every_method_is_itself_inside_and_plain_outside(case):
    rho = 0.25
    tx, inner = optim.between(case.make(rho), START, END), case.make(rho)
    state, params = tx.init(PROBLEM.params), PROBLEM.params
    optimiser_state = SGD.init(params) if case.wraps else None
    step = jax.jit(lambda state, params: update(tx, PROBLEM, state, params))
    for count in range(STEPS):
        result, new = step(state, params)
        if START <= count < END:
            wanted, _ = update(inner, PROBLEM, state.inner, params)
            assert_trees_close(result, wanted)
            if case.wraps:
                optimiser_state = new.inner.optimiser
        else:
            wanted, optimiser_state = plain(PROBLEM, optimiser_state, params)
            (assert_trees_close if case.wraps else assert_trees_equal)(result, wanted)
        state = new
        params = jax.tree.map(lambda w, g: w - 0.05 * g, params, wanted)
    assert int(state.count) == STEPS
    # Negative control: inside is not the plain gradient.
    if case.coefficient and case.skips is None and case.name != "ae_sam":
        perturbed, _ = update(inner, PROBLEM, state.inner, params)
        assert not trees_close(perturbed, plain(PROBLEM, optimiser_state, params)[0])


@pytest.mark.parametrize("name", ["sam", "average_sam", "esam", "entropy_sgd", "saf", "mesa"])
def test_the_results_of_both_sides_have_one_form(name):
    (case,) = (case for case in METHODS if case.name == name)
    tx = optim.between(case.make(0.25), 1, 2)

    def grad_fn(params, batch=None, term=None):
        batch = PROBLEM.batch if batch is None else batch
        losses = PROBLEM.losses(params, batch)
        return PROBLEM.grad_fn(params, batch, term), (losses, jnp.mean(losses))

    @jax.jit
    def step(state):
        return tx.gradient(grad_fn, PROBLEM.params, state, **arguments(PROBLEM))

    outside, state = step(tx.init(PROBLEM.params))
    inside, _ = step(state)
    assert jax.tree.structure(outside) == jax.tree.structure(inside)
    losses = PROBLEM.losses(PROBLEM.params)
    found = outside.perturbed_aux[0]
    np.testing.assert_allclose(found, losses[: len(found)], rtol=1e-6)
    np.testing.assert_allclose(outside.perturbed_aux[1], losses.mean(), rtol=1e-6)
    assert not any(jnp.any(e) for e in jax.tree.leaves(outside.epsilon))
    assert (outside.clean_aux is None) == (inside.clean_aux is None)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("m", [None, 2])
@pytest.mark.parametrize(
    ("make", "cost"),
    [
        (lambda: optim.sam(0.1), 2),
        (lambda: optim.multi_step_sam(0.1, steps=3), 4),
        (lambda: optim.average_sam(0.1, jax.random.key(0)), 1),
        (lambda: optim.interval_sam(0.1, k=2), 2),  # of step 2
    ],
    ids=["sam", "multi_step_sam", "average_sam", "interval_sam"],
)
def test_a_step_outside_costs_one_gradient(make, cost, m, jit):
    tx, calls = optim.between(make(), start=2, end=3), []
    if m:
        tx = optim.m_sam(tx, m)
    times = 4 if m and not jit else 1  # vmap calls once for all sub-batches, only where compiled

    def grad_fn(params, batch=None):
        jax.debug.callback(lambda: calls.append(None))
        return PROBLEM.grad_fn(params, batch), None

    def step(state):
        return tx.gradient(grad_fn, PROBLEM.params, state, batch=PROBLEM.batch)[1]

    step, state = jax.jit(step) if jit else step, tx.init(PROBLEM.params)
    for wanted in (1, 1, cost, 1):
        calls.clear()
        state = jax.block_until_ready(step(state))
        jax.effects_barrier()
        assert len(calls) in (wanted, wanted * times)


def test_a_schedule_of_rho_goes_on_outside():
    rho = lambda count: 0.1 * (1 + count)  # noqa: E731
    tx, state = optim.between(optim.sam(rho), 2, 9), None
    state = tx.init(PROBLEM.params)
    for _ in range(3):
        gradient, state = update(tx, PROBLEM, state)
    wanted, _ = update(optim.sam(0.3), PROBLEM, optim.sam(0.3).init(PROBLEM.params))
    assert_trees_close(gradient, wanted)


def test_wrong_arguments_are_named():
    for make, message in (
        (lambda: optim.between(optax.sgd(0.1), 0, 1), "between takes a sharpness-aware"),
        (lambda: optim.between(optim.sam(0.1), -1, 1), "start must be a whole number"),
        (lambda: optim.between(optim.sam(0.1), 0, 1.5), "end must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
