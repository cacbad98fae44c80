"""Wrappers that skip, accumulate, average or scale steps: rows of the methods' guide."""

import jax
import jax.numpy as jnp
import optax
import problems
import pytest
from contract_runs import RHO, assert_trees_close, assert_trees_equal, trees_close, update
from contract_table import METHODS, over

import sam_jax

PROBLEM = problems.dense_net()
PARAMS = PROBLEM.params
SGD = optax.sgd(0.5)
K = 2
HALVES = [
    PROBLEM._replace(batch=jax.tree.map(lambda x, s=s: x[s], PROBLEM.batch))
    for s in (slice(4), slice(4, 8))
]


def sam():
    return sam_jax.sam(RHO)


def steps(tx, parts, params=PARAMS, state=None):
    """Return the parameters after one step on each part, and the state."""
    take = jax.jit(
        lambda s, p, batch: update(tx, PROBLEM._replace(batch=batch), s, p, **own(batch))
    )
    state = tx.init(params) if state is None else state
    for part in parts:
        updates, state = take(state, params, part.batch)
        params = optax.apply_updates(params, updates)
    return params, state


def own(batch):
    """The gradient of a part alone."""
    return {"grad_fn": PROBLEM._replace(batch=batch).grad_fn}


def sgd_step(gradient, params=PARAMS):
    return jax.tree.map(lambda w, g: w - 0.5 * g, params, gradient)


def mean(*trees):
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


# --- accumulation -----------------------------------------------------------------------------


def test_multi_steps_after_the_method_is_m_sam_over_micro_batches():
    tx = optax.chain(sam(), optax.MultiSteps(SGD, K).gradient_transformation())
    params, _ = steps(tx, HALVES)
    each = [update(sam(), half)[0] for half in HALVES]
    assert_trees_close(params, sgd_step(mean(*each)))
    m_sam = sam_jax.m_sam(sam(), m=4, strategy="scan")
    assert_trees_close(params, sgd_step(update(m_sam, PROBLEM)[0]))
    # Around the chain instead, the second pass is the last micro-batch's alone.
    around, _ = steps(optax.MultiSteps(optax.chain(sam(), SGD), K), HALVES)
    assert not trees_close(around, params, 1e-2)


def test_schedules_and_averages_count_the_updates_that_reach_them():
    interval = sam_jax.interval_sam(RHO, k=2)
    inner = optax.MultiSteps(SGD, K).gradient_transformation()
    _, state = steps(optax.chain(interval, inner), HALVES * 2)
    assert int(state[0].passes) == 2  # every second micro-batch, two updates of the optimiser
    _, state = steps(optax.MultiSteps(optax.chain(interval, SGD), K), HALVES * 2)
    assert int(state.inner_opt_state[0].passes) == 1  # of two updates
    _, state = steps(optax.chain(sam(), inner, sam_jax.weight_ema(0.5)), HALVES * 2)
    assert int(state[-1].averaged) == 4  # the unmoved parameters count as well
    inside = optax.MultiSteps(optax.chain(SGD, sam_jax.weight_ema(0.5)), K)
    params, state = steps(optax.chain(sam(), inside.gradient_transformation()), HALVES * 2)
    first, _ = steps(optax.chain(sam(), inner), HALVES)
    assert_trees_close(sam_jax.averaged_params(state, params), mean(first, params))


# --- steps that are skipped -------------------------------------------------------------------


def overflows_when_perturbed(params):
    """A gradient that is finite at PARAMS alone."""
    gradient = PROBLEM.grad_fn(params)
    is_clean = jnp.all(params["Dense_0"]["bias"] == PARAMS["Dense_0"]["bias"])
    return jax.tree.map(lambda g: jnp.where(is_clean, g, jnp.inf), gradient)


def skipping(optimiser):
    tx = optax.MultiSteps(optimiser, 1, should_skip_update_fn=optax.skip_not_finite)
    return tx.gradient_transformation()


GUARDS = {"apply_if_finite": lambda tx: optax.apply_if_finite(tx, 5), "skip_not_finite": skipping}


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_around_the_chain_sees_the_clean_gradient_alone(name):
    guard = GUARDS[name]

    def is_unmoved(tx):
        gradient = overflows_when_perturbed(PARAMS)
        updates, _ = tx.update(gradient, tx.init(PARAMS), PARAMS, grad_fn=overflows_when_perturbed)
        return trees_close(optax.apply_updates(PARAMS, updates), PARAMS, 0)

    assert is_unmoved(optax.chain(sam(), guard(SGD)))
    assert not is_unmoved(guard(optax.chain(sam(), SGD)))


