"""Every rule of a transformation's numbers, dtypes and state, over the whole table."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import problems
import pytest
from contract_table import (
    CASES,
    assert_trees_close,
    assert_trees_equal,
    epsilon_length,
    measured,
    over_cases,
    over_methods,
    trees_close,
    update,
)

RHO = 0.3


def constant_gradient(params, gradient):
    """A problem of eight examples whose gradient is the given one everywhere."""

    class Constant(problems.Problem):
        def grad_fn(self, params, batch=None):
            return jax.tree.map(lambda g, w: g.astype(w.dtype), gradient, params)

    return Constant(None, params, jnp.zeros(8))


# --- numbers ---------------------------------------------------------------------------------


@over_cases
def test_rho_zero_gives_exactly_the_plain_gradient(case):
    # All arithmetic of this problem is exact, so even the mean over sub-batches must be bitwise.
    problem = problems.least_squares()
    plain = problem.grad_fn(problem.params)
    assert_trees_equal(update(case.make(0.0), problem)[0], plain)
    assert not trees_close(update(case.make(0.1), problem)[0], plain)


@over_methods
def test_rho_zero_gives_exactly_the_plain_gradient_of_a_nonlinear_net(case):
    problem = problems.tanh_net()
    assert_trees_equal(update(case.make(0.0), problem)[0], problem.grad_fn(problem.params))


@over_cases
def test_epsilon_has_length_rho(case):
    problem = problems.tanh_net()
    # float32: w + epsilon is rounded at 6e-8 |w| per entry, and |w| is below 3.
    np.testing.assert_allclose(epsilon_length(case, case.make(RHO), problem), RHO, rtol=3e-6)


@over_cases
def test_a_zero_gradient_gives_no_perturbation_and_no_nan(case):
    params = problems.tanh_net().params
    problem = constant_gradient(params, jax.tree.map(jnp.zeros_like, params))
    perturbed = measured(case.make(RHO), problem, lambda params: params)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(perturbed))
    if case.follows_gradient:
        assert_trees_equal(perturbed, params)
    result, _ = update(case.make(RHO), problem)
    assert_trees_equal(result, problem.grad_fn(params))


@pytest.mark.parametrize("entry", [300.0, 1e-4])
@over_cases
def test_norms_of_float16_gradients_neither_overflow_nor_underflow(case, entry):
    count = 100_000
    params = jnp.ones(count, jnp.float16)
    squared_sum = jnp.sum(jnp.full(count, entry, jnp.float16) ** 2)
    assert squared_sum == jnp.inf or squared_sum < 0.9 * count * entry**2  # float16 would fail
    problem = constant_gradient(params, jnp.full(count, entry, jnp.float16))
    rho = 0.25 * count**0.5
    # Entries of epsilon are 1/4 or larger; rounding w + epsilon to float16 moves them by 2^-11.
    np.testing.assert_allclose(epsilon_length(case, case.make(rho), problem), rho, rtol=3e-3)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16", "mixed"])
@over_cases
def test_parameter_dtypes_are_kept(case, dtype):
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        leaves, structure = jax.tree.flatten(problem.params)
        dtypes = ["float64", "float32", "bfloat16", "float16"] if dtype == "mixed" else [dtype] * 4
        params = structure.unflatten(x.astype(d) for x, d in zip(leaves, dtypes, strict=True))
        tx, seen = case.make(jnp.float64(RHO)), []

        def grad_fn(params, batch=None):
            seen.append([leaf.dtype.name for leaf in jax.tree.leaves(params)])
            return problem.grad_fn(params, batch)

        result, state = jax.eval_shape(
            lambda params, state: tx.update(
                problem.grad_fn(params), state, params, grad_fn=grad_fn, batch=problem.batch
            ),
            params,
            tx.init(params),
        )
        assert seen and all(names == dtypes for names in seen)
        assert [leaf.dtype.name for leaf in jax.tree.leaves(result)] == dtypes


@over_cases
def test_selection_never_leaks_nan(case):
    mask = {"first": True, "second": False}
    params = problems.tanh_net().params
    gradient = jax.tree.map(jnp.ones_like, params)
    gradient["second"] = jax.tree.map(lambda g: g * jnp.nan, gradient["second"])
    params["second"]["kernel"] = jnp.full((4, 1), -jnp.inf)  # a switched-off weight
    problem = constant_gradient(params, gradient)
    perturbed = measured(case.make(RHO, mask=mask), problem, lambda params: params)
    assert_trees_equal(perturbed["second"], params["second"])
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(perturbed["first"]))
    assert not trees_close(perturbed["first"], params["first"], 1e-3)


def kernels_only(params):
    return jax.tree.map(lambda w: w.ndim > 1, params)


MASKS = {
    "tree": (
        {"first": {"kernel": True, "bias": False}, "second": {"kernel": True, "bias": False}},
        kernels_only,
    ),
    "prefix": (
        {"first": False, "second": True},
        lambda p: jax.tree.broadcast({"first": False, "second": True}, p),
    ),
    "everything": (True, lambda p: jax.tree.map(lambda _: True, p)),
    "function": (kernels_only, kernels_only),
}


@pytest.mark.parametrize("name", MASKS)
@over_cases
def test_mask_perturbs_the_chosen_leaves_with_their_own_norm(case, name):
    mask, chosen_of = MASKS[name]
    problem = problems.tanh_net()
    tx = case.make(RHO, mask=mask)
    perturbed = measured(tx, problem, lambda params: params)
    for keep, p, w in zip(
        *map(jax.tree.leaves, (chosen_of(problem.params), perturbed, problem.params)), strict=True
    ):
        assert bool(jnp.all(p == w)) != keep
    # Leaves that stay have epsilon 0, so the length over all leaves is that over the chosen.
    np.testing.assert_allclose(epsilon_length(case, tx, problem), RHO, rtol=3e-6)


# --- state -----------------------------------------------------------------------------------


@over_cases
def test_state_is_a_named_tuple_of_fixed_shapes_and_dtypes(case):
    problem = problems.tanh_net()
    tx = case.make(RHO)
    state = tx.init(problem.params)
    assert isinstance(state, tuple) and state._fields
    wanted = jax.eval_shape(lambda: state)
    for _ in range(2):
        _, state = update(tx, problem, state)
        assert jax.eval_shape(lambda state=state: state) == wanted
    leaves, structure = jax.tree.flatten(state)
    again, _ = update(tx, problem, structure.unflatten(leaves))
    assert_trees_equal(again, update(tx, problem, state)[0])


@over_cases
def test_state_survives_jit_and_donation_with_one_trace(case):
    problem = problems.tanh_net()
    tx, traces = case.make(RHO), []

    def step(state):
        traces.append(None)
        return update(tx, problem, state)

    donating = jax.jit(step, donate_argnums=0)
    state, eager_state = tx.init(problem.params), tx.init(problem.params)
    for _ in range(3):
        result, state = donating(state)
        wanted, eager_state = update(tx, problem, eager_state)
        assert_trees_close(result, wanted)
    assert len(traces) == 1
    # Donation took the state only, not what the transformation was built with.
    assert_trees_close(donating(tx.init(problem.params))[0], update(tx, problem)[0])


@over_cases
def test_state_survives_scan(case):
    problem = problems.tanh_net()
    tx = optax.chain(case.make(RHO), optax.sgd(0.1))

    def step(carry, _):
        params, state = carry
        updates, state = update(tx, problem, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = problem.params, tx.init(problem.params)
    (_, scanned), trajectory = jax.lax.scan(step, start, length=3)
    carry = start
    for i in range(3):
        carry, params = step(carry, None)
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], trajectory), params)
    assert_trees_equal(scanned, carry[1])


@over_cases
def test_state_survives_an_orbax_checkpoint(case, tmp_path):
    # Orbax stores typed keys as they are; jax.random.key_data is not needed.
    problem = problems.tanh_net()
    tx = case.make(RHO)
    _, state = update(tx, problem)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: state))
    assert type(restored) is type(state)
    assert_trees_equal(restored, state)
    assert_trees_equal(update(tx, problem, restored)[0], update(tx, problem, state)[0])


@over_cases
def test_a_schedule_of_rho_advances_by_one_per_update(case):
    problem = problems.tanh_net()
    values = jnp.array([0.3, 0.0, 0.1, 0.5])
    scheduled = case.make(lambda step: values[step])
    state = scheduled.init(problem.params)
    for step, rho in enumerate(values):
        wanted, _ = update(case.make(rho), problem, state)
        other, _ = update(case.make(values[step - 1]), problem, state)
        result, state = update(scheduled, problem, state)
        assert_trees_close(result, wanted)
        assert not trees_close(result, other)
        assert int(state.count) == step + 1


@over_methods
def test_a_transformation_survives_copies_and_tree_maps(case):
    problem = problems.tanh_net()
    tx = case.make(RHO)
    wanted, _ = update(tx, problem)
    for again in (
        copy.copy(tx),
        copy.deepcopy(tx),
        jax.tree.map(lambda leaf: leaf, tx),
        tx._replace(init=tx.init),
    ):
        assert_trees_equal(update(again, problem)[0], wanted)
        assert_trees_equal(
            measured(again, problem, lambda w: w), measured(tx, problem, lambda w: w)
        )


def test_the_table_covers_every_public_method():
    names = {"sam", "asam", "average_sam", "m_sam"}
    assert names <= {case.name.split("(")[0] for case in CASES}
