"""Averages of the parameters over the updates, kept beside them: SWA and the moving average."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import pytree
from sam_jax.optim import checks, states
from sam_jax.optim.perturbations.common import incremented, transformation, value_at
from sam_jax.optim.schedules import check_steps
from sam_jax.typing import Gradients, Integer, Params, PyTree, ScalarOrSchedule


class AverageState(NamedTuple):
    """What an averaging link keeps."""

    count: jax.Array  # int32, updates so far
    averaged: jax.Array  # int32, how many of the parameters after them are in the average
    average: Params  # float32 or wider; zero while nothing is averaged


def swa(start: Integer = 0, every: Integer = 1) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic weight averaging: the mean of the parameters along the trajectory.

    .. math::
      \bar w \leftarrow \frac{n \bar w + w}{n + 1}, \qquad n \leftarrow n + 1

    after the updates `start`, `start + every`, `start + 2 every`, ..., counted from zero. The paper
    averages once an epoch, over the last quarter of the training, at a constant or cyclical
    learning rate. The running statistics of batch norm do not belong to averaged weights: compute
    them again, see `sam_jax.training.recalibration`.

    Args:
      start: the first update after which the parameters are averaged.
      every: updates between one and the next.

    Returns:
      The *last* link of an `optax.chain`: it needs the final updates, which it passes on as they
      are, and sees the parameters that `optax.apply_updates` makes of them. The average is in its
      state, for `averaged_params`.

    Raises:
      ValueError: start is negative, every is not positive, or update gets no parameters.

    Example:
      >>> import jax.numpy as jnp, optax, sam_jax
      >>> tx = optax.chain(optax.sgd(1.0), sam_jax.swa(start=1))
      >>> params = jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for gradient in (5.0, -1.0, -3.0):  # to -5, -4 and -1
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> print(params, sam_jax.averaged_params(state, params))
      -1.0 -2.5

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
    Generalization", algorithm 1; timgaripov/swa.
    """
    check_steps("start", start, 0)
    check_steps("every", every, 1)

    def is_due(state: AverageState) -> jax.Array:
        since = state.count - start
        return (since >= 0) & (since % every == 0)

    def blend(state: AverageState, average: jax.Array, w: jax.Array) -> jax.Array:
        return average + (w - average) / (state.averaged + 1)

    return _averaging(is_due, blend)


def weight_ema(
    decay: ScalarOrSchedule = 0.999, *, warm_up: bool = False, start: Integer = 0
) -> optax.GradientTransformationExtraArgs:
    r"""Exponential moving average of the parameters.

    .. math::
      \bar w \leftarrow \tau \bar w + (1 - \tau) w

    after every update; the average starts as the parameters after the first one, without a bias
    towards zero. About the last 1 / (1 - tau) updates count. With `warm_up` tau gives way to

    .. math::
      \tau_t = \min\left(\tau, \frac{1 + t}{10 + t}\right)

    with t the updates since `start`, so that the first parameters are soon forgotten.

    Args:
      decay: tau, or a schedule of it, read at the number of updates before.
      warm_up: whether the decay grows to tau.
      start: updates after which the average begins; up to then it is the newest parameters.

    Returns:
      The *last* link of an `optax.chain`, as `swa` is.

    Raises:
      ValueError: decay is not in [0, 1], start is negative, or update gets no parameters.

    Example:
      >>> import jax.numpy as jnp, optax, sam_jax
      >>> tx = optax.chain(optax.sgd(1.0), sam_jax.weight_ema(decay=0.75))
      >>> params = jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for gradient in (-4.0, -4.0):  # to 4 and 8
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> print(sam_jax.averaged_params(state, params))
      5.0

    Source: tml-epfl/understanding-sam keeps such an average with tau = 0.999 beside each run; it
    starts at the initial parameters, which weigh tau**t after t updates. The warm-up is that of
    TensorFlow's ExponentialMovingAverage, also in the EfficientNets of google-research/sam, which
    average running statistics too, and whose 1560 steps of warm-up are start = 1559 here.
    """
    checks.check_fraction("decay", decay)
    checks.warn_of_rounded_decay("decay", decay)
    check_steps("start", start, 0)

    def decay_at(count: jax.Array) -> Any:
        tau = value_at(decay, count)
        since = count - start
        return jnp.minimum(tau, (1.0 + since) / (10.0 + since)) if warm_up else tau

    def blend(state: AverageState, average: jax.Array, w: jax.Array) -> jax.Array:
        blended = average + (1 - decay_at(state.count)) * (w - average)
        return jnp.where(state.count < start, w, blended)

    return _averaging(lambda state: True, blend)