def test_conditional_transforms():
    def is_odd(step):
        return step % 2 == 1

    plain, _ = steps(SGD, [PROBLEM])
    tx = optax.chain(optax.transforms.conditionally_transform(sam(), is_odd), SGD)
    first, state = steps(tx, [PROBLEM])
    assert_trees_close(first, plain)  # SAM on every second step, from the second on
    second, _ = steps(tx, [PROBLEM], first, state)
    assert_trees_close(second, steps(optax.chain(sam(), SGD), [PROBLEM], first)[0])
    tx = optax.transforms.conditionally_mask(optax.chain(sam(), SGD), is_odd)
    assert_trees_equal(steps(tx, [PROBLEM])[0], PARAMS)
    assert_trees_close(steps(tx, [PROBLEM] * 2)[0], steps(optax.chain(sam(), SGD), [PROBLEM])[0])


# --- averages of the trajectory ---------------------------------------------------------------


def test_schedule_free_around_the_chain_or_after_the_method():
    around = optax.contrib.schedule_free(optax.chain(sam(), SGD), 0.5)
    after = optax.chain(sam(), optax.contrib.schedule_free(SGD, 0.5))
    params, state = steps(around, [PROBLEM] * 3)
    assert_trees_close(steps(after, [PROBLEM] * 3)[0], params)
    # By hand: epsilon is added to y, where the gradients of the schedule-free method are taken.
    y = x = z = PARAMS
    for t in range(3):
        z = sgd_step(update(sam(), PROBLEM, params=y)[0], z)
        x = jax.tree.map(lambda x, z, t=t: x + (z - x) / (t + 1), x, z)
        y = jax.tree.map(lambda x, z: 0.9 * x + 0.1 * z, x, z)
    assert_trees_close(params, y)
    assert_trees_close(optax.contrib.schedule_free_eval_params(state, params), x, 1e-4)


# --- scales and noise -------------------------------------------------------------------------


def test_a_scaled_loss_is_unscaled_after_the_method_or_in_grad_fn():
    scale = 2.0**10

    def scaled(params):
        return jax.tree.map(lambda g: scale * g, PROBLEM.grad_fn(params))

    tx = optax.chain(sam(), optax.scale(1 / scale), optax.clip_by_global_norm(0.1), SGD)
    updates, _ = tx.update(scaled(PARAMS), tx.init(PARAMS), PARAMS, grad_fn=scaled)
    wanted, _ = steps(optax.chain(sam(), optax.clip_by_global_norm(0.1), SGD), [PROBLEM])
    assert_trees_close(optax.apply_updates(PARAMS, updates), wanted)


def test_private_gradients_lose_their_privacy():
    # The noise and the clips of the link before stay in the direction of epsilon.
    def result(seed):
        private = optax.contrib.differentially_private_aggregate(0.1, 5.0, jax.random.key(seed))
        tx = optax.chain(private, sam_jax.sam(0.0))
        examples = jax.tree.map(lambda x: x[:, None], PROBLEM.batch)
        each = jax.vmap(PROBLEM.grad_fn, (None, 0))(PARAMS, examples)
        return tx.update(each, tx.init(PARAMS), PARAMS, grad_fn=PROBLEM.grad_fn)[0]

    assert_trees_equal(result(0), PROBLEM.grad_fn(PARAMS))
    assert_trees_equal(result(0), result(1))


# --- states -----------------------------------------------------------------------------------


@over(cases=METHODS)
def test_tree_map_params_finds_what_has_the_form_of_the_parameters(case):
    tx = case.make(RHO) if case.wraps else optax.chain(case.make(RHO), optax.sgd(0.5, 0.5))
    state = tx.init(PARAMS)
    marked = optax.tree_map_params(tx, lambda leaf: leaf + 1, state)
    assert jax.tree.structure(marked) == jax.tree.structure(state)
    changed = [
        leaf
        for leaf, old in zip(jax.tree.leaves(marked), jax.tree.leaves(state), strict=True)
        if leaf is not old
    ]
    assert len(changed) % len(jax.tree.leaves(PARAMS)) == 0 and len(changed) > 0
    assert {leaf.shape for leaf in changed} <= {leaf.shape for leaf in jax.tree.leaves(PARAMS)}
