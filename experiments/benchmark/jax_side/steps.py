"""Training steps as a user of the methods writes them: a Flax model, a method and optax's SGD."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.benchmark.jax_side.networks import KEY, PRECISIONS, Network
from sam_jax import optim
from sam_jax.typing import Batch, Gradients, Params, PyTree

LEARNING_RATE, MOMENTUM = 0.01, 0.9
RHO = 0.05
# The gradients that a step takes, as the methods' guide counts them: the losses of ESAM at the
# perturbed weights are a third of a gradient.
GRADIENTS = {
    "sgd": 1.0,
    "sam": 2.0,
    "average_sam": 1.0,
    "looksam_5": 1.2,
    "m_sam_vmap": 2.0,
    "m_sam_scan": 2.0,
    "esam": 1 + 1 / 3 + 1 / 2,
}
TAKE_BATCH = ("m_sam_vmap", "m_sam_scan", "esam")  # their grad_fn is a function of the batch too


class State(NamedTuple):
    """What a step carries on."""

    params: Params
    batch_stats: PyTree
    method_state: PyTree
    optimiser_state: PyTree


class Outputs(NamedTuple):
    """What a pass gives besides the gradient."""

    batch_stats: PyTree
    losses: jax.Array  # [n]


class Step(NamedTuple):
    """A training step and its first state."""

    step: Callable[[State, Batch], State]
    state: State


def method_of(name: str, m: int) -> optim.SharpnessAwareTransformation | None:
    """Return a method by its name in GRADIENTS, None for SGD; m is of the m-SAM methods."""
    if name == "sgd":
        return None
    made: dict[str, Callable[[], optim.SharpnessAwareTransformation]] = {
        "sam": lambda: optim.sam(RHO),
        "average_sam": lambda: optim.average_sam(0.5, KEY),
        "looksam_5": lambda: optim.looksam(RHO, 5),
        "m_sam_vmap": lambda: optim.m_sam(optim.sam(RHO), m, "vmap"),
        "m_sam_scan": lambda: optim.m_sam(optim.sam(RHO), m, "scan"),
        "esam": lambda: optim.esam(RHO, key=KEY, losses_from=lambda outputs: outputs.losses),
    }
    return made[name]()


def make_step(
    network: Network,
    method: str,
    m: int = 0,
    optimiser: optax.GradientTransformation | None = None,
) -> Step:
    """Return a step of a method; running statistics come from the clean pass where there is one.

    Args:
      network: the network.
      method: a name in GRADIENTS.
      m: examples in a sub-batch of the m-SAM methods.
      optimiser: takes the gradient to an update; None for SGD with momentum.
    """
    model, chosen = network.model, method_of(method, m)
    descent = optimiser or optax.sgd(LEARNING_RATE, momentum=MOMENTUM)

    def losses_fn(params: Params, stats: PyTree, batch: Batch) -> tuple[jax.Array, PyTree]:
        images, labels = batch
        logits, new = model.apply(
            {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
        )
        logits = jnp.asarray(logits, jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses, new.get("batch_stats", {})

    def gradient(params: Params, batch: Batch, stats: PyTree) -> tuple[Gradients, Outputs]:
        def loss_fn(params: Params) -> tuple[jax.Array, Outputs]:
            losses, new = losses_fn(params, stats, batch)
            return losses.mean(), Outputs(new, losses)

        return jax.grad(loss_fn, has_aux=True)(params)

    def sharp(state: State, batch: Batch) -> tuple[Gradients, Any, PyTree]:
        of_batch = functools.partial(gradient, stats=state.batch_stats)
        if chosen is None:
            return *of_batch(state.params, batch), state.method_state
        grad_fn = of_batch if method in TAKE_BATCH else lambda params: of_batch(params, batch)
        result, method_state = chosen.gradient(
            grad_fn,
            state.params,
            state.method_state,
            batch=batch,
            losses_fn=lambda params, batch: losses_fn(params, state.batch_stats, batch)[0],
        )
        clean, perturbed = result.clean_aux, result.perturbed_aux
        return result.gradient, perturbed if clean is None else clean, method_state

    def step(state: State, batch: Batch) -> State:
        grads, outputs, method_state = sharp(state, batch)
        updates, optimiser_state = descent.update(grads, state.optimiser_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, outputs.batch_stats, method_state, optimiser_state)

    @jax.jit  # leaf by leaf, a GPU would compile a program for every shape
    def init(params: Params) -> tuple[PyTree, PyTree]:
        return () if chosen is None else chosen.init(params), descent.init(params)

    return Step(step, State(network.params, network.batch_stats, *init(network.params)))


def lowered_step(made: Step, batch: Batch, precision: str) -> Any:
    """Return the step ready to be compiled; it takes over the memory of its state."""
    with jax.default_matmul_precision(PRECISIONS[precision][0]):
        return jax.jit(made.step, donate_argnums=0).lower(made.state, batch)


def repeated(made: Step, compiled: Callable[..., State], batch: Batch) -> Callable[[int], None]:
    """Return a call that takes so many steps, each from where the last one ended."""
    state = jax.jit(functools.partial(jax.tree.map, jnp.copy))(made.state)

    def call(repeats: int) -> None:
        nonlocal state
        for _ in range(repeats):
            state = compiled(state, batch)
        jax.block_until_ready(state)

    return call
