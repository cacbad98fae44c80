"""Whether a state belongs to the method that is given it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sam_jax.typing import Params, PyTree

KEPT = 8  # kinds of parameters whose states are remembered; a training has one


def check_of(init: Callable[[Params], PyTree]) -> Callable[[PyTree, Params], None]:
    """Return the check that a state has the containers and the shapes of those that `init` makes.

    Many states hold a count of that name, so that another method's would be read without a word.
    Nothing is computed, and `init` is traced once for all parameters of the same shapes.

    Returns:
      (state, params) -> None. It raises a ValueError where the state is of another method, or of
      parameters of other shapes.
    """
    kept: dict[Any, PyTree] = {}

    def check_state(state: PyTree, params: Params) -> None:
        leaves, structure = jax.tree.flatten(params)
        kind = structure, *((np.shape(x), getattr(x, "dtype", type(x))) for x in leaves)
        if kind not in kept:
            if len(kept) == KEPT:
                kept.clear()
            kept[kind] = jax.eval_shape(init, params)
        difference = _difference(state, kept[kind])
        if difference:
            raise ValueError(
                "The state is not one that this transformation makes of these params: "
                f"{difference}. Make it with state = tx.init(params), of the same tx, and hand on "
                "the state that tx.update returns. In a chain every link has its own; restore a "
                "checkpoint with the method and the options that wrote it."
            )

    return check_state


def _difference(state: PyTree, wanted: PyTree) -> str:
    """Say where a state first differs, "" where it does not."""
    if type(state) is not type(wanted):
        return f"it wants {_kind(wanted)}, got {_kind(state)}"
    found, leaves = (jax.tree.leaves_with_path(tree) for tree in (state, wanted))
    given, expected = ([jax.tree_util.keystr(p) for p, _ in some] for some in (found, leaves))
    for place in expected:
        if place not in given:
            return f"it wants an array at {place}, and there is none"
    for place in given:
        if place not in expected:
            return f"it has an array at {place}, where none is wanted"
    if jax.tree.structure(state) != jax.tree.structure(wanted):
        return f"it wants {jax.tree.structure(wanted)}, got {jax.tree.structure(state)}"
    for place, (_, leaf), (_, shape) in zip(given, found, leaves, strict=True):
        if np.shape(leaf) != shape.shape:
            return f"at {place} it wants the shape {shape.shape}, got {np.shape(leaf)}"
    return ""


def _kind(state: Any) -> str:
    return "None" if state is None else f"a {type(state).__name__}"
