"""Every rule of a method's numbers and state, over the whole table."""

import copy
import warnings

import jax
import jax.numpy as jnp
import orbax.checkpoint
import problems
import pytest
from contract_runs import (
    RHO,
    all_finite,
    arguments,
    assert_plain,
    assert_trees_close,
    assert_trees_equal,
    compiled,
    counts,
    epsilon_length,
    moved,
    other_batch,
    perturbed,
    plain_results,
    state_at,
    trees_close,
    update,
)
from contract_table import APPLIES, CASES, METHODS, over

from sam_jax import optim, pytree


class Constant(problems.Problem):
    """Eight examples whose gradient is `batch` everywhere; the batches are alike."""

    def grad_fn(self, params, batch=None, term=None):
        return jax.tree.map(lambda g, w: g[0].astype(w.dtype), self.batch, params)

    def losses(self, params, batch=None):
        return jnp.zeros(len(jax.tree.leaves(self.or_whole(batch))[0]))

    def logits(self, params, batch=None):
        return jnp.zeros((len(self.losses(params, batch)), 2))


def constant_gradient(params, gradient):
    return Constant(None, params, jax.tree.map(lambda g: jnp.stack([g] * 8), gradient))


# --- numbers ----------------------------------------------------------------------------------


@over("off at zero")
def test_a_coefficient_of_zero_gives_exactly_the_plain_results(case):
    # All arithmetic of this net is exact, so even the mean over sub-batches must be bitwise.
    step = compiled(case)
    state = step.start()
    for wanted in plain_results(case, step.problem, updates=3):
        result, _, state = step(0.0, state)
        assert_trees_equal(result, wanted)
    state = step.state_at(RHO, case.perturbs)
    assert not trees_close(step(RHO, state)[0], step(0.0, state)[0], 1e-3)


@jax.disable_jit()
@over("off at zero", METHODS)
def test_a_coefficient_of_zero_gives_the_plain_results_of_a_curved_net(case):
    problem = problems.dense_net()
    tx = case.make(0.0)
    state = tx.init(problem.params)
    for wanted in plain_results(case, problem, updates=2):
        result, state = update(tx, problem, state)
        assert_plain(case, result, wanted)


@jax.disable_jit()
@over("a length")
def test_epsilon_has_length_rho(case):
    # float32: w + epsilon is rounded at 6e-8 |w| per entry, and |w| is below 3.
    length = epsilon_length(case, case.make(RHO), problems.dense_net())
    assert length == pytest.approx(RHO, rel=3e-6)


def result_of(tx, problem, state):
    return tx.gradient(problem.aux_grad_fn, problem.params, state, **arguments(problem))[0]


@jax.disable_jit()
@over("an epsilon")
def test_epsilon_is_what_was_added_to_the_parameters(case):
    problem, tx = problems.dense_net(), case.make(RHO)
    result = result_of(tx, problem, state_at(tx, problem, case.perturbs))
    assert_trees_equal(pytree.add(problem.params, result.epsilon), result.perturbed_aux)
    assert any(moved(result.perturbed_aux, problem.params))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(result.epsilon))
    if case.skips is not None:  # the same on a step without a pass, where nothing is added
        result = result_of(tx, problem, state_at(tx, problem, case.skips))
        assert_trees_equal(result.epsilon, jax.tree.map(jnp.zeros_like, result.epsilon))
        assert_trees_equal(result.perturbed_aux, problem.params)


@jax.disable_jit()
@over("passes")
def test_there_is_no_epsilon_where_there_is_no_one_point(case):
    problem, tx = problems.dense_net(), case.make(RHO)
    epsilon = result_of(tx, problem, tx.init(problem.params)).epsilon
    assert (epsilon is not None) == APPLIES["an epsilon"](case)


@jax.disable_jit()
@over("passes")
def test_a_zero_gradient_gives_no_nan(case):
    params = problems.dense_net().params
    problem = constant_gradient(params, jax.tree.map(jnp.zeros_like, params))
    tx = case.make(RHO)
    state = state_at(tx, problem, case.perturbs)
    assert all_finite(update(tx, problem, state)[0])
    assert all_finite(perturbed(case, RHO, problem))


@jax.disable_jit()
@over("zero at a zero gradient")
def test_a_zero_gradient_gives_a_zero_epsilon(case):
    params = problems.dense_net().params
    problem = constant_gradient(params, jax.tree.map(jnp.zeros_like, params))
    assert_trees_equal(perturbed(case, RHO, problem), params)
    tx = case.make(RHO)
    result, _ = update(tx, problem, state_at(tx, problem, case.perturbs))
    assert_trees_equal(result, jax.tree.map(jnp.zeros_like, params))


