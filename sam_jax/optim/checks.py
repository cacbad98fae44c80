"""Checks of the user's arguments, made once at the boundary of a transformation."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import pytree
from sam_jax.known import is_known, known
from sam_jax.typing import Gradients, Params, PyTree

# --- numbers ------------------------------------------------------------------------------------


def check_not_negative(name: str, value: Any) -> None:
    """Raise unless `value` is one finite number, zero or positive; schedules pass."""
    number = known_number(name, value)
    if number is not None and not number >= 0:
        raise ValueError(f"{name} must be zero or positive, got {value}.")


def check_positive(name: str, value: Any) -> None:
    """Raise unless `value` is one finite number above zero; schedules pass."""
    number = known_number(name, value)
    if number is not None and not number > 0:
        raise ValueError(f"{name} must be a positive number, got {value}.")


def check_fraction(name: str, value: Any, *, below_one: bool = False) -> None:
    """Raise unless `value` is a number in [0, 1], or in [0, 1); schedules pass."""
    number = known_number(name, value)
    if number is not None and not (0 <= number < 1 or (number == 1 and not below_one)):
        raise ValueError(f"{name} must lie in [0, 1{')' if below_one else ']'}, got {value}.")


def check_norm_order(norm_order: Any) -> None:
    """Raise unless `norm_order` is in (1, inf]."""
    number = known(norm_order)
    if number is not None and not number > 1:
        raise ValueError(
            f"norm_order must lie in (1, inf], got {norm_order}; inf is the sign step."
        )


def warn_of_rounded_decay(name: str, decay: Any) -> None:
    """Warn where `decay` is 1 in its dtype, or, traced, would be for a common 0.999.

    A Python number keeps its digits, so it is exactly the user's number.
    """
    dtype = getattr(decay, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return
    below_one = 1 - jnp.finfo(dtype).epsneg
    number = known(decay)
    if number is None:
        if below_one > 0.999:
            return
        fault = f"is kept in {dtype}, where numbers above {below_one:.4g} become 1"
    elif np.any(number == 1):
        fault = f"is 1 in {dtype}, whose next lower number is {below_one:.8g}"
    else:
        return
    warnings.warn(
        f"{name} {fault}, so that 1 - {name} is 0. optax.inject_hyperparams casts numbers to the "
        "dtype of the parameters: give it hyperparam_dtype=jnp.float32, or name what stays fixed "
        "in static_args.",
        stacklevel=3,
    )


def check_transformation(name: str, value: Any, example: str) -> None:
    """Raise unless `value` is an optax transformation; `example` is a call that has one."""
    if not all(callable(getattr(value, part, None)) for part in ("init", "update")):
        raise ValueError(
            f"{name} must be an optax transformation, got {value!r}. Call for example {example}."
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise unless `value` is one of the words that an argument takes."""
    if value not in choices:
        words = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {words}, got {value!r}.")


def known_number(name: str, value: Any) -> np.ndarray | None:
    """Return a coefficient as a NumPy number, or None for a schedule and where it is traced.

    Raises:
      ValueError: it is no number, several numbers, or known not to be finite.
    """
    if callable(value):
        return None
    is_number = isinstance(value, int | float | np.generic | np.ndarray | jax.Array)
    if not is_number or not _is_real(value):
        raise ValueError(
            f"{name} must be a number or a schedule, got {value!r}. The optimiser follows in a "
            "chain: optax.chain(sam_jax.sam(0.05), optax.sgd(0.1))."
        )
    if np.shape(value) != ():
        raise ValueError(f"{name} must be one number, got an array of the shape {np.shape(value)}.")
    number = known(value)
    if number is not None and not np.isfinite(number.astype(np.float64)):
        raise ValueError(f"{name} must be finite, got {value}.")
    return number


def is_above(a: Any, b: Any, *, or_equal: bool = False) -> bool:
    """Say whether `a` is known to be larger than `b`."""
    if not is_known((a, b)):
        return False
    left, right = np.asarray(a), np.asarray(b)
    return bool(left > right) or (or_equal and bool(left == right))


def _is_real(value: Any) -> bool:
    dtype = jnp.result_type(value)
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


# --- trees --------------------------------------------------------------------------------------


def check_params(params: Params) -> None:
    """Raise where a leaf of the parameters is neither an array nor a number."""
    for path, leaf in jax.tree.leaves_with_path(params):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex):
            raise ValueError(
                f"params must hold arrays and numbers, got {leaf!r} at {_place(path)}. Of a module "
                "give the parameters alone: eqx.filter(model, eqx.is_inexact_array) of Equinox, "
                "nnx.state(model, nnx.Param) of Flax NNX."
            )


