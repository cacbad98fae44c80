"""The term that SAF and MESA add to the loss, and what their steps share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import pytree, shardings
from sam_jax.optim import checks
from sam_jax.optim.transformation import AuxiliaryGradFn
from sam_jax.typing import Gradients, Params, Scalar

Term = Callable[[jax.Array], jax.Array]  # logits [n, C] -> scalar


def trajectory_term(
    target: jax.Array, weight: Scalar, tau: Scalar, is_on: jax.Array | bool = True
) -> Term:
    r"""Return the divergence of the softened predictions from another model's.

    .. math::
      \mathrm{term}(z) = \lambda \, \frac{\tau^2}{n} \sum_{i=1}^n
      \mathrm{KL}\big(\mathrm{softmax}(t_i / \tau) \,\|\, \mathrm{softmax}(z_i / \tau)\big)

    No gradient flows into the targets; the softmax is taken in float32 or wider.

    Args:
      target: the logits t of the other model, [n, C].
      weight: lambda.
      tau: temperature.
      is_on: whether an example counts, [n] booleans; the others add zero, and n stays the same.

    Returns:
      A function from the logits z, [n, C], to a scalar. It is a pytree, so that a jitted function
      can take it as an argument.

    Example:
      >>> import jax.numpy as jnp
      >>> term = trajectory_term(jnp.zeros((1, 2)), weight=1.0, tau=1.0)
      >>> print(f"{term(jnp.array([[0.0, 1.0]])):.4f}")
      0.1201

    Source: Du et al. 2022 (SAF); the factor tau^2 and the mean over the batch as in the released
    code, AngusDujw/SAF.
    """
    return jax.tree_util.Partial(
        _weighted_divergence, jax.lax.stop_gradient(target), weight, tau, is_on
    )


def _weighted_divergence(
    target: jax.Array, weight: Scalar, tau: Scalar, is_on: jax.Array | bool, logits: jax.Array
) -> jax.Array:
    if logits.shape != target.shape:
        raise ValueError(
            f"term compares with the logits of {target.shape[0]} examples and {target.shape[1]} "
            f"classes, but grad_fn gave it the shape {logits.shape}. grad_fn, logits_fn and "
            "indices must belong to one batch."
        )
    target = shardings.placed_as(target, logits)
    log_target = jax.nn.log_softmax(pytree.widen(target) / tau)
    log_prediction = jax.nn.log_softmax(pytree.widen(logits) / tau)
    divergence = optax.losses.kl_divergence_with_log_targets(log_prediction, log_target)
    is_on = shardings.placed_as(jnp.broadcast_to(is_on, divergence.shape), divergence)
    return weight * tau**2 * jnp.mean(jnp.where(is_on, divergence, 0))


def gradient_with_term(
    method: str, grad_fn: AuxiliaryGradFn, params: Params, term: Term
) -> tuple[Gradients, Any]:
    """Return `grad_fn(params, term=term)`; raise ValueError where it takes no term."""
    try:
        gradient, aux = grad_fn(params, term=term)
    except TypeError as error:
        if "'term'" not in str(error):
            raise
        raise ValueError(
            f"{method} adds a term to the loss, and grad_fn must take it as a keyword: "
            "grad_fn(params, term=None) with the gradient of loss + term(logits) where term is "
            f"given; calling it so raised: {error}."
        ) from error
    return gradient, aux


def logits_at(method: str, logits_fn: Any, params: Params) -> jax.Array:
    """Return `logits_fn(params)`, [n, C], without gradient; raise where it is missing."""
    if logits_fn is None:
        raise ValueError(
            f"{method} compares predictions and needs logits_fn: call "
            "tx.update(grads, state, params, grad_fn=grad_fn, logits_fn=logits_fn) with "
            "logits_fn: params -> the logits of the batch, [n, C]."
        )
    logits = jax.lax.stop_gradient(logits_fn(params))
    if logits.ndim != 2:
        raise ValueError(
            f"logits_fn must return the logits of a batch, [n, C], got {logits.shape}."
        )
    return logits


def check_temperature(tau: Any) -> None:
    """Raise unless `tau` is a positive number; traced values pass."""
    checks.check_positive("tau", tau)
    if callable(tau):
        raise ValueError(f"tau must be a positive number, got {tau!r}.")