def averaged_params(state: PyTree, params: Params) -> Params:
    """Return the averaged parameters that a link of the chain has kept.

    Args:
      state: the state of `swa` or `weight_ema`, of a chain with one of them, or any pytree with
        such a state inside.
      params: the current parameters, for the dtypes; they are returned while nothing is averaged.

    Returns:
      The average in the structure and the dtypes of `params`, with leaves that are no parameters as
      they are; see `swa` for an example.

    Raises:
      ValueError: the state holds no average, or several, or one of other parameters.

    Example:
      >>> import jax.numpy as jnp, optax, sam_jax
      >>> tx = optax.chain(optax.sgd(1.0), sam_jax.weight_ema(decay=0.5))
      >>> params = jnp.array(0.0)
      >>> _, state = tx.update(jnp.array(-4.0), tx.init(params), params)  # to 4
      >>> print(averaged_params(state, params))
      4.0
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, AverageState))
    found = [leaf for leaf in leaves if isinstance(leaf, AverageState)]
    if len(found) != 1:
        raise ValueError(
            f"The state holds {len(found)} averages of the parameters, wanted one: "
            + (
                "give the state of a chain whose last link is sam_jax.swa or sam_jax.weight_ema."
                if not found
                else "give the state of the one link that is meant, for example state[-1]."
            )
        )
    (kept,) = found

    def pick(average: jax.Array, w: jax.Array) -> jax.Array:
        # A state of several runs has leading axes, in the count as in the average.
        is_averaged = jnp.expand_dims(kept.averaged > 0, range(kept.averaged.ndim, average.ndim))
        return jnp.where(is_averaged, average.astype(w.dtype), w)

    parameters, others = pytree.partition(params)
    if jax.tree.structure(kept.average) != jax.tree.structure(parameters):
        raise ValueError(
            "The average is of other parameters than params: it has the structure "
            f"{jax.tree.structure(kept.average)}, params have {jax.tree.structure(parameters)}. "
            "Give the params that the chain updates."
        )
    return pytree.merge(jax.tree.map(pick, kept.average, parameters), others)


def _averaging(
    is_due: Callable[[AverageState], Any],
    blend: Callable[[AverageState, jax.Array, jax.Array], jax.Array],
) -> optax.GradientTransformationExtraArgs:
    """Build a link.

    Args:
      is_due: state -> whether the parameters after this update are averaged.
      blend: (state, average, parameters) -> average, leaf by leaf, from the second time on.
    """

    def init(params: Params) -> AverageState:
        # No array twice, nor the parameters themselves: a step may donate both.
        zeros = pytree.zeros_like(pytree.partition(params)[0])
        return AverageState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), zeros)

    check_state = states.check_of(init)

    def update(
        updates: Gradients, state: AverageState, params: Params = None, **_: Any
    ) -> tuple[Gradients, AverageState]:
        if params is None:
            raise ValueError(
                "An average of the parameters needs them: call tx.update(grads, state, params)."
            )
        check_state(state, params)
        due, is_first = is_due(state), state.averaged == 0
        parameters, _ = pytree.partition(params)
        moves = jax.tree.map(lambda w, u: u if pytree.is_parameter(w) else None, params, updates)

        def average(old: jax.Array, w: jax.Array) -> jax.Array:
            w = pytree.widen(w)
            new = jnp.where(is_first, w, blend(state, old, w).astype(old.dtype))
            return jnp.where(due, new, old)

        new = AverageState(
            incremented(state.count),
            jnp.where(due, incremented(state.averaged), state.averaged),
            jax.tree.map(average, state.average, optax.apply_updates(parameters, moves)),
        )
        return updates, new

    return transformation(init, update)
