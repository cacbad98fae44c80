"""SAF and MESA: what they remember, in sub-batches and on several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from softmax_problem import (
    BATCH,
    CLASSES,
    EXAMPLES,
    RATE,
    TERM_METHODS,
    assert_trees_close,
    assert_trees_equal,
    difference,
    extra_args,
    grad_fn,
    jax_trajectory,
    logits_fn,
    make_data,
    numpy_gradient,
    numpy_tree,
    one_step,
    over_term_methods,
    plus,
)

from sam_jax import optim, pytree
from sam_jax.optim import devices

# --- states ------------------------------------------------------------------------------------


def test_the_average_is_kept_in_float32_and_starts_at_the_parameters():
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), make_data()[0])
    _, images, labels, _ = make_data()
    batch = images.astype(jnp.bfloat16), labels
    tx = optim.mesa(decay=0.999)
    gradient, state = one_step(tx, params, tx.init(params), batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.average)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}
    assert_trees_equal(state.average, jax.tree.map(lambda w: w.astype(jnp.float32), params))


def test_saf_counts_visits_and_stores_in_the_oldest_slot():
    params, images, labels, _ = make_data()
    tx = optim.saf(EXAMPLES, CLASSES, epochs_back=2, start_epoch=0)
    state, seen = tx.init(params), []
    indices = jnp.array([7, 2, 5])
    batch = images[indices], labels[indices]
    for scale in (1.0, 2.0, 3.0):
        w = pytree.scale(params, scale)
        seen.append(logits_fn(w, batch))
        _, state = one_step(tx, w, state, batch, indices)
    assert int(state.count) == 3
    expected = np.zeros(EXAMPLES, int)
    expected[[7, 2, 5]] = 3
    assert state.visits.tolist() == expected.tolist()
    assert_trees_close(state.logits[indices, 0], seen[2])
    assert_trees_close(state.logits[indices, 1], seen[1])
    assert jnp.all(state.logits[jnp.array([0, 1, 3, 4])] == 0)


def test_an_index_beyond_the_set_has_no_memory():
    params, images, labels, _ = make_data()
    tx = optim.saf(4, CLASSES, epochs_back=1, start_epoch=0)
    batch, state = (images[:2], labels[:2]), tx.init(params)
    for scale in (1.0, 2.0):
        w = pytree.scale(params, scale)
        outside, state = one_step(tx, w, state, batch, jnp.array([4, 4]))
        assert_trees_close(outside, numpy_gradient(numpy_tree(w), *batch))
    assert jnp.all(state.visits == 0) and jnp.all(state.logits == 0)


# --- sub-batches and devices -------------------------------------------------------------------


@over_term_methods
def test_in_m_sam_with_the_whole_batch_the_method_is_itself(name):
    data = make_data()
    make = TERM_METHODS[name]
    for strategy in ("vmap", "scan"):
        wrapped = jax_trajectory(optim.m_sam(make(), BATCH, strategy), data)
        assert difference(wrapped, jax_trajectory(make(), data)) == 0


def test_saf_refuses_several_sub_batches_and_mesa_averages_over_them():
    data = make_data()
    with pytest.raises(ValueError, match="predictions of past epochs"):
        jax_trajectory(optim.m_sam(TERM_METHODS["saf"](), 3), data)
    # Mean losses and mean terms of equal sub-batches: their mean is that of the batch.
    mesa = jax_trajectory(TERM_METHODS["mesa"](), data)
    for strategy in ("vmap", "scan"):
        split = jax_trajectory(optim.m_sam(TERM_METHODS["mesa"](), 3, strategy), data)
        assert difference(split, mesa) < 1e-5


@pytest.mark.devices
@pytest.mark.parametrize("check_vma", [False, True])
def test_saf_keeps_one_memory_on_all_devices(check_vma):
    params, images, labels, order = make_data()
    mesh = Mesh(np.array(jax.devices()[:2]), ("devices",))
    alone = TERM_METHODS["saf"]()
    shared = TERM_METHODS["saf"](axis_name="devices")

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec("devices")),
        out_specs=PartitionSpec(),
        check_vma=check_vma,
    )
    def sharded(params, state, indices):
        # Every device takes the gradient of its own half, from parameters marked as its own.
        local = devices.vary_over(params, "devices")
        batch = images[indices], labels[indices]
        gradient, state = shared.update(local, state, local, **extra_args(batch, indices))
        return jax.lax.pmean(gradient, "devices"), state

    state = sharded_state = alone.init(params)
    for indices in map(jnp.asarray, order[:4]):
        batch = images[indices], labels[indices]
        gradient, state = one_step(alone, params, state, batch, indices)
        sharded_gradient, sharded_state = sharded(params, sharded_state, indices)
        assert_trees_close(sharded_gradient, gradient)
        assert_trees_close(sharded_state._asdict()["logits"], state.logits)
        assert_trees_equal(sharded_state.visits, state.visits)
        params = plus(params, gradient, -RATE)
    assert jnp.all(state.visits == 2)


@pytest.mark.devices
def test_saf_keeps_one_memory_under_pmap_in_m_sam():
    params, images, labels, order = make_data()
    alone = TERM_METHODS["saf"]()
    tx = optim.m_sam(TERM_METHODS["saf"](axis_name="devices"), BATCH, axis_name="devices")

    @functools.partial(jax.pmap, axis_name="devices", in_axes=(None, 0, 0))
    def step(params, state, indices):
        batch = images[indices], labels[indices]
        arguments = extra_args(batch, indices) | {"grad_fn": grad_fn, "logits_fn": logits_fn}
        return tx.update(params, state, params, **arguments)

    state = alone.init(params)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    for indices in map(jnp.asarray, order[:4]):
        batch = images[indices], labels[indices]
        gradient, state = one_step(alone, params, state, batch, indices)
        gradients, states = step(params, states, indices.reshape(2, -1))
        assert_trees_close(jax.tree.map(lambda x: x[1], gradients), gradient)
        params = plus(params, gradient, -RATE)
    for device in range(2):
        assert_trees_equal(states.visits[device], state.visits)
        assert_trees_close(states.logits[device], state.logits)
