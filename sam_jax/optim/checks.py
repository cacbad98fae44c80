"""Checks of what the user passes in, made once at the boundary of a transformation."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax.typing import PyTree


def check_not_negative(name: str, value: Any) -> None:
    """Raise unless `value` is a number, zero or positive; schedules and traced values pass."""
    if callable(value) or isinstance(value, jax.core.Tracer):
        return
    if not isinstance(value, int | float | np.number | np.ndarray | jax.Array):
        raise ValueError(
            f"{name} must be a number or a schedule, got {value!r}. The optimiser follows in a "
            "chain: optax.chain(sam_jax.sam(0.05), optax.sgd(0.1))."
        )
    if not value >= 0:
        raise ValueError(f"{name} must be zero or positive, got {value}.")


def check_norm_order(norm_order: Any) -> None:
    """Raise unless `norm_order` is in (1, inf]; traced values pass."""
    if not isinstance(norm_order, jax.core.Tracer) and not norm_order > 1:
        raise ValueError(
            f"norm_order must lie in (1, inf], got {norm_order}; inf is the sign step."
        )


def check_fraction(name: str, value: Any) -> None:
    """Raise unless `value` is a number in [0, 1]; schedules and traced values pass."""
    if callable(value) or isinstance(value, jax.core.Tracer):
        return
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}.")


def warn_of_rounded_decay(name: str, decay: Any) -> None:
    """Warn where `decay` is 1 in its dtype, or, traced, would be for a common 0.999.

    A Python number keeps its digits and says what the user meant.
    """
    dtype = getattr(decay, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return
    below_one = 1 - jnp.finfo(dtype).epsneg
    if isinstance(decay, jax.core.Tracer):
        if below_one > 0.999:
            return
        fault = f"is kept in {dtype}, where numbers above {below_one:.4g} become 1"
    elif np.any(decay == 1):
        fault = f"is 1 in {dtype}, whose next lower number is {below_one:.8g}"
    else:
        return
    warnings.warn(
        f"{name} {fault}, so that 1 - {name} is 0. optax.inject_hyperparams casts numbers to the "
        "dtype of the parameters: give it hyperparam_dtype=jnp.float32, or name what stays fixed "
        "in static_args.",
        stacklevel=3,
    )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise unless `value` is one of the words that an argument takes."""
    if value not in choices:
        words = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {words}, got {value!r}.")


def check_update_arguments(updates: PyTree, params: PyTree, grad_fn: Any) -> None:
    """Raise with the missing piece when `update` is called without what a second pass needs."""
    if grad_fn is None:
        raise ValueError(
            "A sharpness-aware transformation evaluates the gradient a second time, at the "
            "perturbed parameters, and needs grad_fn: call "
            "tx.update(grads, state, params, grad_fn=grad_fn) with grad_fn: params -> gradients."
        )
    if params is None:
        raise ValueError(
            "A sharpness-aware transformation needs the parameters that it perturbs: call "
            "tx.update(grads, state, params, grad_fn=grad_fn)."
        )
    leaves = jax.tree.leaves(updates, is_leaf=lambda x: isinstance(x, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
        raise ValueError(
            "optax.masked hides leaves from grad_fn, so a sharpness-aware transformation cannot "
            "work inside it. To perturb only some leaves give the transformation itself the mask, "
            "for example sam_jax.sam(rho, mask=mask)."
        )


def check_gradients(gradients: PyTree, params: PyTree) -> None:
    """Raise when grad_fn returned something other than one gradient per parameter."""
    given, wanted = jax.tree.structure(gradients), jax.tree.structure(params)
    if given == wanted:
        return
    if isinstance(gradients, tuple) and len(gradients) == 2:
        raise ValueError(
            "grad_fn must return the gradients alone, but returned a tuple of two. For a value or "
            "auxiliary outputs beside them call the transformation's pure function, tx.gradient, "
            "whose grad_fn returns (gradients, auxiliary)."
        )
    raise ValueError(
        "grad_fn must return gradients with the structure of the parameters, "
        f"{wanted}, but returned {given}."
    )
