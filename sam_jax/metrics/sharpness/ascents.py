"""Projected gradient ascent in a ball, with fixed steps or with steps that adapt to progress."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from sam_jax.metrics.sharpness import balls
from sam_jax.pytree import add
from sam_jax.typing import Batch, Gradients, LossFn, Params, PyTree, Scalar, ScalarOrSchedule

StepRule = Literal["fixed", "adaptive"]
STEP_RULES = ("fixed", "adaptive")

INERTIA = 0.75  # alpha: the share of the new step; the rest goes on along the last one
WANTED_INCREASES = 0.75  # the share of the steps since the last checkpoint that have to ascend

# (start delta_0, batch) -> the losses at delta_0 ... delta_steps, shape [1 + steps].
Climb = Callable[[PyTree, Batch], jax.Array]


def fixed_steps(
    loss_fn: LossFn, params: Params, ball: balls.Ball, steps: int, step_size: ScalarOrSchedule
) -> Climb:
    """Return the ascent whose steps have a given length: delta <- P(delta + step_size * s(g)).

    Args:
      loss_fn: `loss_fn(params, batch)` -> scalar.
      params: parameters w, the centre of the ball.
      ball: gives the step of unit length s and the projection P.
      steps: number of steps.
      step_size: their length, or a function from the number of the step to it.
    """

    def climb(start: PyTree, batch: Batch) -> jax.Array:
        def ascend(delta: PyTree, k: jax.Array) -> tuple[PyTree, jax.Array]:
            loss, gradient = jax.value_and_grad(loss_fn)(add(params, delta), batch)
            length = step_size(k) if callable(step_size) else step_size
            return _step(ball, delta, gradient, length), loss

        delta, losses = jax.lax.scan(ascend, start, jnp.arange(steps))
        return jnp.append(losses, loss_fn(add(params, delta), batch))

    return climb


class _Ascent(NamedTuple):
    """What an adaptive ascent carries from step to step."""

    point: PyTree  # delta_k
    previous: PyTree  # delta_{k-1}
    loss: jax.Array  # at delta_{k-1}
    best_point: PyTree
    best_gradient: Gradients
    best_loss: jax.Array
    length: jax.Array
    increases: jax.Array  # steps that ascended since the last checkpoint
    checked_length: jax.Array  # at the last checkpoint
    checked_best: jax.Array


def adaptive_steps(
    loss_fn: LossFn, params: Params, ball: balls.Ball, steps: int, step_size: Scalar
) -> Climb:
    r"""Return the ascent of APGD, whose steps halve where they make no progress.

    .. math::
      z = P(\delta_k + \eta\, s(g_k)), \qquad
      \delta_{k+1} = P(\delta_k + \alpha (z - \delta_k) + (1 - \alpha)(\delta_k - \delta_{k-1}))

    with alpha = 3/4, and alpha = 1 in the first step. At a checkpoint, see `checkpoints`, eta is
    halved and the ascent goes on from the best point so far if one of these holds:

    - fewer than 3/4 of the steps since the last checkpoint increased the loss;
    - eta was not halved at the last checkpoint, and the best loss has not risen since.

    Args:
      loss_fn: `loss_fn(params, batch)` -> scalar.
      params: parameters w, the centre of the ball.
      ball: gives the step of unit length s and the projection P.
      steps: number of steps.
      step_size: eta of the first steps.

    Source: Croce and Hein 2020, Algorithm 1 and Section 3, https://arxiv.org/abs/2003.01690. Where
      their code differs from the paper (the checkpoints' rounding, and 3/4 of the steps being
      enough), this is the paper.
    """
    windows = checkpoint_windows(steps)

    def climb(start: PyTree, batch: Batch) -> jax.Array:
        def ascend(a: _Ascent, at: tuple[jax.Array, jax.Array]) -> tuple[_Ascent, jax.Array]:
            k, window = at
            loss, gradient = jax.value_and_grad(loss_fn)(add(params, a.point), batch)
            is_best = loss > a.best_loss
            best = _where(is_best, (a.point, gradient), (a.best_point, a.best_gradient))
            best_loss = jnp.where(is_best, loss, a.best_loss)
            increases = a.increases + (loss > a.loss)

            check = window > 0
            kept = (a.length == a.checked_length) & (best_loss == a.checked_best)
            halve = check & ((increases < WANTED_INCREASES * window) | kept)
            length = jnp.where(halve, a.length / 2, a.length)
            point, gradient = _where(halve, best, (a.point, gradient))
            aim = _step(ball, point, gradient, length)
            ahead = _mix(aim, point, a.previous, jnp.where(k == 0, 1, INERTIA))
            return _Ascent(
                point=balls.project(ball, ahead),
                previous=point,
                loss=jnp.where(halve, best_loss, loss),
                best_point=best[0],
                best_gradient=best[1],
                best_loss=best_loss,
                length=length,
                increases=jnp.where(check, 0, increases),
                checked_length=jnp.where(check, a.length, a.checked_length),
                checked_best=jnp.where(check | (k == 0), best_loss, a.checked_best),
            ), loss

        infinity = jnp.full((), jnp.inf, jax.eval_shape(loss_fn, params, batch).dtype)
        length = jnp.asarray(step_size, infinity.dtype)
        first = _Ascent(
            point=start,
            previous=start,
            loss=infinity,  # so that the first loss is no increase, but the best
            best_point=start,
            best_gradient=jax.tree.map(jnp.zeros_like, start),
            best_loss=-infinity,
            length=length,
            increases=jnp.zeros((), jnp.int32),
            checked_length=length,
            checked_best=-infinity,
        )
        last, losses = jax.lax.scan(ascend, first, (jnp.arange(steps), jnp.asarray(windows)))
        return jnp.append(losses, loss_fn(add(params, last.point), batch))

    return climb


def checkpoints(steps: int) -> list[int]:
    """Return the steps before which the length may be halved, the first ones farther apart.

    They are ceil(p_j * steps) with p_1 = 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).

    >>> checkpoints(20)
    [5, 9, 12, 14, 16, 18, 19]
    """
    # In hundredths, which are exact.
    before, share, found = 0, 22, []
    while share < 100:
        found.append(math.ceil(share * steps / 100))
        before, share = share, share + max(share - before - 3, 6)
    return sorted({k for k in found if 0 < k < steps})


def checkpoint_windows(steps: int) -> list[int]:
    """Return, for each step, how many steps the checkpoint before it looks back on; 0 for none.

    >>> checkpoint_windows(10)
    [0, 0, 0, 3, 0, 2, 1, 1, 1, 1]
    """
    windows, last = [0] * steps, 0
    for k in checkpoints(steps):
        windows[k], last = k - last, k
    return windows


def check_step_rule(step_rule: str, step_size: ScalarOrSchedule | None) -> None:
    """Raise a ValueError for an unknown rule, or for a schedule where the rule makes its own."""
    if step_rule not in STEP_RULES:
        raise ValueError(f"step_rule must be one of {list(STEP_RULES)}, got {step_rule!r}.")
    if step_rule == "adaptive" and callable(step_size):
        raise ValueError(
            'step_rule="adaptive" shortens its steps itself: give step_size as a number, the '
            'length of the first steps, or choose step_rule="fixed".'
        )


def _step(ball: balls.Ball, delta: PyTree, gradient: Gradients, length: Scalar) -> PyTree:
    return balls.project(ball, add(delta, balls.steepest_ascent(ball, gradient), length))


def _where(condition: jax.Array, chosen: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(b.dtype), chosen, other)


def _mix(aim: PyTree, point: PyTree, previous: PyTree, inertia: jax.Array) -> PyTree:
    return jax.tree.map(
        lambda z, d, p: (d + inertia * (z - d) + (1 - inertia) * (d - p)).astype(d.dtype),
        aim,
        point,
        previous,
    )