@jax.disable_jit()
@pytest.mark.parametrize("entry", [300.0, 1e-4])
@over("a length")
def test_norms_of_float16_gradients_neither_overflow_nor_underflow(case, entry):
    count = 100_000
    gradient = jnp.full((count // 100, 100), entry, jnp.float16)
    squared_sum = jnp.sum(gradient**2)
    assert squared_sum == jnp.inf or squared_sum < 0.9 * count * entry**2  # float16 would fail
    params = {"LayerNorm_0": {"kernel": jnp.ones_like(gradient)}}
    problem = constant_gradient(params, {"LayerNorm_0": {"kernel": gradient}})
    rho = 0.25 * (count**0.5 if case.length(params, params) > 2 else 1)
    # Entries of epsilon are 1/4 or larger; rounding w + epsilon to float16 moves them by 2^-11.
    assert epsilon_length(case, case.make(rho), problem) == pytest.approx(rho, rel=3e-3)


# --- state ------------------------------------------------------------------------------------


@over()
def test_state_is_a_named_tuple_of_fixed_shapes_and_dtypes(case):
    step = compiled(case)
    state = step.start()
    assert isinstance(state, tuple) and state._fields
    wanted = jax.eval_shape(lambda: state)
    for _ in range(2):
        state = step(RHO, state)[-1]
        assert jax.eval_shape(lambda state=state: state) == wanted
    leaves, structure = jax.tree.flatten(state)
    assert_trees_equal(step(RHO, structure.unflatten(leaves))[0], step(RHO, state)[0])


@over()
def test_state_survives_jit_and_donation_with_one_trace(case):
    step = compiled(case)
    params = jax.tree.map(jnp.copy, step.problem.params)
    state = step.init(params)
    rho = jnp.full(8, RHO, jnp.float32)
    with jax.disable_jit():
        tx = case.make(RHO)
        eager_state = tx.init(params)
        wanted = []
        for _ in range(3):
            result, eager_state = update(tx, step.problem, eager_state)
            wanted.append(result)
    for expected in wanted:
        result, _, state = step.donating(rho, params, state, step.problem.batch)
        assert_trees_close(result, expected)
        params = jax.tree.map(jnp.copy, step.problem.params)
    assert step.traces == 1
    # Donation took the state only, not what the method was built with.
    assert_trees_close(step(RHO, step.init(params))[0], wanted[0])


@over()
def test_state_survives_scan(case):
    rho = RHO / 16  # the gradients of this net are large, and so is what usam makes of them
    problem, tx = problems.exact_net(), case.make(rho)
    start = problem.params, tx.init(problem.params)

    def descend(params, result):
        return jax.tree.map(lambda w, r: w - r / 1024, params, result)

    def body(carry, batch):
        params, state = carry
        result, state = update(tx, problem._replace(batch=batch), state, params)
        return (descend(params, result), state), result

    batches = [problem.batch, other_batch(problem.batch), problem.batch]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    (_, scanned), results = jax.jit(lambda *start: jax.lax.scan(body, start, stacked))(*start)
    params, state = start
    for i, batch in enumerate(batches):
        result, _, state = compiled(case)(rho, state, params, batch)
        params = descend(params, result)
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], results), result)
    assert counts(scanned) == counts(state) != []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The states of all cases after an update, and what a checkpoint gives back of them."""
    states = {case.name: compiled(case).state_at(RHO, 1) for case in CASES}
    path = tmp_path_factory.mktemp("checkpoint") / "states"
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, states)
        checkpointer.wait_until_finished()
        with warnings.catch_warnings():  # the oldest orbax says so without places of the arrays
            warnings.filterwarnings("ignore", "Sharding info not provided")
            return states, checkpointer.restore(path, jax.eval_shape(lambda: states))


@over()
def test_state_survives_an_orbax_checkpoint(case, checkpoint):
    # Orbax stores typed keys as they are; jax.random.key_data is not needed.
    state, restored = (states[case.name] for states in checkpoint)
    assert type(restored) is type(state)
    assert_trees_equal(restored, state)


@over("a coefficient")
def test_a_schedule_advances_by_one_per_update(case):
    step = compiled(case)
    values = jnp.array([0.25, 0.0, 0.125, 0.5, 0.0625, 0.375, 0.1875, 0.3125])
    batches = [other_batch(step.problem.batch), step.problem.batch] * 2
    state, differs = step.start(), []
    for i, batch in enumerate(batches):
        result, _, new_state = step(values, state, batch=batch)
        assert_trees_equal(result, step(values[i], state, batch=batch)[0])
        differs.append(not trees_close(result, step(values[i - 1], state, batch=batch)[0]))
        state = new_state
        assert set(counts(state)) == {i + 1}
    assert differs[case.perturbs]  # the others may make no pass
    assert differs == [True] * 4 or case.skips is not None or case.memory


@jax.disable_jit()
@over(cases=[case for case in CASES if case.name in ("sam", "interval_sam", "m_sam(sam)")])
def test_a_transformation_survives_copies_and_tree_maps(case):
    problem = problems.dense_net()
    tx = case.make(RHO)
    wanted, _ = update(tx, problem)
    for again in (
        copy.copy(tx),
        copy.deepcopy(tx),
        jax.tree.map(lambda leaf: leaf, tx),
        tx._replace(init=tx.init),
        type(tx)(**tx._asdict()),  # as Keras rebuilds the attributes of a model
    ):
        assert isinstance(again, optim.SharpnessAwareTransformation)
        assert again.memory == tx.memory
        assert_trees_equal(update(again, problem)[0], wanted)
