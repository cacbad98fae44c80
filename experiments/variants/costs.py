"""The cost of a training step: gradients, memory and time, measured on the compiled programs."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from sam_jax.optim import ScheduledState
from sam_jax.runs.records import Record
from sam_jax.training import build
from sam_jax.training.step import TrainState
from sam_jax.training.train_and_evaluate import training_calls
from sam_jax.training.trained import Trained
from sam_jax.typing import PyTree


class Calls(NamedTuple):
    """The compiled call of a trained model, and its arguments."""

    run_steps: Callable[..., Any]
    states: tuple[TrainState, TrainState]  # before the first step and after the last
    arguments: tuple[Any, ...]  # all others

    @property
    def images(self) -> int:
        """Images trained on in one call."""
        return self.steps * self.order.shape[1]

    @property
    def steps(self) -> int:
        """Training steps in one call."""
        return len(self.order) - 1

    @property
    def order(self) -> jax.Array:
        """The examples, [1 + steps, batch]: a previous batch and the batches of the steps."""
        return self.arguments[2]

    def traced(self) -> Any:
        """Return the traced program, which JAX keeps from the first call."""
        return self.run_steps.trace(self.states[0], *self.arguments)


def calls_of(config: ml_collections.ConfigDict, trained: Trained) -> Calls:
    """Return the calls that train a model, as many steps in each as training makes.

    Args:
      config: the training config.
      trained: the model, at any epoch.
    """
    program = trained.program
    run_steps, arguments = next(training_calls(config, program, trained.data, epoch=0))
    states = (program.init(jax.random.key(config.seed)), trained.state)
    return Calls(run_steps, states, arguments)


def passes(state: TrainState) -> int | None:
    """Return how many steps made the pass at the perturbed weights; None without a schedule."""

    def is_scheduled(x: PyTree) -> bool:
        return isinstance(x, ScheduledState)

    leaves = jax.tree.leaves(state.method_state, is_leaf=is_scheduled)
    found = [int(leaf.passes) for leaf in leaves if is_scheduled(leaf)]
    return found[0] if found else None


def step_costs(config: ml_collections.ConfigDict, trained: Trained) -> Record:
    """Return floating-point operations and memory of one training step.

    Args:
      config: the training config.
      trained: the model, at any epoch.

    Returns:
      flops: operations of one step as XLA counts them in its input program, with the dearer branch
        of a conditional. NaN where a method runs passes in a loop, because XLA counts one round.
      compiled_flops: the same of the compiled program. There fused operations may be computed
        several times over, and calls of libraries, such as cuDNN's convolutions, are not counted.
        NaN also where sub-batches run in a loop.
      temporary_bytes: memory of the compiled call beside its arguments and results.
      state_bytes, method_state_bytes: of weights, statistics, optimiser and method, and of the
        method alone.
    """
    # The training call itself is traced and compiled already; XLA counts its scan over the steps as
    # one step.
    calls = calls_of(config, trained)
    compiled = calls.run_steps.lower(calls.states[0], *calls.arguments).compile()
    looped = _is_looped(calls)
    return {
        "flops": _flops(_side_by_side(config, trained) if looped else calls),
        "compiled_flops": math.nan if looped else compiled.cost_analysis()["flops"],
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "state_bytes": _bytes(calls.states[0]),
        "method_state_bytes": _bytes(calls.states[0].method_state),
    }


def _flops(calls: Calls) -> float:
    if _is_looped(calls):
        return math.nan
    return calls.traced().lower().cost_analysis()["flops"]


def _is_looped(calls: Calls) -> bool:
    """Return whether a step has a loop over products, inside the scan over the steps."""
    return has_loop_over_products(_step_of(calls.traced().jaxpr.jaxpr, calls.steps))


def _step_of(jaxpr: Any, steps: int) -> Any:
    """Return the program of one step: the body of the outermost scan over so many; or None."""
    for equation in jaxpr.eqns:
        parameters = equation.params
        if equation.primitive.name == "scan" and parameters["length"] == steps:
            return parameters["jaxpr"].jaxpr
        for inner in _inner_jaxprs(parameters):
            found = _step_of(inner, steps)
            if found is not None:
                return found
    return None


def _side_by_side(config: ml_collections.ConfigDict, trained: Trained) -> Calls:
    """Return the calls with sub-batches side by side, not in a loop."""
    config = config.copy_and_resolve_references()
    config.method.strategy = "vmap"
    program = build.make_program(config, trained.source, len(trained.data.train_labels))
    return calls_of(config, trained._replace(program=program))


def has_loop_over_products(jaxpr: Any, in_loop: bool = False) -> bool:
    """Return whether a loop of several rounds has a convolution or matrix product in its body."""
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if in_loop and name in ("dot_general", "conv_general_dilated"):
            return True
        # A scan of one round is no loop in the program that XLA is given.
        loop = name == "while" or (name == "scan" and parameters["length"] > 1)
        if any(has_loop_over_products(x, in_loop or loop) for x in _inner_jaxprs(parameters)):
            return True
    return False


def _inner_jaxprs(parameters: dict[str, Any]) -> list[Any]:
    """Return the programs among the parameters of an equation."""
    values = jax.tree.leaves(list(parameters.values()), is_leaf=_is_jaxpr)
    return [getattr(value, "jaxpr", value) for value in values if _is_jaxpr(value)]


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def timed_side_by_side(calls: Calls, reference: Calls, rounds: int, warmup: int) -> Record:
    """Time a method and the reference in turns, so that both meet the same disturbances.

    A round calls both from their initial state and both from their trained one, because some
    methods take longer late in training than early.

    Args:
      calls: of the method.
      reference: of the reference.
      rounds: how many are timed.
      warmup: how many come before them.

    Returns:
      seconds and reference_seconds: of every round the calls from the initial and from the trained
        state, [rounds, 2]; call_passes: passes at perturbed weights in these two calls, or None;
        call_steps: steps of one call; images and reference_images: of one call.
    """
    seconds = [
        [(_seconds(reference, i), _seconds(calls, i)) for i in (0, 1)]
        for _ in range(warmup + rounds)
    ][warmup:]
    reference_seconds, own_seconds = np.moveaxis(np.array(seconds), 2, 0).tolist()
    return {
        "seconds": own_seconds,
        "reference_seconds": reference_seconds,
        "call_passes": _call_passes(calls),
        "call_steps": calls.steps,
        "images": calls.images,
        "reference_images": reference.images,
    }


def _seconds(calls: Calls, which: int) -> float:
    state = _copy(calls.states[which])  # the call takes the state's memory
    start = time.perf_counter()
    jax.block_until_ready(calls.run_steps(state, *calls.arguments))
    return time.perf_counter() - start


def _call_passes(calls: Calls) -> list[int] | None:
    made = []
    for state in calls.states:
        before = passes(state)
        if before is None:
            return None
        after = passes(calls.run_steps(_copy(state), *calls.arguments)[0])
        assert after is not None  # as before
        made.append(after - before)
    return made


def _copy(state: TrainState) -> TrainState:
    return jax.block_until_ready(jax.tree.map(jnp.copy, state))


def _bytes(tree: PyTree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
