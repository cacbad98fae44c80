"""SAM for a Flax linen model with BatchNorm, and dropout in m_sam: statistics and keys.

Run `python -m experiments.examples.flax_batchnorm`. It prints

    pure function: test accuracy 0.975
    optax chain: test accuracy 0.975
    largest difference in the running statistics 0.0
    m_sam with dropout: test accuracy 0.975

The pure function suits a trainer without closures: it takes the place of `jax.grad`, and the
trainer's apply_gradients stays as it is. With the chain, your own pass at the parameters gives the
statistics, and grad_fn drops the second pass's statistics. m_sam averages the statistics of its
sub-batches, and gives each of them keys of its own: it folds the sub-batch's index into the `rngs`
of update or gradient before grad_fn gets them.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

import sam_jax
from experiments.examples import digits
from sam_jax.typing import Batch, Key, Params, PyTree

method = sam_jax.sam(rho=0.1)
m_sam = sam_jax.m_sam(method, m=32)
optimiser = optax.sgd(0.1, momentum=0.9)


class Net(nn.Module):
    """A convolution with BatchNorm and a dense layer, with dropout between them."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Return logits; with `train` they are normalised by the batch's own statistics."""
        x = nn.Conv(16, (3, 3), strides=2, use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(10)(x)


class State(TrainState):
    """Flax's state with the running statistics and, in the first way, the method's state."""

    batch_stats: PyTree
    method_state: PyTree = None


@functools.partial(jax.grad, has_aux=True)
def gradient_and_statistics(params: Params, state: State, batch: Batch) -> tuple[jax.Array, PyTree]:
    """Return the loss, which the decorator differentiates, and the new statistics."""
    variables = {"params": params, "batch_stats": state.batch_stats}
    logits, new = Net().apply(variables, batch["image"], train=True, mutable=["batch_stats"])
    return digits.cross_entropy(logits, batch), new["batch_stats"]


@jax.jit
def step_with_pure_function(state: State, batch: Batch) -> State:
    """Take one step: the method hands over the auxiliary outputs of both passes."""
    grad_fn = functools.partial(gradient_and_statistics, state=state, batch=batch)
    result, method_state = method.gradient(grad_fn, state.params, state.method_state)
    new = {"batch_stats": result.clean_aux, "method_state": method_state}
    return state.apply_gradients(grads=result.gradient, **new)


@jax.jit
def step_with_chain(state: State, batch: Batch) -> State:
    """Take one step with `tx=optax.chain(method, optimiser)`."""
    grad_fn = functools.partial(gradient_and_statistics, state=state, batch=batch)
    grads, batch_stats = grad_fn(state.params)
    state = sam_jax.apply_gradients(state, grads, grad_fn=lambda params: grad_fn(params)[0])
    return state.replace(batch_stats=batch_stats)


@jax.jit
def step_with_sub_batches(state: State, batch: Batch, key: Key) -> State:
    """Take one step of m_sam: every sub-batch has its own perturbation and dropout mask."""

    @functools.partial(jax.grad, has_aux=True)
    def grad_fn(params: Params, batch: Batch, rngs: dict[str, Key]) -> tuple[jax.Array, PyTree]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        net, keywords = Net(dropout=0.2), {"mutable": ["batch_stats"], "rngs": rngs}
        logits, new = net.apply(variables, batch["image"], train=True, **keywords)
        return digits.cross_entropy(logits, batch), new["batch_stats"]

    result, method_state = m_sam.gradient(
        grad_fn, state.params, state.method_state, batch=batch, rngs={"dropout": key}
    )
    new = {"batch_stats": result.clean_aux, "method_state": method_state}
    return state.apply_gradients(grads=result.gradient, **new)


def create_states() -> tuple[State, State]:
    """Return the state before the first step, one for either way."""
    variables: Any = Net().init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
    common = variables | {"apply_fn": Net().apply}
    first = State.create(tx=optimiser, method_state=method.init(common["params"]), **common)
    return first, State.create(tx=optax.chain(method, optimiser), **common)


def main() -> None:
    """Train both ways and compare."""
    train_set, test_set = digits.load()
    first, second = create_states()
    third, key = first, jax.random.key(1)
    for i, batch in enumerate(digits.batches(train_set, epochs=10)):
        first = step_with_pure_function(first, batch)
        second = step_with_chain(second, batch)
        third = step_with_sub_batches(third, batch, jax.random.fold_in(key, i))

    def report(name: str, state: State) -> None:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits: Any = Net().apply(variables, test_set["image"], train=False)
        print(f"{name}: test accuracy {digits.accuracy(logits, test_set):.3f}")

    report("pure function", first)
    report("optax chain", second)
    difference = digits.largest_difference(first.batch_stats, second.batch_stats)
    print(f"largest difference in the running statistics {difference}")
    report("m_sam with dropout", third)


if __name__ == "__main__":
    main()
