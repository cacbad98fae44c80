"""Stochastic gradient descent with m-SAM, over seeds and schedules at once."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

import sam_jax
from experiments.understanding.convergence.problems import Kind, Problem, loss
from sam_jax.typing import AnyArray

METHODS = {"USAM": sam_jax.usam, "SAM": sam_jax.sam}


class Schedule(NamedTuple):
    """Step sizes and radii; leaves may have a leading axis.

    gamma_t = learning_rate / (1 + t / decay) and rho_t = rho sqrt(gamma_t / learning_rate).

    Attributes:
      learning_rate: the first step size.
      rho: the first radius, or factor of the gradient.
      decay: steps after which the step size is halved; infinite for constants.
    """

    learning_rate: AnyArray
    rho: AnyArray
    decay: AnyArray


class Curves(NamedTuple):
    """Means over equal parts of the training, shape [..., parts]."""

    excess_loss: AnyArray  # training loss of the whole set minus its minimum
    squared_gradient: AnyArray  # of the whole set's loss, the squared norm


@functools.partial(jax.jit, static_argnames=("kind", "method", "m", "batch_size", "steps", "parts"))
def train(
    kind: Kind,
    problems: Problem,
    schedules: Schedule,
    keys: jax.Array,
    *,
    method: str,
    m: int,
    batch_size: int,
    steps: int,
    parts: int,
) -> Curves:
    """Train every problem with every schedule.

    Args:
      kind: of the problems.
      problems: one a seed, with a leading axis.
      schedules: with a leading axis.
      keys: of the batches, one a seed; examples are drawn with replacement.
      method: one of METHODS.
      m: examples that share a perturbation.
      batch_size: examples of a step; m divides it.
      steps: how many steps.
      parts: into how many parts of equal length the curves divide them.

    Returns:
      Curves of shape [schedules, seeds, parts].
    """
    length = steps // parts

    def train_one(schedule: Schedule, problem: Problem, key: jax.Array) -> Curves:
        def shrink(step: ArrayLike) -> jax.Array:
            return 1 / (1 + jnp.asarray(step) / schedule.decay)

        inner = METHODS[method](lambda step: schedule.rho * jnp.sqrt(shrink(step)))
        tx = optax.chain(
            sam_jax.m_sam(inner, m), optax.sgd(lambda step: schedule.learning_rate * shrink(step))
        )
        whole = (problem.inputs, problem.outputs)
        value_and_grad = jax.value_and_grad(functools.partial(loss, kind))

        def grad_fn(params: optax.Params, batch: tuple) -> optax.Updates:
            return value_and_grad(params, batch)[1]

        def step(carry: tuple, number: jax.Array) -> tuple:
            params, state, sums = carry
            value, gradient = value_and_grad(params, whole)
            found = Curves(value - problem.minimum, optax.tree.norm(gradient, squared=True))
            sums = jax.tree.map(jnp.add, sums, found)
            chosen = jax.random.randint(
                jax.random.fold_in(key, number), (batch_size,), 0, len(problem.outputs)
            )
            batch = jax.tree.map(lambda leaf: leaf[chosen], whole)
            # m-SAM takes its own clean gradients, one a sub-batch; the whole set's goes unused.
            updates, state = tx.update(gradient, state, params, grad_fn=grad_fn, batch=batch)
            return (optax.apply_updates(params, updates), state, sums), None

        def part(carry: tuple, start: jax.Array) -> tuple:
            zeros = Curves(jnp.zeros_like(problem.minimum), jnp.zeros_like(problem.minimum))
            (params, state, sums), _ = jax.lax.scan(
                step, (*carry, zeros), start + jnp.arange(length)
            )
            return (params, state), jax.tree.map(lambda total: total / length, sums)

        carry = (problem.start, tx.init(problem.start))
        _, curves = jax.lax.scan(part, carry, length * jnp.arange(parts))
        return curves

    over_seeds = jax.vmap(train_one, in_axes=(None, 0, 0))
    return jax.vmap(over_seeds, in_axes=(0, None, None))(schedules, problems, keys)
