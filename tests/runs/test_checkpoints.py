"""Checkpoints give back every bit, typed keys included."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from training_problems import assert_same_bits

import sam_jax
from sam_jax.runs import checkpoints
from sam_jax.training.device_data import replicated
from sam_jax.training.step import TrainState


def make_state(seed, with_statistics=True):
    params = {
        "layer": {
            "kernel": jax.random.normal(jax.random.key(seed), (3, 2)),
            "bias": jnp.asarray([jnp.nan, -0.0], jnp.bfloat16),
        }
    }
    method = sam_jax.average_sam(0.1, jax.random.key(100 + seed))
    return TrainState(
        step=jnp.asarray(7 + seed, jnp.int32),
        params=params,
        batch_stats={"norm": {"mean": jnp.arange(2.0)}} if with_statistics else {},
        method_state=method.init(params),
        optimiser_state=optax.sgd(lambda step: 0.1, momentum=0.9).init(params),
    )


@pytest.mark.parametrize("with_statistics", [True, False])
def test_round_trip(tmp_path, with_statistics):
    state, other = make_state(0, with_statistics), make_state(1, with_statistics)
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        checkpoints.save(manager, 3, state)
    assert checkpoints.exists(tmp_path, 3) and not checkpoints.exists(tmp_path, 2)
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        assert manager.latest_step() == 3
        # The template gives shapes only, so that of another state will do.
        restored = checkpoints.restore(manager, jax.eval_shape(lambda: other), 3)
    assert_same_bits(restored, state)
    with pytest.raises(AssertionError):
        assert_same_bits(restored, other)
    key = restored.method_state.key
    assert jax.random.normal(key, (3,)).tolist() == pytest.approx(
        jax.random.normal(jax.random.key(100), (3,)).tolist(), abs=0
    )


@pytest.mark.devices
def test_restored_where_it_is_wanted(tmp_path):
    state = make_state(0)
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        checkpoints.save(manager, 1, state)
        manager.wait_until_finished()
        sharding = replicated()
        restored = checkpoints.restore(manager, state, 1, sharding)
        on_first = checkpoints.restore(manager, state, 1)
    assert isinstance(sharding, NamedSharding) and sharding.spec == PartitionSpec()
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding.device_set == set(jax.devices())
    for leaf in jax.tree.leaves(on_first):
        assert leaf.sharding.device_set == {jax.devices()[0]}
    assert_same_bits(restored, state)


def test_the_newest_are_kept(tmp_path):
    with checkpoints.open_manager(tmp_path, keep=2) as manager:
        for epoch in (1, 2, 5):
            checkpoints.save(manager, epoch, make_state(epoch))
    assert [checkpoints.exists(tmp_path, epoch) for epoch in (1, 2, 5)] == [False, True, True]
    with checkpoints.open_manager(tmp_path, keep=2) as manager:
        for epoch in (2, 5):
            restored = checkpoints.restore(manager, make_state(0), epoch)
            assert_same_bits(restored, make_state(epoch))


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    """The next step donates the arrays that are being written, as run_steps does."""
    step = jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)
    state = {"w": jnp.arange(2_000_000.0), "count": jnp.zeros((), jnp.int32)}
    expected = jax.tree.map(np.array, state)
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        checkpoints.save(manager, 1, state)
        for _ in range(20):
            state = step(state)
        jax.block_until_ready(state)
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        restored = checkpoints.restore(manager, state, 1)
    assert_same_bits(restored, expected)
    assert float(state["w"][0]) == 20
