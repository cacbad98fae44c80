"""What optax's wrappers and other links make of a method: one test a row of the methods' guide.

Where a row says that a combination cannot be right, its test pins what happens instead.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import RHO, assert_trees_close, assert_trees_equal, trees_close

import sam_jax
from sam_jax import pytree

PROBLEM = problems.dense_net()
PARAMS = PROBLEM.params
SGD = optax.sgd(0.5)


def loss(params):
    return PROBLEM.loss_fn(params, PROBLEM.batch)


def value_fn(params, grad_fn=None):
    """optax's searches hand on every extra argument, and want each to be named."""
    del grad_fn
    return loss(params)


def sam():
    return sam_jax.sam(RHO)


@jax.jit
def sam_gradient(params):
    gradient = PROBLEM.grad_fn(params)
    return sam().update(gradient, sam().init(params), params, grad_fn=PROBLEM.grad_fn)[0]


def run(tx, steps=1, params=PARAMS, grad_fn=PROBLEM.grad_fn, at=lambda params: params, **extra):
    """Return the parameters after some steps, and the state; an extra function is evaluated."""

    @jax.jit
    def step(params, state):
        point = at(params)
        given = {name: extra[name](point) for name in ("value", "grad") if name in extra}
        updates, state = tx.update(
            PROBLEM.grad_fn(point), state, params, grad_fn=grad_fn, **(extra | given)
        )
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def run_on_sam_gradients(optimiser, steps, **extra):
    """The same with SAM's gradient computed outside, which the optimiser gets as its own."""

    @jax.jit
    def step(params, state):
        given = {name: extra[name](params) for name in ("value", "grad") if name in extra}
        updates, state = optimiser.update(sam_gradient(params), state, params, **(extra | given))
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimiser.init(PARAMS)
    for _ in range(steps):
        params, state = step(params, state)
    return params


# --- before and after -------------------------------------------------------------------------

DIRECTION_LINKS = {
    "clip_by_global_norm": optax.clip_by_global_norm(1e-3),
    "scale": optax.scale(7.0),
    "normalize_by_update_norm": optax.normalize_by_update_norm(),
}


@pytest.mark.parametrize("name", DIRECTION_LINKS)
def test_a_clip_before_the_method_is_lost(name):
    # It changes the length of the clean gradient, of which SAM takes the direction alone.
    link, tx = DIRECTION_LINKS[name], optax.chain(sam(), SGD)
    before, _ = run(optax.chain(link, tx))
    assert_trees_close(before, run(tx)[0])
    # The same where a trainer clips before it calls tx.update.
    clipped, _ = link.update(PROBLEM.grad_fn(PARAMS), link.init(PARAMS), PARAMS)
    updates, _ = tx.update(clipped, tx.init(PARAMS), PARAMS, grad_fn=PROBLEM.grad_fn)
    assert_trees_close(optax.apply_updates(PARAMS, updates), before)
    after, _ = run(optax.chain(sam(), DIRECTION_LINKS[name], SGD))
    assert not trees_close(after, before, 1e-3)


def test_what_stands_before_the_method_shapes_the_direction_alone():
    links = optax.ema(0.9), optax.add_decayed_weights(10.0), optax.trace(0.9)
    for link in links:
        tx = optax.chain(link, sam(), SGD)
        clean = PROBLEM.grad_fn(PARAMS)
        direction, _ = link.update(clean, link.init(PARAMS), PARAMS)
        gradient, _ = sam().update(direction, sam().init(PARAMS), PARAMS, grad_fn=PROBLEM.grad_fn)
        wanted = jax.tree.map(lambda w, g: w - 0.5 * g, PARAMS, gradient)
        assert_trees_close(run(tx)[0], wanted)


