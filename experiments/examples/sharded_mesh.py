"""A model of your own on a mesh of devices, its parameters split over them (FSDP).

Run `python -m experiments.examples.sharded_mesh`. It prints

    mesh: {'data': 4, 'model': 2}
    sam: test accuracy 0.978
      share of the state on a device 0.130
      distance to the same on one device 0.000266
    m_sam(m=32): test accuracy 0.983
      share of the state on a device 0.130
      distance to the same on one device 0.000000

Distances are relative, after a training, and come from rounding. The loop is yours, and so is the
model, here a Flax linen one without BatchNorm. Three things make it run on any mesh: a rule says
how each array lies, jit makes the state in these shardings, and batches are put on the axis "data".
The compiler finds the messages between devices.

- The perturbation of sam lies as the parameters do.
- m_sam perturbs for the share of a device or a part of it, so that each device gathers the
  parameters for a perturbation of its own; between two steps all is split.

The same program runs on one CPU, eight GPUs or a TPU pod: only `make_mesh` sees how many there are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import sam_jax
from experiments.examples import digits
from sam_jax.typing import Batch, Gradients, Params, PyTree

EPOCHS, BATCH_SIZE = 5, 128
DATA, MODEL = "data", "model"  # the batch is split over the first, large arrays over both
SMALL = 1024  # arrays with fewer numbers lie whole on every device


class Network(nn.Module):
    """Two wide layers."""

    width: int = 256

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits."""
        x = images.reshape(len(images), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(10)(x)


model = Network()


def logits_of(params: Params, images: jax.Array) -> jax.Array:
    """Return the logits of the model."""
    logits: Any = model.apply({"params": params}, images)
    return logits


def make_mesh() -> Mesh:
    """Return all devices, two of them along "model" where there are as many."""
    devices = np.array(jax.devices())
    return Mesh(devices.reshape(-1, 2 if len(devices) % 2 == 0 else 1), (DATA, MODEL))


def lies(mesh: Mesh, x: jax.ShapeDtypeStruct) -> NamedSharding:
    """Return how an array lies: of a large one the rows over "data" and the columns over "model".

    Its shape decides, so momenta and averages lie as the parameters do.
    """
    fits = x.ndim == 2 and x.size >= SMALL
    axes = zip(x.shape, (DATA, MODEL), strict=False)
    spec = [name if length % mesh.shape[name] == 0 else None for length, name in axes]
    return NamedSharding(mesh, PartitionSpec(*spec if fits else ()))


def train(
    method: sam_jax.SharpnessAwareTransformation, mesh: Mesh, batches: list[Batch]
) -> tuple[Params, PyTree]:
    """Return the parameters and the optimiser's state after the batches."""
    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))

    def init(key: jax.Array) -> tuple[Params, PyTree]:
        params = model.init(key, jnp.zeros((1, 8, 8, 1)))["params"]
        return params, tx.init(params)

    def step(params: Params, state: PyTree, batch: Batch) -> tuple[Params, PyTree]:
        def loss_fn(params: Params, batch: Batch) -> jax.Array:
            return digits.cross_entropy(logits_of(params, batch["image"]), batch)

        def grad_fn(params: Params, batch: Batch = batch) -> Gradients:  # m_sam gives it a batch
            return jax.grad(loss_fn)(params, batch)

        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn, batch=batch)
        return optax.apply_updates(params, updates), state

    key = jax.random.key(0)
    shardings = jax.tree.map(lambda x: lies(mesh, x), jax.eval_shape(init, key))
    # Each device makes its own part: no device needs room for all.
    params, state = jax.jit(init, out_shardings=shardings)(key)
    run = jax.jit(step, out_shardings=shardings, donate_argnums=(0, 1))
    for batch in batches:
        batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(DATA)))
        params, state = jax.block_until_ready(run(params, state, batch))
    return params, state


def share_of_a_device(tree: PyTree) -> float:
    """Return the share of a pytree's bytes that the first device holds."""
    leaves = jax.tree.leaves(tree)
    held = sum(x.addressable_shards[0].data.nbytes for x in leaves)
    return held / sum(x.nbytes for x in leaves)


def main() -> None:
    """Train with one perturbation for all devices, and with one for each share of the batch."""
    jax.config.update("jax_num_cpu_devices", 8)  # stands for eight real devices
    train_set, test_set = digits.load()
    batches = list(digits.batches(train_set, EPOCHS, BATCH_SIZE))
    mesh = make_mesh()
    alone = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), (DATA, MODEL))
    print(f"mesh: {dict(mesh.shape)}")
    sam = sam_jax.sam(rho=0.1)
    methods = {
        "sam": sam,
        "m_sam(m=32)": sam_jax.m_sam(sam, m=32, batch_axes=DATA),
    }
    for name, method in methods.items():
        params, state = train(method, mesh, batches)
        logits = logits_of(params, test_set["image"])
        print(f"{name}: test accuracy {digits.accuracy(logits, test_set):.3f}")
        print(f"  share of the state on a device {share_of_a_device((params, state)):.3f}")
        one, _ = train(method, alone, batches)
        distance = digits.distance(jax.device_get(params), jax.device_get(one))
        print(f"  distance to the same on one device {distance:.6f}")


if __name__ == "__main__":
    main()
