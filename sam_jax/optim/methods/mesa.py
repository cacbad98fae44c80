"""MESA: stay close to the predictions of the averaged parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_jax import pytree
from sam_jax.optim import checks, trajectory_loss
from sam_jax.optim.perturbations.common import advance, value_at
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Integer, Params, Scalar, ScalarOrSchedule


class MesaState(NamedTuple):
    """The number of updates so far, and the moving average of the parameters."""

    count: jax.Array
    average: Params  # float32 or wider


def mesa(
    lmbda: ScalarOrSchedule = 0.8,
    tau: Scalar = 5.0,
    decay: Scalar = 0.9995,
    start: Integer = 0,
) -> SharpnessAwareTransformation:
    r"""MESA: the gradient of the loss and of a distance to the averaged model's predictions.

    .. math::
      G(w_t) = \nabla \Big[ L(w) + \lambda \, \frac{\tau^2}{n} \sum_i \mathrm{KL}\big(
      \mathrm{softmax}(z_i(v_t) / \tau) \,\|\, \mathrm{softmax}(z_i(w) / \tau)\big) \Big]_{w = w_t},
      \qquad v_t = d \, v_{t-1} + (1 - d) \, w_t, \quad v_0 = w_0

    with z_i the logits of example i and d = decay; no gradient flows through v. A sharp minimum is
    one that the loss falls into suddenly, and the term holds back sudden changes. The averaged
    model is evaluated by `logits_fn`: where that normalises by batch statistics, so does it. The
    released code averages the running statistics of batch norm with the parameters, and evaluates
    the averaged model on those.

    The cost is one gradient and one more forward pass, 4/3 gradients; the clean gradient that
    update receives is not used, and under jit never computed.

    Args:
      lmbda: weight of the term, or an optax schedule of it; 0.8 in the released run. Zero gives
        the plain gradient.
      tau: temperature; 5 in the paper.
      decay: d, in [0, 1); the default of the released code is 0.9998.
      start: the update, counted from zero, from which on the term is added; the average begins at
        the first update in any case. The released code waits for six epochs, 0 to 5:
        6 * updates_per_epoch.

    Returns:
      One link of an `optax.chain`, before the optimiser. Its update needs
      `grad_fn: (params, term=...) -> gradients`, with the gradient of loss + term(logits), and
      `logits_fn: params -> logits` of the batch, [n, C]. It works inside `m_sam` with any m.

    Raises:
      ValueError: an argument is out of its range, or grad_fn or logits_fn is missing or does not
        fit.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_jax
      >>> x, y = jnp.eye(2), jnp.array([0, 1])
      >>> logits_fn = lambda w: x @ w
      >>> def loss_fn(w, term):
      ...     logits = logits_fn(w)
      ...     losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
      ...     return jnp.mean(losses) + term(logits)
      >>> grad_fn = jax.grad(loss_fn)
      >>> tx = optax.chain(sam_jax.mesa(lmbda=0.8, decay=0.9), optax.sgd(1.0))
      >>> w, unused = jnp.zeros((2, 2)), jnp.zeros((2, 2))
      >>> state = tx.init(w)
      >>> for _ in range(2):
      ...     updates, state = tx.update(unused, state, w, grad_fn=grad_fn, logits_fn=logits_fn)
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{w[0, 0]:.3f}")  # without the term 0.439
      0.394

    Source: Du et al. 2022, "Sharpness-Aware Training for Free", section on MESA; AngusDujw/SAF,
    MESA_train.py, for tau^2 and the mean over the batch.
    """
    checks.check_not_negative("lmbda", lmbda)
    trajectory_loss.check_temperature(tau)
    checks.warn_of_rounded_decay("decay", decay)
    checks.check_fraction("decay", decay, below_one=True)
    checks.check_not_negative("start", start)

    def init(params: Params) -> MesaState:
        # A copy, because a step may donate its parameters and its state together.
        average = jax.tree.map(lambda w: jnp.copy(pytree.widen(w)), params)
        return MesaState(jnp.zeros((), jnp.int32), average)

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: MesaState,
        *,
        logits_fn: Callable[..., jax.Array] | None = None,
        **_: Any,
    ) -> tuple[SharpnessAwareGradient, MesaState]:
        average = _moved(state.average, params, decay)
        averaged_params = jax.tree.map(lambda v, w: v.astype(w.dtype), average, params)
        target = trajectory_loss.logits_at("mesa", logits_fn, averaged_params)
        term = trajectory_loss.trajectory_term(
            target, value_at(lmbda, state.count), tau, state.count >= start
        )
        result, aux = trajectory_loss.gradient_with_term("mesa", grad_fn, params, term)
        state = advance(state._replace(average=average))
        return SharpnessAwareGradient(result, aux, aux), state

    return SharpnessAwareTransformation(init, gradient)


def _moved(average: Params, params: Params, decay: Scalar) -> Params:
    """Return the next moving average; it stays where it is at the parameters themselves."""
    return jax.tree.map(
        lambda v, w: (v + (1 - decay) * (pytree.widen(w) - v)).astype(v.dtype), average, params
    )
