"""Checks of an instrument's arguments, made once, before anything is computed."""

import itertools
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr

from sam_jax.known import is_known, known
from sam_jax.metrics.placement import with_whole_first_axis
from sam_jax.pytree import chosen_leaves, is_parameter
from sam_jax.typing import AnyArray, Batch, Mask, Params, PyTree, Scalar


def check_count(name: str, value: int) -> None:
    """Raise a ValueError unless `value` is an integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def check_positive(name: str, value: Scalar, *, or_zero: bool = False) -> None:
    """Raise a ValueError unless `value` is one finite number above (or at) zero.

    A value that is traced by jit is not known yet and passes.
    """
    number = known(value)
    if number is None:
        return
    wanted = "zero or a positive number" if or_zero else "a positive number"
    real = any(jnp.issubdtype(number.dtype, kind) for kind in (jnp.integer, jnp.floating))
    fits = real and number.ndim == 0 and np.isfinite(number) and number >= 0
    if not fits or not (number or or_zero):
        raise ValueError(f"{name} must be {wanted}, got {value!r}.")


def check_distribution(distribution: str, known: tuple[str, ...]) -> None:
    """Raise a ValueError that lists the known laws unless `distribution` is one of them."""
    if distribution not in known:
        raise ValueError(f"distribution must be one of {list(known)}, got {distribution!r}.")


def check_vector(name: str, values: AnyArray | Sequence[float]) -> jax.Array:
    """Return `values` as an array, at least one number and all of them finite.

    Raises:
      ValueError: they are no vector, or known not to be finite.
    """
    vector = jnp.asarray(values)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} must have the shape [k], k >= 1, got {vector.shape}.")
    check_finite(name, vector)
    return vector


def check_finite(name: str, tree: PyTree) -> None:
    """Raise a ValueError that names a leaf where `tree` is known to be infinite or NaN."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if is_known(leaf) and not np.isfinite(np.asarray(leaf)).all():
            place = f" at {keystr(path)}" if path else ""
            raise ValueError(
                f"{name} must be finite, got infinity or NaN{place}. Look for an overflow, or "
                "for a run that diverged."
            )


def check_loss(losses: jax.Array) -> None:
    """Raise a ValueError where the loss at the parameters is known and nowhere finite.

    For instruments that subtract it, because all they could return is NaN. A loss that is traced by
    jit is not known yet: there NaN stays NaN.

    Args:
      losses: L(w), a scalar; or the losses of several batches, where one finite loss is enough.
    """
    if is_known(losses) and not np.isfinite(np.asarray(losses)).any():
        raise ValueError(
            "The loss at params must be finite, because the rises above it are measured; loss_fn "
            f"returned {np.ravel(np.asarray(losses))[0]}. Look for a run that diverged, or for "
            "examples that are not finite."
        )


def check_products(values: PyTree) -> None:
    """Raise a ValueError where what products with the Hessian gave is known and nowhere finite.

    Under jit they are not known yet: there NaN stays NaN.
    """
    leaves = jax.tree.leaves(values)
    if is_known(leaves) and not any(np.isfinite(np.asarray(leaf)).any() for leaf in leaves):
        raise ValueError(
            "The loss at params and its derivatives must be finite, but the products with its "
            f"Hessian give {np.ravel(np.asarray(leaves[0]))[0]}. Look for a run that diverged, for "
            "examples that are not finite, or for a derivative that is not, such as that of a "
            "square root at 0."
        )


def check_not_empty(name: str, tree: PyTree) -> None:
    """Raise a ValueError where `tree` has no leaf."""
    if not jax.tree.leaves(tree):
        raise ValueError(f"{name} must hold at least one array, got an empty pytree.")


def check_batches(batches: Batch) -> Batch:
    """Return batches that a loop can go over; each may be split over devices.

    Raises:
      ValueError: the leaves do not share two leading axes [n, m], or one of these is empty.
    """
    check_not_empty("batches", batches)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batches)]
    leading = {shape[:2] for shape in shapes}
    if len(leading) > 1 or len(shapes[0]) < 2:
        raise ValueError(
            "Every leaf of batches must start with the same two axes [n, m]: n batches of m "
            f"examples. Got the shapes {shapes}. Reshape one batch of m examples to [1, m, ...]."
        )
    if 0 in shapes[0][:2]:
        raise ValueError(f"batches must hold at least one example, got the shapes {shapes}.")
    return with_whole_first_axis(batches)


