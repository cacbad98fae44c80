"""The check that compares the copies of parameters on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import trees_close
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import sam_jax

DEVICES = 8


def mesh():
    return Mesh(np.array(jax.devices()[:DEVICES]), ("devices",))


def trained(method, grad_fn, problem, kind, steps=40):
    """Return the parameters after some steps of every device on its own shard."""
    tx = optax.chain(method, optax.sgd(0.1))

    def step(params, state, shard):
        updates, state = tx.update(
            grad_fn(params, shard),
            state,
            params,
            grad_fn=lambda w, batch=shard: grad_fn(w, batch),
            batch=shard,
        )
        return optax.apply_updates(params, updates), state

    params, state = problem.params, tx.init(problem.params)
    if kind == "pmap":
        step = jax.pmap(step, axis_name="devices")
        params, state = jax.tree.map(lambda x: jnp.stack([x] * DEVICES), (params, state))
        batch = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), problem.batch)
    else:
        specs = {"in_specs": (PartitionSpec(), PartitionSpec(), PartitionSpec("devices"))}
        specs |= {"out_specs": PartitionSpec(), "check_vma": False}
        step, batch = jax.jit(jax.shard_map(step, mesh=mesh(), **specs)), problem.batch
    for _ in range(steps):
        params, state = step(params, state, batch)
    return params


def pmean(grad_fn):
    return lambda params, batch: jax.lax.pmean(grad_fn(params, batch), "devices")


@pytest.mark.devices
@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
def test_replicas_drift_apart_unless_the_gradient_is_averaged(kind):
    problem, sam = problems.dense_net(examples=32), sam_jax.sam(0.1)
    stacked = kind == "pmap"
    drifted = trained(sam, problem.grad_fn, problem, kind)
    with pytest.raises(ValueError, match=r"copies of \['Dense_0'\].*on 8 devices.*m_sam.*pmean"):
        sam_jax.assert_replicas_agree(drifted, stacked)
    in_m_sam = sam_jax.m_sam(sam, m=4, axis_name="devices")
    sam_jax.assert_replicas_agree(trained(in_m_sam, problem.grad_fn, problem, kind), stacked)
    averaged = trained(sam, pmean(problem.grad_fn), problem, kind)
    sam_jax.assert_replicas_agree(averaged, stacked)
    # The mean in grad_fn makes the ascent direction that of all devices: m is the whole batch.
    one = jax.tree.map(lambda x: x[0], averaged) if stacked else averaged
    whole = trained(sam_jax.m_sam(sam, m=32, axis_name="devices"), problem.grad_fn, problem, kind)
    assert trees_close(jax.tree.map(lambda x: x[0], whole) if stacked else whole, one, 1e-4)


def on_devices(copies):
    """Return one array whose copies on the devices are as given."""
    sharding = NamedSharding(mesh(), PartitionSpec())
    arrays = [jax.device_put(x, d) for x, d in zip(copies, jax.devices(), strict=False)]
    return jax.make_array_from_single_device_arrays(copies[0].shape, sharding, arrays)


@pytest.mark.devices
def test_what_agrees_and_what_does_not():
    same = [np.array([1.0, np.nan, np.inf])] * DEVICES
    sam_jax.assert_replicas_agree(
        {"w": on_devices(same), "none": None, "key": jax.random.key(0), "number": 1.0}
    )
    for index, value in ((1, 0.0), (2, -np.inf), (0, 1.25)):
        other = same[0].copy()
        other[index] = value
        drifted = on_devices([*same[:-1], other])
        with pytest.raises(ValueError, match="differ by up to"):
            sam_jax.assert_replicas_agree([drifted])
    sam_jax.assert_replicas_agree([drifted], tolerance=0.25)
    unsigned = np.array([[0], [255]], np.uint8)
    with pytest.raises(ValueError, match="up to 255"):
        sam_jax.assert_replicas_agree(unsigned, stacked=True)
    with pytest.raises(ValueError, match="up to 1"):
        sam_jax.assert_replicas_agree(np.array([True, False]), stacked=True)


def test_parts_of_a_sharded_array_are_no_copies():
    sharded = jax.device_put(jnp.arange(8.0), NamedSharding(mesh(), PartitionSpec("devices")))
    sam_jax.assert_replicas_agree(sharded)


@pytest.mark.devices
def test_traced_arrays_are_refused():
    with pytest.raises(ValueError, match="outside jit, pmap and shard_map"):
        jax.jit(lambda x: sam_jax.assert_replicas_agree(x))(jnp.ones(2))