OPTIMISERS = {
    "clip_by_global_norm": (optax.chain(optax.clip_by_global_norm(0.1), SGD), {}),
    "adaptive_grad_clip": (optax.chain(optax.adaptive_grad_clip(0.1), SGD), {}),
    "add_decayed_weights": (optax.chain(optax.add_decayed_weights(0.1), SGD), {}),
    "ema": (optax.chain(optax.ema(0.9), SGD), {}),
    "centralize": (optax.chain(optax.centralize(), SGD), {}),
    "zero_nans": (optax.chain(optax.zero_nans(), SGD), {}),
    "apply_every": (optax.chain(optax.apply_every(2), SGD), {}),
    "adamw": (optax.adamw(0.1), {}),
    "lion": (optax.lion(0.01), {}),
    "muon": (optax.contrib.muon(0.02), {}),
    "prodigy": (optax.contrib.prodigy(0.1), {}),
    "mechanize": (optax.contrib.mechanize(SGD), {}),
    "schedule_free": (optax.contrib.schedule_free_sgd(0.1), {}),
    "flatten": (optax.flatten(optax.adam(0.1)), {}),
    "scale_by_lbfgs": (optax.chain(optax.scale_by_lbfgs(), optax.scale(-0.1)), {}),
    "reduce_on_plateau": (optax.chain(SGD, optax.contrib.reduce_on_plateau()), {"value": loss}),
    "momo": (optax.contrib.momo(0.1), {"value": loss}),
    "polyak_sgd": (optax.polyak_sgd(), {"value": loss}),
    "sophia": (optax.contrib.sophia(0.01), {"obj_fn": loss}),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_stands_after_the_method_gets_its_gradient(name):
    optimiser, extra = OPTIMISERS[name]
    params, _ = run(optax.chain(sam(), optimiser), steps=3, **extra)
    # Three steps amplify float32 rounding, Muon's orthogonalisation most.
    assert_trees_close(params, run_on_sam_gradients(optimiser, 3, **extra), 1e-4)
    assert not trees_close(params, PARAMS, 1e-3) or name in ("mechanize", "prodigy")
    assert not trees_close(params, PARAMS, 0)


def test_of_two_methods_in_one_chain_the_second_takes_the_first_for_the_clean_gradient():
    average = sam_jax.average_sam(RHO, jax.random.key(0))
    assert_trees_equal(run(optax.chain(sam(), average, SGD))[0], run(optax.chain(average, SGD))[0])
    direction = sam_gradient(PARAMS)
    second, _ = sam().update(direction, sam().init(PARAMS), PARAMS, grad_fn=PROBLEM.grad_fn)
    wanted = jax.tree.map(lambda w, g: w - 0.5 * g, PARAMS, second)
    assert_trees_close(run(optax.chain(sam(), sam(), SGD))[0], wanted)


def test_a_clip_around_a_method_that_wraps_its_optimiser():
    wrapper = sam_jax.momentum_sam(optax.sgd(0.5, momentum=0.9), RHO)
    clip = optax.clip_by_global_norm(0.01)
    assert_trees_equal(run(optax.chain(clip, wrapper), 2)[0], run(wrapper, 2)[0])  # unread
    inside = sam_jax.momentum_sam(optax.chain(clip, optax.sgd(0.5, momentum=0.9)), RHO)
    moved = jax.tree.map(jnp.subtract, run(inside)[0], PARAMS)
    np.testing.assert_allclose(pytree.norm(moved), 0.5 * 0.01, rtol=1e-4)


# --- wrappers that hide something -------------------------------------------------------------

HALF = {"LayerNorm_0": True, "Dense_0": False}
LABELS = {"LayerNorm_0": "a", "Dense_0": "b"}
HIDING = {
    "masked": lambda: optax.chain(optax.masked(sam(), HALF), SGD),
    "partition": lambda: optax.partition({"a": optax.chain(sam(), SGD), "b": SGD}, LABELS),
    "selective_transform": lambda: optax.transforms.selective_transform(
        optax.chain(sam(), SGD), freeze_mask=HALF
    ),
}


@pytest.mark.parametrize("name", HIDING)
def test_a_wrapper_that_hides_leaves_is_sent_to_the_mask(name):
    with pytest.raises(ValueError, match="(?s)hides leaves from grad_fn.*mask=mask"):
        run(HIDING[name]())


FREEZING = {
    "partition": optax.partition({"a": SGD, "b": optax.set_to_zero()}, LABELS),
    "freeze": optax.chain(SGD, optax.transforms.freeze({"LayerNorm_0": False, "Dense_0": True})),
}


@pytest.mark.parametrize("name", FREEZING)
def test_a_frozen_leaf_is_perturbed_unless_the_mask_leaves_it_out(name):
    points = []

    def grad_fn(params):
        points.append(params)
        return PROBLEM.grad_fn(params)

    for mask, moves in ((None, True), (HALF, False)):
        tx = optax.chain(sam_jax.sam(RHO, mask=mask), FREEZING[name])
        with jax.disable_jit():
            after, _ = run(tx, grad_fn=grad_fn)
        assert_trees_equal(after["Dense_0"], PARAMS["Dense_0"])  # frozen in either case
        assert not trees_close(after["LayerNorm_0"], PARAMS["LayerNorm_0"], 1e-3)
        assert trees_close(points[-1]["Dense_0"], PARAMS["Dense_0"], 1e-6) is not moves


def test_flatten_hands_grad_fn_one_vector():
    tx = optax.flatten(optax.chain(sam(), SGD))
    with pytest.raises(TypeError, match="string indexing"):  # from the loss, which gets a vector
        run(tx)
    _, unflatten = jax.flatten_util.ravel_pytree(PARAMS)

    def grad_fn(vector):
        return jax.flatten_util.ravel_pytree(PROBLEM.grad_fn(unflatten(vector)))[0]

    assert_trees_close(run(tx, grad_fn=grad_fn)[0], run(optax.chain(sam(), SGD))[0])


# --- wrappers that hand on no grad_fn ---------------------------------------------------------


def test_lookahead_takes_the_method_before_it():
    lookahead = optax.lookahead(SGD, sync_period=2, slow_step_size=0.5)
    both = optax.LookaheadParams.init_synced(PARAMS)
    for tx, error in (
        (optax.lookahead(optax.chain(sam(), SGD), 2, 0.5), TypeError),  # hands on no grad_fn
        (optax.chain(sam(), lookahead), ValueError),  # gives the method fast and slow parameters
    ):
        with pytest.raises(error, match="grad_fn"):
            run(tx, params=both, at=lambda params: params.fast)
    method = sam()
    value_and_grad = sam_jax.value_and_grad(method, jax.value_and_grad(loss))
    params, method_state, state = both, method.init(PARAMS), lookahead.init(both)
    for _ in range(2):
        (_, gradient), method_state = value_and_grad(params.fast, method_state)
        updates, state = lookahead.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    fast, _ = run(optax.chain(sam(), SGD), steps=2)
    wanted = jax.tree.map(lambda slow, fast: (slow + fast) / 2, PARAMS, fast)
    assert_trees_close(params.slow, wanted)
    assert_trees_close(params.fast, wanted)


def test_complex_parameters_and_their_wrapper():
    tx = optax.contrib.split_real_and_imaginary(optax.chain(sam(), SGD))
    with pytest.raises(TypeError, match="grad_fn"):
        run(tx)


# --- searches ---------------------------------------------------------------------------------

SEARCHES = {
    "backtracking": lambda: (optax.scale(-1.0), optax.scale_by_backtracking_linesearch(15)),
    "zoom": lambda: (optax.scale(-1.0), optax.scale_by_zoom_linesearch(15)),
    "lbfgs": lambda: (optax.lbfgs(),),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_along_the_methods_direction(name):
    # value, grad and value_fn are of the clean loss, which each step of the search lowers.
    tx = optax.chain(sam(), *SEARCHES[name]())
    extra = {"value": loss, "grad": PROBLEM.grad_fn}
    losses = [loss(PARAMS)]
    for steps in (1, 2, 3):
        losses.append(loss(run(tx, steps, value_fn=value_fn, **extra)[0]))
    assert all(later < earlier for earlier, later in zip(losses, losses[1:], strict=False))
    if tuple(map(int, optax.__version__.split("."))) >= (0, 2, 8):  # older ones leave it out
        with pytest.raises(TypeError, match="not consumed by `value_fn`: .'grad_fn'"):
            run(tx, value_fn=lambda params: loss(params), **extra)


def test_a_search_that_keeps_the_value_and_the_gradient():
    tx = optax.chain(
        sam(), optax.scale(-1.0), optax.scale_by_backtracking_linesearch(15, store_grad=True)
    )
    _, state = run(tx, value=loss, grad=PROBLEM.grad_fn, value_fn=value_fn)
    params, _ = run(tx, value=loss, grad=PROBLEM.grad_fn, value_fn=value_fn)
    value, gradient = optax.value_and_grad_from_state(loss)(params, state=state)
    np.testing.assert_allclose(value, loss(params), rtol=1e-6)
    assert_trees_close(gradient, PROBLEM.grad_fn(params))  # the clean one, to hand to tx.update
