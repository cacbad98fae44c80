"""Checks of what a caller hands to an instrument, made once, before anything is computed."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.pytree import chosen_leaves, is_key
from sam_jax.typing import Batch, Mask, Params, PyTree, Scalar


def check_count(name: str, value: int) -> None:
    """Raise a ValueError unless `value` is an integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def check_positive(name: str, value: Scalar, *, or_zero: bool = False) -> None:
    """Raise a ValueError unless `value` is one finite number above (or at) zero.

    A value that is traced by jit is not known yet and passes.
    """
    if not is_known(value):
        return
    wanted = "zero or a positive number" if or_zero else "a positive number"
    known = np.asarray(value)
    real = any(jnp.issubdtype(known.dtype, kind) for kind in (jnp.integer, jnp.floating))
    if not real or known.ndim != 0 or not np.isfinite(known) or known < 0 or not (known or or_zero):
        raise ValueError(f"{name} must be {wanted}, got {value!r}.")


def check_key(key: Any) -> None:
    """Raise a ValueError unless `key` is one typed key."""
    if not is_key(key) or key.ndim != 0:
        raise ValueError(f"key must be one typed key, such as jax.random.key(0), got {key!r}.")


def check_distribution(distribution: str, known: tuple[str, ...]) -> None:
    """Raise a ValueError that lists the known laws unless `distribution` is one of them."""
    if distribution not in known:
        raise ValueError(f"distribution must be one of {list(known)}, got {distribution!r}.")


def check_vector(name: str, values: jax.Array) -> jax.Array:
    """Return `values` as an array, at least one number and all of them finite.

    Raises:
      ValueError: they are no vector, or known not to be finite.
    """
    values = jnp.asarray(values)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must have the shape [k], k >= 1, got {values.shape}.")
    check_finite(name, values)
    return values


def check_finite(name: str, tree: PyTree) -> None:
    """Raise a ValueError that names a leaf where `tree` is known to be infinite or NaN."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if is_known(leaf) and not np.isfinite(np.asarray(leaf)).all():
            place = f" at {jax.tree_util.keystr(path)}" if path else ""
            raise ValueError(
                f"{name} must be finite, got infinity or NaN{place}. Look for an overflow, or "
                "for a run that diverged."
            )


def check_loss(losses: jax.Array) -> None:
    """Raise a ValueError where the loss at the parameters is known and nowhere finite.

    For instruments that subtract it, because all they could return is NaN. A loss that is traced by
    jit is not known yet: there NaN stays NaN.

    Args:
      losses: L(w), a scalar; or those of several batches, of which one finite one is enough.
    """
    if is_known(losses) and not np.isfinite(np.asarray(losses)).any():
        raise ValueError(
            "The loss at params must be finite, because the rises above it are measured; loss_fn "
            f"returned {np.ravel(losses)[0]}. Look for a run that diverged, or for examples that "
            "are not finite."
        )


def check_products(values: jax.Array) -> None:
    """Raise a ValueError where what products with the Hessian gave is known and nowhere finite.

    Where they are traced by jit they are not known yet: there NaN stays NaN.
    """
    if is_known(values) and not np.isfinite(np.asarray(values)).any():
        raise ValueError(
            "The loss at params and its derivatives must be finite, but the products with its "
            f"Hessian give {np.ravel(values)[0]}. Look for a run that diverged, for examples that "
            "are not finite, or for a derivative that is not, such as that of a square root at 0."
        )


def check_not_empty(name: str, tree: PyTree) -> None:
    """Raise a ValueError where `tree` has no leaf."""
    if not jax.tree.leaves(tree):
        raise ValueError(f"{name} must hold at least one array, got an empty pytree.")


def check_batches(batches: Batch) -> None:
    """Raise a ValueError unless all leaves share two leading axes [n, m], neither empty."""
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


def check_direction(name: str, direction: PyTree, params: Params) -> None:
    """Raise a ValueError unless `direction` has the structure and the shapes of `params`."""
    _check_structure(name, direction, params)
    for path, got, wanted in _shapes(direction, params):
        if got != wanted:
            raise ValueError(
                f"{name} must have the shapes of params: at {path} expected {wanted}, got {got}."
            )


def check_moves(name: str, direction: PyTree, params: Params) -> None:
    """Raise a ValueError unless `direction` fits `params` and leads somewhere.

    A direction that is traced by jit is not known yet and passes as finite and not zero.
    """
    check_direction(name, direction, params)
    check_finite(name, direction)
    if is_zero(direction):
        raise ValueError(f"{name} is zero, so all points along it are one. Give another.")


def check_directions(directions: PyTree, params: Params) -> int:
    """Return the number of directions, stacked along the leading axis of every leaf.

    Raises:
      ValueError: the structure or a shape does not fit `params`, or there is no direction.
    """
    _check_structure("directions", directions, params)
    counts = set()
    for path, got, wanted in _shapes(directions, params):
        if len(got) != len(wanted) + 1 or got[1:] != wanted:
            raise ValueError(
                "directions must have the shapes of params after one leading axis: "
                f"at {path} expected (number of directions, *{wanted}), got {got}."
            )
        counts.add(got[0])
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "Every leaf of directions must hold the same number of directions, at least one; "
            f"got {sorted(counts)}."
        )
    return counts.pop()


def check_mask(mask: Mask, params: Params) -> PyTree:
    """Return the mask's booleans, one for each leaf of `params`.

    Raises:
      ValueError: the mask does not fit `params`, holds something else than booleans, or chooses
        no leaf.
    """
    chosen = chosen_leaves(mask, params, params)
    leaves = jax.tree.leaves(chosen)
    for leaf in leaves:
        if jnp.ndim(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.bool_):
            raise ValueError(f"mask must hold one boolean a leaf, got {leaf!r}.")
    if is_known(leaves) and not any(leaves):
        raise ValueError("mask must choose at least one leaf of params, and chooses none.")
    return chosen


def is_known(tree: PyTree) -> bool:
    """Say whether no leaf of `tree` is traced by jit, so that all numbers can be looked at."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def is_zero(tree: PyTree) -> bool:
    """Say whether all numbers of `tree` are known to be zero."""
    return is_known(tree) and not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(tree))


def _check_structure(name: str, tree: PyTree, params: Params) -> None:
    got, wanted = jax.tree.structure(tree), jax.tree.structure(params)
    if got != wanted:
        raise ValueError(
            f"{name} must have the same pytree structure as params, {wanted}; got {got}."
        )


def _shapes(tree: PyTree, params: Params) -> list[tuple[str, tuple, tuple]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        (jax.tree_util.keystr(path) or "the only leaf", jnp.shape(leaf), jnp.shape(weights))
        for (path, leaf), weights in zip(leaves, jax.tree.leaves(params), strict=True)
    ]