def check_direction(
    name: str, direction: PyTree, params: Params, *, stacked: bool = False
) -> PyTree:
    """Return `direction` at the parameters, and None at all other leaves of `params`.

    There, and where `params` hold None, it may hold anything, or None.

    Args:
      name: its name in the error.
      direction: real arrays and numbers in the structure of `params`.
      params: the parameters that it has to fit.
      stacked: whether there are several directions, along one more leading axis of every leaf.

    Raises:
      ValueError: the structure or a shape does not fit, or a leaf is not real.
    """
    wanted, structure = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: x is None)
    try:
        found = structure.flatten_up_to(direction)
    except ValueError:
        found = None
    at_parameters = [is_parameter(w) for _, w in wanted]
    if found is None or not jax.tree_util.all_leaves(itertools.compress(found, at_parameters)):
        raise ValueError(
            f"{name} must have the same pytree structure as params, {jax.tree.structure(params)}; "
            f"got {jax.tree.structure(direction)}."
        )
    for (path, w), d in itertools.compress(zip(wanted, found, strict=True), at_parameters):
        place, shape, expected = keystr(path) or "the only leaf", np.shape(d), np.shape(w)
        if stacked and (len(shape) != len(expected) + 1 or shape[1:] != expected):
            raise ValueError(
                f"{name} must have the shapes of params after one leading axis: "
                f"at {place} expected (number of directions, *{expected}), got {shape}."
            )
        if not stacked and shape != expected:
            raise ValueError(
                f"{name} must have the shapes of params: at {place} expected {expected}, got "
                f"{shape}."
            )
        if not _is_real(d):
            raise ValueError(f"{name} must hold real numbers, got {d!r} at {place}.")
    return structure.unflatten(
        d if keep else None for d, keep in zip(found, at_parameters, strict=True)
    )


def check_moves(name: str, direction: PyTree, params: Params) -> PyTree:
    """Return what `check_direction` does, and raise a ValueError unless it leads somewhere.

    A direction that is traced by jit is not known yet and passes as finite and not zero.
    """
    direction = check_direction(name, direction, params)
    check_finite(name, direction)
    if is_zero(direction):
        raise ValueError(f"{name} is zero, so all points along it are one. Give another.")
    return direction


def check_directions(directions: PyTree, params: Params) -> tuple[PyTree, int]:
    """Return what `check_direction` does of stacked directions, and how many there are.

    Raises:
      ValueError: the structure or a shape does not fit `params`, or there is no direction.
    """
    directions = check_direction("directions", directions, params, stacked=True)
    counts = {np.shape(leaf)[0] for leaf in jax.tree.leaves(directions)}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "Every leaf of directions must hold the same number of directions, at least one; "
            f"got {sorted(counts)}."
        )
    return directions, counts.pop()


def check_mask(mask: Mask, params: Params) -> PyTree:
    """Return the mask's booleans, one for each leaf of `params`.

    Args:
      mask: booleans with the structure of `params` or of a prefix of it, or a function from
        `params` to them; None for all.
      params: the parameters, and None at leaves that are none: there the mask may hold anything.

    Raises:
      ValueError: the mask does not fit `params`, holds something else than booleans, is traced by
        jit, or chooses no leaf.
    """
    chosen = chosen_leaves(mask, params, params)
    leaves = jax.tree.leaves(chosen)
    for leaf in leaves:
        if np.ndim(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.bool_):
            raise ValueError(f"mask must hold one boolean a leaf, got {leaf!r}.")
    if not is_known(leaves):
        raise ValueError(
            "mask must be known when jit traces, because the compiled program depends on it: close "
            "over it, or name it among the static arguments."
        )
    if not any(leaves):
        raise ValueError("mask must choose at least one leaf of params, and chooses none.")
    return chosen


def is_real_scalar(value: Any) -> bool:
    """Say whether a loss is one real number: an array of the shape () or a Python number."""
    if not (hasattr(value, "dtype") or isinstance(value, bool | int | float)):
        return False
    dtype = jnp.result_type(value)
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return np.shape(value) == () and any(jnp.issubdtype(dtype, kind) for kind in kinds)


def described(value: Any) -> str:
    """Return the shape and the dtype of an array, or the type of anything else."""
    if hasattr(value, "dtype"):
        return f"{value.dtype}{list(np.shape(value))}"
    return "None" if value is None else f"a {type(value).__name__}"


def is_zero(tree: PyTree) -> bool:
    """Say whether all numbers of `tree` are known to be zero."""
    return is_known(tree) and not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(tree))


def _is_real(x: Any) -> bool:
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.floating))
