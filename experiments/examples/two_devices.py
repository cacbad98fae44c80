"""Data parallel on two devices: each with a perturbation of its own, or one for all.

Run `python -m experiments.examples.two_devices`. It prints

    two devices, jit, m=64: test accuracy 0.967
      distance to m_sam(m=64) on one device 0.000000
    two devices, shard_map, m=64: test accuracy 0.967
      distance to m_sam(m=64) on one device 0.000000
    two devices, jit, m=128: test accuracy 0.969
      distance to sam on one device 0.000000
    two devices, shard_map, m=128: test accuracy 0.969
      distance to sam on one device 0.000000
    distance between the two 0.029507

Distances are relative, after a training. m has the same meaning on any number of devices: the shard
of a device, a divisor of it, or the global batch. Two ways lead there:

Under plain jit put the batch on a mesh, and name to m_sam the axes that it is split over. Each
device then computes the sub-batches that lie on it, and one all-reduce joins them. A mesh of one
axis need not be named; explicit axes never. Other methods than m_sam perturb once for the global
batch and need nothing.

Inside your own shard_map or pmap give m_sam the axis_name. Nothing but that mean keeps the copies
of the parameters the same; sam_jax.assert_replicas_agree compares them.
"""

import functools
from collections.abc import Callable

import jax
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import sam_jax
from experiments.examples import digits
from sam_jax.typing import Batch, Gradients, Params, PyTree

EPOCHS, BATCH_SIZE, DEVICES = 5, 128, 2
SHARD = BATCH_SIZE // DEVICES
sam = sam_jax.sam(rho=0.1)
optimiser = optax.sgd(0.1, momentum=0.9)
Step = Callable[[Params, PyTree, Batch], tuple[Params, PyTree]]


def step(
    method: sam_jax.SharpnessAwareTransformation, params: Params, state: PyTree, batch: Batch
) -> tuple[Params, PyTree]:
    """Take one step; under shard_map the batch is the device's shard."""
    tx = optax.chain(method, optimiser)

    def grad_fn(params: Params, batch: Batch = batch) -> Gradients:  # m_sam gives it a batch
        return jax.grad(digits.mlp_loss)(params, batch)

    # m_sam does not read this gradient at the parameters; under jit it is then never computed.
    updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn, batch=batch)
    return optax.apply_updates(params, updates), state


def under_jit(m: int, mesh: Mesh) -> Step:
    """Return a step on global arrays; m_sam hands each device its share."""
    run = jax.jit(functools.partial(step, sam_jax.m_sam(sam, m=m, batch_axes="devices")))

    def put_and_run(params: Params, state: PyTree, batch: Batch) -> tuple[Params, PyTree]:
        return run(params, state, jax.device_put(batch, NamedSharding(mesh, P("devices"))))

    return put_and_run


def under_shard_map(m: int, mesh: Mesh) -> Step:
    """Return a step whose code sees the device's shard alone."""
    run = functools.partial(step, sam_jax.m_sam(sam, m=m, axis_name="devices"))
    in_specs = (P(), P(), P("devices"))
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=P()))


def train(run: Step, batches: list[Batch]) -> Params:
    """Return the parameters after the batches."""
    params = digits.init_mlp(jax.random.key(0))
    state = optax.chain(sam, optimiser).init(params)
    # Simulated devices share threads: steps that queue up could keep one from an all-reduce that
    # the other waits for. Real devices need no such wait.
    for batch in batches:
        params, state = jax.block_until_ready(run(params, state, batch))
    sam_jax.assert_replicas_agree(params)
    return jax.device_get(params)


def main() -> None:
    """Train with both kinds of perturbation, on two devices in either way and on one."""
    jax.config.update("jax_num_cpu_devices", DEVICES)  # stands for two real devices
    train_set, test_set = digits.load()
    batches = list(digits.batches(train_set, EPOCHS))
    mesh = Mesh(jax.devices()[:DEVICES], ("devices",))
    found = []
    same = {SHARD: ("m_sam(m=64)", sam_jax.m_sam(sam, m=SHARD)), BATCH_SIZE: ("sam", sam)}
    for m, (single_name, single) in same.items():
        alone = train(jax.jit(functools.partial(step, single)), batches)
        for name, way in {"jit": under_jit, "shard_map": under_shard_map}.items():
            params = train(way(m, mesh), batches)
            accuracy = digits.accuracy(digits.apply_mlp(params, test_set["image"]), test_set)
            print(f"two devices, {name}, m={m}: test accuracy {accuracy:.3f}")
            distance = digits.distance(params, alone)
            print(f"  distance to {single_name} on one device {distance:.6f}")
        found.append(params)
    print(f"distance between the two {digits.distance(*found):.6f}")


if __name__ == "__main__":
    main()
