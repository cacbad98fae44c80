"""A checkpoint that a Flax program wrote, measured by sam_jax.

Run `python -m experiments.examples.own_checkpoint FOLDER`; without FOLDER nothing is kept. It
trains and saves as the examples of Flax do, with a TrainState and orbax, measures the checkpoint,
and prints

    after training: test accuracy 0.975
    the checkpoint: test accuracy 0.975
    adversarial sharpness at rho 0.05: 0.0118
    largest eigenvalue of the Hessian: 1.14

`python -m sam_jax.evaluate --checkpoint=FOLDER/checkpoint --workdir=FOLDER/measured
--target=experiments.examples.own_checkpoint:target` then measures what these records lack. It
needs to know the function `target` alone.
"""

import contextlib
import io
import pathlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from flax.training.train_state import TrainState

from experiments.examples import digits
from sam_jax.measuring.measure_checkpoint import measure_checkpoint
from sam_jax.measuring.target import Target
from sam_jax.typing import Batch, PyTree

EXAMPLE = jnp.zeros((1, 8, 8, 1))
NAME = "experiments.examples.own_checkpoint:target"


class Net(nn.Module):
    """A convolution with BatchNorm and a dense layer."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Return logits; with `train` they are normalised by the batch's own statistics."""
        x = nn.Conv(16, (3, 3), strides=2, use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


class State(TrainState):
    """Flax's state with the running statistics."""

    batch_stats: PyTree


# ---------------------------------------------------------------------------- what is measured


def target() -> Target:
    """Return the loss of the network, its variables, and the digits."""
    train, test = digits.load()
    return Target(
        loss=losses,
        variables=jax.eval_shape(lambda: Net().init(jax.random.key(0), EXAMPLE, train=False)),
        train=train,
        test=test,
        correct=correct,
    )


def losses(variables: Mapping[str, PyTree], batch: Batch) -> jax.Array:
    """Return the cross-entropy of each example."""
    logits: Any = Net().apply(variables, batch["image"], train=False)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])


def correct(variables: Mapping[str, PyTree], batch: Batch) -> jax.Array:
    """Say of each example whether its label has the largest logit."""
    logits: Any = Net().apply(variables, batch["image"], train=False)
    return jnp.argmax(logits, axis=-1) == batch["label"]


# ---------------------------------------------------------------------------- the Flax program


@jax.jit
def train_step(state: State, batch: Batch) -> State:
    """Return the state after a step of plain SGD."""

    def loss_fn(params: PyTree) -> tuple[jax.Array, PyTree]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, new = Net().apply(variables, batch["image"], train=True, mutable=["batch_stats"])
        return digits.cross_entropy(logits, batch), new["batch_stats"]

    gradients, batch_stats = jax.grad(loss_fn, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=batch_stats)


def train(epochs: int) -> State:
    """Return the state after some epochs on the digits."""
    variables = Net().init(jax.random.key(0), EXAMPLE, train=False)
    state = State.create(apply_fn=Net().apply, tx=optax.sgd(0.1, momentum=0.9), **variables)
    for batch in digits.batches(digits.load()[0], epochs):
        state = train_step(state, batch)
    return state


def write(folder: pathlib.Path, epochs: int = 10) -> State:
    """Train, save FOLDER/checkpoint, and return the state."""
    state = train(epochs)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / "checkpoint").absolute(), state, force=True)
    return state


def main(folder: pathlib.Path) -> None:
    """Train, save and measure."""
    state = write(folder)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    accuracy = float(jnp.mean(correct(variables, digits.load()[1])))
    print(f"after training: test accuracy {accuracy:.3f}")
    measures = ("evaluation", "adversarial_sharpness", "hessian")
    with contextlib.redirect_stdout(io.StringIO()):  # without its progress
        records = measure_checkpoint(
            folder / "checkpoint", NAME, folder / "measured", measures=measures
        )
    first = {record["measure"]: record for record in reversed(records)}  # of several radii
    sharpness, hessian = first["adversarial_sharpness"], first["hessian"]
    print(f"the checkpoint: test accuracy {first['evaluation']['test_accuracy']:.3f}")
    rho, value = sharpness["measured_rho"], sharpness["sharpness"]
    print(f"adversarial sharpness at rho {rho}: {value:.4f}")
    print(f"largest eigenvalue of the Hessian: {hessian['top_eigenvalue']:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(pathlib.Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(pathlib.Path(temporary))
