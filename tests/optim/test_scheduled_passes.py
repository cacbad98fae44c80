"""Where a schedule leaves the second pass out, the compiled program does not compute it."""

import jax
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_close, update

import sam_jax
from sam_jax import optim
from sam_jax.optim import perturbations, schedules

SEED = 5


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


STEP_COSTS = {
    "interval_sam": (lambda: optim.interval_sam(0.1, k=2), [2, 1, 2]),
    "late_phase_sam": (lambda: optim.late_phase_sam(0.1, start=1), [1, 2, 2]),
    "looksam": (lambda: optim.looksam(0.1, k=2), [2, 1, 2]),
}


@pytest.mark.parametrize("name", STEP_COSTS)
def test_a_step_without_a_pass_costs_one_gradient(name):
    # With the state a constant XLA knows which branch a step takes, and counts that one alone.
    make, costs = STEP_COSTS[name]
    problem, tx = problems.wide_net(), make()
    gradient = flops(problem.grad_fn, problem.params)
    state = tx.init(problem.params)
    for count, cost in enumerate(costs):
        reached = state._replace(
            schedule=state.schedule._replace(count=np.int32(count)),
            perturbation=state.perturbation._replace(count=np.int32(count)),
        )
        step = flops(lambda p, s=reached: update(tx, problem, s, p)[0], problem.params)
        assert step / gradient == pytest.approx(cost, rel=0.04)


RUNS = {
    "interval_sam": (lambda: optim.interval_sam(0.1, k=2), [1, 0, 1, 0]),
    "late_phase_sam": (lambda: optim.late_phase_sam(0.1, start=2), [0, 0, 1, 1]),
    "ss_sam": (lambda: optim.ss_sam(0.1, 0.5, jax.random.key(SEED)), None),
    "looksam": (lambda: optim.looksam(0.1, k=3), [1, 0, 0, 1]),
    "ae_sam": (lambda: optim.ae_sam(0.1, 0.5), [1, 0, 0, 0]),  # the same gradients, or smaller
}


@pytest.mark.parametrize("m", [None, 2])
@pytest.mark.parametrize("name", RUNS)
def test_the_compiled_program_runs_the_second_pass_only_where_it_is_due(name, m):
    make, wanted = RUNS[name]
    problem, calls = problems.tanh_net(), []
    if m is not None and make().memory:
        m = 8  # one sub-batch is all that a method with a memory takes
    tx = make() if m is None else optim.m_sam(make(), m)

    def counted_grad_fn(params, batch=None):
        jax.debug.callback(lambda: calls.append(None))
        return problem.grad_fn(params, batch)

    @jax.jit
    def step(params, state):
        clean = problem.grad_fn(params)  # not counted
        return tx.update(clean, state, params, grad_fn=counted_grad_fn, batch=problem.batch)

    state, params = tx.init(problem.params), problem.params
    if wanted is None:
        keys = [jax.random.fold_in(jax.random.key(SEED), i) for i in range(4)]
        wanted = [int(jax.random.bernoulli(key, 0.5)) for key in keys]
        assert 0 < sum(wanted) < 4
    for due in wanted:
        calls.clear()
        passes = int(state.passes)
        gradient, state = step(params, state)
        jax.block_until_ready(gradient)
        jax.effects_barrier()
        # In m_sam the clean pass is grad_fn's too. vmap calls once for all sub-batches of a pass,
        # and would call for a pass that is computed and then not selected.
        assert len(calls) == due + (m is not None)
        assert int(state.passes) == passes + due
        params = jax.tree.map(lambda w, g: w - 0.05 * g, params, gradient)


def wrapped(make):
    return lambda: make(optax.sgd(0.1, momentum=0.9))


WITH_MEMORY = {
    "looksam": lambda: optim.looksam(0.1, k=2),
    "ae_sam": lambda: optim.ae_sam(0.1, 0.5),
    "decoupled_wsam": wrapped(lambda o: optim.decoupled_wsam(o, 0.1, 0.1)),
    "momentum_sam": wrapped(lambda o: optim.momentum_sam(o, 0.1)),
}


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_a_method_with_a_memory_takes_the_whole_batch_or_refuses(name):
    make, problem = WITH_MEMORY[name], problems.tanh_net()
    whole, state, plain_state = optim.m_sam(make(), m=8), None, None
    with jax.disable_jit():
        for _ in range(2):
            result, state = update(whole, problem, state)
            wanted, plain_state = update(make(), problem, plain_state)
            assert_trees_close(result, wanted)
    with pytest.raises(ValueError, match="m makes 4 sub-batches.*without memory"):
        update(optim.m_sam(make(), m=2), problem)


def test_the_count_of_a_scheduled_chain_of_perturbations():
    # The state of a chain is a plain tuple, whose `count` is a method.
    perturbation = optax.chain(perturbations.ascent(0.1), optax.scale(2.0))
    tx = optim.sharpness_aware(perturbation, schedule=schedules.every(2))
    problem = problems.tanh_net()
    for state, run in ((tx.init(problem.params), update), (tx.init(problem.params), jitted)):
        for count in range(3):
            assert int(state.count) == count
            assert int(state.passes) == (count + 1) // 2
            _, state = run(tx, problem, state)


def jitted(tx, problem, state):
    return jax.jit(lambda state: update(tx, problem, state))(state)


MANY_PASSES = {
    "multi_step": lambda: perturbations.multi_step_ascent(0.1, steps=3),
    "per_tensor": lambda: perturbations.projected_ascent(0.1, steps=3),
}


@pytest.mark.parametrize("name", MANY_PASSES)
@pytest.mark.parametrize("jit", [False, True])
def test_idle_steps_take_no_inner_gradients(name, jit):
    tx = optim.sharpness_aware(MANY_PASSES[name](), schedule=schedules.every(2))
    problem, calls = problems.tanh_net(), []

    def counted_grad_fn(params):
        jax.debug.callback(lambda: calls.append(None))
        return problem.grad_fn(params)

    def step(state):
        clean = problem.grad_fn(problem.params)
        return tx.update(clean, state, problem.params, grad_fn=counted_grad_fn)

    step, state = jax.jit(step) if jit else step, tx.init(problem.params)
    for passes in (3, 0, 3, 0):
        calls.clear()
        gradient, state = step(state)
        jax.block_until_ready(gradient)
        jax.effects_barrier()
        assert len(calls) == passes


def test_what_a_schedule_is_made_of_is_public():
    assert sam_jax.Schedule is optim.Schedule
    every_other = sam_jax.Schedule(
        init=lambda params: jax.numpy.zeros((), bool), decide=lambda state, clean: (state, ~state)
    )
    tx = optim.sharpness_aware(perturbations.ascent(0.1), schedule=every_other)
    problem = problems.tanh_net()
    state = tx.init(problem.params)
    assert isinstance(state, sam_jax.ScheduledState)
    plain, state = update(tx, problem, state)
    assert_trees_close(plain, problem.grad_fn(problem.params))
    assert_trees_close(update(tx, problem, state)[0], update(optim.sam(0.1), problem)[0])