def check_update_arguments(updates: PyTree, params: PyTree, grad_fn: Any) -> None:
    """Raise with the missing piece when `update` lacks an argument of the second pass."""
    if grad_fn is None:
        raise ValueError(
            "A sharpness-aware transformation evaluates the gradient a second time, at the "
            "perturbed parameters, and needs grad_fn: call "
            "tx.update(grads, state, params, grad_fn=grad_fn) with grad_fn: params -> gradients. "
            "Where the trainer hands none on, as TrainState.apply_gradients of Flax, call "
            "sam_jax.apply_gradients(state, grads, grad_fn=grad_fn), or take the method out of the "
            "chain by sam_jax.value_and_grad."
        )
    if not callable(grad_fn):
        raise ValueError(
            "grad_fn must be a function, params -> gradients, which is called at the perturbed "
            f"parameters; got a {type(grad_fn).__name__}. Gradients alone are the first argument: "
            "tx.update(grads, state, params, grad_fn=grad_fn)."
        )
    if params is None:
        raise ValueError(
            "A sharpness-aware transformation needs the parameters that it perturbs: call "
            "tx.update(grads, state, params, grad_fn=grad_fn)."
        )
    leaves = jax.tree.leaves(updates, is_leaf=is_masked)
    if any(is_masked(leaf) for leaf in leaves):
        raise ValueError(
            "optax.masked hides leaves from grad_fn, so a sharpness-aware transformation cannot "
            "work inside it. To perturb only some leaves give the transformation itself the mask, "
            "for example sam_jax.sam(rho, mask=mask)."
        )


def gradients_of_parameters(gradients: Gradients, params: Params) -> Gradients:
    """Return the gradients, None at leaves of `params` that are no parameters.

    There grad_fn may return anything, or None.

    Raises:
      ValueError: a parameter has no gradient of its shape and kind; the first of them is named. A
        real gradient may be narrower or wider than its parameter, as one that is accumulated is.
    """
    try:
        return jax.tree.map_with_path(_gradient_of, params, gradients)
    except _MismatchError as error:
        raise ValueError(str(error)) from None
    except ValueError:
        # The structures differ above the leaves.
        if isinstance(gradients, tuple) and len(gradients) == 2:
            raise ValueError(
                "grad_fn must return the gradients alone, but returned a tuple of two. For a value "
                "or auxiliary outputs beside them call the transformation's pure function, "
                "tx.gradient, whose grad_fn returns (gradients, auxiliary)."
            ) from None
        raise ValueError(
            "grad_fn must return gradients with the structure of the parameters, but "
            f"{_first_difference(gradients, params)}."
        ) from None


class _MismatchError(Exception):
    """A gradient that does not fit its parameter."""


def _gradient_of(path: tuple, w: Any, gradient: Any) -> Any:
    if not pytree.is_parameter(w):
        return None
    is_number = hasattr(gradient, "dtype") or isinstance(gradient, int | float | complex)
    if not is_number or not jax.tree_util.all_leaves([gradient]):  # a Param of NNX is no leaf
        given = "None" if gradient is None else f"a {type(gradient).__name__}"
        raise _MismatchError(_mismatch(path, w, given))
    if not pytree.is_parameter(gradient):
        raise _MismatchError(_mismatch(path, w, f"one of the dtype {jnp.result_type(gradient)}"))
    if jnp.iscomplexobj(gradient) != jnp.iscomplexobj(w):
        raise _MismatchError(_mismatch(path, w, f"one of the dtype {jnp.result_type(gradient)}"))
    if np.shape(gradient) != np.shape(w):
        raise _MismatchError(_mismatch(path, w, f"one of the shape {np.shape(gradient)}"))
    return gradient


def _mismatch(path: tuple, w: Any, given: str) -> str:
    return (
        f"grad_fn must return a gradient for every parameter: at {_place(path)} wanted one of the "
        f"shape {np.shape(w)} and the dtype {jnp.result_type(w)}, got {given}."
    )


def _first_difference(gradients: Gradients, params: Params) -> str:
    """Say where two pytrees first differ."""
    wanted = [_place(path) for path, _ in jax.tree.leaves_with_path(params)]
    given = [_place(path) for path, _ in jax.tree.leaves_with_path(gradients)]
    missing = [path for path in wanted if path not in given]
    unknown = [path for path in given if path not in wanted]
    if missing:
        return f"returned none at {missing[0]}"
    if unknown:
        return f"returned one at {unknown[0]}, where params have none"
    return (
        f"its containers differ, {type(gradients).__name__} for {type(params).__name__}: "
        f"{jax.tree.structure(gradients)} for {jax.tree.structure(params)}"
    )


def _place(path: tuple) -> str:
    return jax.tree_util.keystr(path) or "the only leaf"


def is_masked(leaf: Any) -> bool:
    """Say whether optax.masked or optax.partition has put a node in the place of a leaf."""
    return isinstance(leaf, optax.MaskedNode)
