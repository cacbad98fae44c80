"""The training of all seeds at once, each until its loss is small."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

import sam_jax
from experiments.understanding.relu_nets.network import Net, initialise, loss
from sam_jax.typing import AnyArray

LEARNING_RATE = 5e-5
RHO = 0.3
TOLERANCE = 1e-5


class Path(NamedTuple):
    """Nets along their training."""

    nets: Net  # [seeds, records, width]
    iterations: AnyArray  # [seeds, records]: made so far; a net that has stopped makes no more


class _State(NamedTuple):
    net: Net
    iteration: jax.Array  # iterations made
    loss: jax.Array  # of the last iteration, by which it stops


@functools.partial(jax.jit, static_argnames=("rho", "iterations"))
def train(
    keys: jax.Array,
    records: AnyArray,
    rho: float,
    iterations: int,
    tolerance: float | AnyArray = TOLERANCE,
) -> Path:
    """Train a net from every key by GD (rho = 0) or by SAM, full batch.

    A net stops after the iteration in which its loss was at most the tolerance: for SAM the loss at
    the perturbed weights. GD has a constant step size. SAM's falls linearly to zero at the last
    iteration. Both are as released.

    Args:
      keys: of the initial nets, shape [seeds].
      records: the numbers of iterations after which nets are kept, increasing, shape [records].
      rho: radius of SAM, whose gradient is normalised over all parameters; 0 for GD.
      iterations: at most. The released loop makes one more, which for SAM has a step size of
        almost zero.
      tolerance: of the loss.
    """
    method = sam_jax.sam(rho)

    def grad_fn(net: Net) -> tuple[Net, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(net)
        return gradient, value

    def step(state: _State) -> _State:
        done = state.iteration + 1
        if rho:
            found, _ = method.gradient(grad_fn, state.net, method.init(state.net))
            gradient, value = found.gradient, found.perturbed_aux
            rate = LEARNING_RATE * (1 - done / iterations)
        else:
            gradient, value = grad_fn(state.net)
            rate = LEARNING_RATE
        net = jax.tree.map(lambda w, g: w - rate * g, state.net, gradient)
        return _State(net, done, value)

    def until(state: _State, end: jax.Array) -> tuple[_State, _State]:
        def goes_on(state: _State) -> jax.Array:
            return (state.iteration < end) & (state.loss > tolerance)

        state = jax.lax.while_loop(goes_on, step, state)
        return state, state

    def train_one(key: jax.Array) -> Path:
        start = _State(initialise(key), jnp.zeros((), jnp.int32), jnp.full((), jnp.inf))
        _, path = jax.lax.scan(until, start, jnp.asarray(records))
        return Path(path.net, path.iteration)

    return jax.vmap(train_one)(keys)
