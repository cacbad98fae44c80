"""Schedules: which steps make the perturbed pass, and which gradient the others take."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_jax import pytree
from sam_jax.optim import checks, combinations
from sam_jax.optim.assembly import Schedule
from sam_jax.optim.perturbations.common import (
    RandomState,
    ScheduleState,
    advance,
    init_random,
    init_schedule,
    value_at,
)
from sam_jax.typing import Gradients, Integer, Key, Params, PyTree, Scalar, ScalarOrSchedule

# A direction shorter than this many units of rounding of the gradient is taken for noise.
ROUNDING_UNITS = 2


class ReuseState(NamedTuple):
    """The number of updates so far and the unit direction that the last pass added."""

    count: jax.Array
    direction: PyTree  # float32 or wider; zero where there is none


class GradientNormState(NamedTuple):
    """The number of updates so far and the moments of the squared gradient norm."""

    count: jax.Array
    mean: jax.Array  # float32 or wider, moving averages
    variance: jax.Array


def every(k: Integer) -> Schedule:
    """Make the pass on steps 0, k, 2k, ...; the others take the clean gradient.

    Args:
      k: steps from one pass to the next.

    Raises:
      ValueError: k is not a positive whole number.
    """
    check_steps("k", k, 1)

    def decide(state: ScheduleState, clean: Gradients) -> tuple[jax.Array, ScheduleState]:
        del clean
        return is_multiple(state.count, k), advance(state)

    return Schedule(init_schedule, decide)


def from_step(start: Integer) -> Schedule:
    """Make the pass on step `start` and all after it; the others take the clean gradient.

    Args:
      start: the first step with a pass, counted from 0.

    Raises:
      ValueError: start is negative or not a whole number.
    """
    check_steps("start", start, 0)

    def decide(state: ScheduleState, clean: Gradients) -> tuple[jax.Array, ScheduleState]:
        del clean
        return state.count >= start, advance(state)

    return Schedule(init_schedule, decide)


def with_probability(probability: ScalarOrSchedule, key: Key) -> Schedule:
    """Make the pass with a probability, drawn again at every step.

    One draw decides for all sub-batches of a step.

    Args:
      probability: in [0, 1], or a schedule of it.
      key: a typed key; it lives in the state.

    Raises:
      ValueError: probability lies outside [0, 1].
      TypeError: key is not a typed key.
    """
    checks.check_fraction("probability", probability)

    def decide(state: RandomState, clean: Gradients) -> tuple[jax.Array, RandomState]:
        del clean
        key = jax.random.fold_in(state.key, state.count)
        return jax.random.bernoulli(key, value_at(probability, state.count)), advance(state)

    return Schedule(init_random(key), decide)


def reusing_direction(k: Integer, alpha: Scalar, rho: ScalarOrSchedule) -> Schedule:
    r"""Make the pass on steps 0, k, 2k, ...; the others add the direction that the last one found.

    .. math::
      G = g + \alpha \, \|g\| \, \frac{g_v}{\|g_v\|}, \qquad
      g_v = g_s - \frac{\langle g_s, g \rangle}{\|g\|^2} g

    with g_v of the last pass: the part of its gradient g_s orthogonal to the clean one.

    Args:
      k: steps from one pass to the next.
      alpha: the length of the added gradient, relative to the clean gradient.
      rho: radius of the perturbation, or a schedule of it: without one there is no direction.

    Raises:
      ValueError: k is not a positive whole number, or alpha is negative.
    """
    checks.check_not_negative("alpha", alpha)
    decide = every(k).decide

    def init(params: Params) -> ReuseState:
        zeros = pytree.zeros_like(params)
        return ReuseState(jnp.zeros((), jnp.int32), zeros)

    def vertical(clean: Gradients, new: Gradients, slope: jax.Array) -> PyTree:
        # From the difference, for g_s and its projection agree in all but their last digits.
        return pytree.add(combinations.difference(clean, new), clean, -slope)

    def measure(state: ReuseState, clean: Gradients, new: Gradients) -> tuple[jax.Array, jax.Array]:
        """Return the slope of the difference along g, and 1 / ||g_v||, or 0 for no direction."""
        slope = pytree.slope(combinations.difference(clean, new), clean)
        inverse = pytree.inverse_norm(vertical(clean, new, slope))
        # Normalising noise would turn it into a full step: drop what rounding alone can make, and
        # all of it where there was no perturbation. `decide` has counted this step already.
        is_real = inverse * (ROUNDING_UNITS * _rounding(clean)) < 1
        is_real &= value_at(rho, state.count - 1) > 0
        return slope, jnp.where(is_real, inverse, 0)

    def remember(
        state: ReuseState, clean: Gradients, new: Gradients, slope: jax.Array, inverse: jax.Array
    ) -> ReuseState:
        direction = jax.tree.map(
            lambda v: jnp.where(inverse > 0, inverse * v, 0), vertical(clean, new, slope)
        )
        return state._replace(direction=direction)

    def substitute(state: ReuseState, clean: Gradients) -> Gradients:
        return pytree.add(clean, state.direction, alpha * pytree.norm(clean))

    return Schedule(init, decide, remember, substitute, measure)


def on_large_gradients(threshold: ScalarOrSchedule, decay: Scalar) -> Schedule:
    r"""Make the pass where the gradient is large compared with those before it.

    .. math::
      \|g_t\|^2 \ge \mu_t + c_t \sigma_t, \qquad
      \mu_t = \delta \mu_{t-1} + (1 - \delta) \|g_t\|^2, \quad
      \sigma_t^2 = \delta \sigma_{t-1}^2 + (1 - \delta) (\|g_t\|^2 - \mu_t)^2

    The averages start from the first gradient, hence with variance zero and a pass at step 0.

    Args:
      threshold: c_t, of either sign, or a schedule of it.
      decay: delta, in [0, 1].

    Raises:
      ValueError: decay lies outside [0, 1].
    """
    checks.check_fraction("decay", decay)
    checks.warn_of_rounded_decay("decay", decay)

    def init(params: Params) -> GradientNormState:
        dtype = pytree.real_dtype(params)
        # Arrays of their own: a step that donates its state cannot donate one array twice.
        mean, variance = jnp.zeros((), dtype), jnp.zeros((), dtype)
        return GradientNormState(jnp.zeros((), jnp.int32), mean, variance)

    def decide(state: GradientNormState, clean: Gradients) -> tuple[jax.Array, GradientNormState]:
        squared = pytree.vdot(clean, clean)
        is_first = state.count == 0
        mean = jnp.where(is_first, squared, decay * state.mean + (1 - decay) * squared)
        spread = decay * state.variance + (1 - decay) * (squared - mean) ** 2
        variance = jnp.where(is_first, 0, spread)
        is_small = squared < mean + value_at(threshold, state.count) * jnp.sqrt(variance)
        # A gradient that is not finite, as loss scaling makes at times, must not stay in the
        # averages: no gradient would ever again be called large.
        is_finite = jnp.isfinite(squared)
        new = state._replace(
            mean=jnp.where(is_finite, mean, state.mean).astype(state.mean.dtype),
            variance=jnp.where(is_finite, variance, state.variance).astype(state.variance.dtype),
        )
        return ~is_small, advance(new)

    return Schedule(init, decide)


def is_multiple(count: jax.Array, k: Scalar) -> jax.Array:
    """Say whether `count` is a multiple of `k`, a whole number in any dtype."""
    return count % jnp.asarray(k, count.dtype) == 0


def check_steps(name: str, value: Any, least: int) -> None:
    """Raise unless `value` is a whole number from `least` on; traced values pass."""
    number = checks.known_number(name, value)
    if callable(value) or (number is not None and (number % 1 or number < least)):
        raise ValueError(f"{name} must be a whole number of steps from {least} on, got {value!r}.")


def _rounding(gradient: Gradients) -> jax.Array:
    """Return the norm of the units of rounding of all entries."""
    leaves_of: dict[Any, list] = {}
    for leaf in jax.tree.leaves(gradient):
        leaves_of.setdefault(leaf.dtype, []).append(leaf)
    # The unit times the norm: the units themselves would take the memory of another gradient.
    return pytree.norm([jnp.finfo(t).eps * pytree.norm(some) for t, some in leaves_of.items()])
