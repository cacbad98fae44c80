"""The boundary of every instrument: the part of `params` that it measures, and the rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sam_jax.metrics.checks import check_mask
from sam_jax.pytree import is_parameter, merge, partition, widen
from sam_jax.typing import Batch, LossesFn, Mask, Params, PyTree


def loss_of_parameters(
    loss_fn: LossesFn, params: Params, mask: Mask = None
) -> tuple[LossesFn, Params]:
    """Return the loss as a function of the chosen parameters alone, and these.

    The parameters are in float32 or wider, because narrower types round a small step away. All
    other leaves, such as integers, keys and leaves outside the mask, reach `loss_fn` as they are.

    Args:
      loss_fn: `loss_fn(params)` or `loss_fn(params, batch)`, whatever it returns.
      params: arrays and numbers.
      mask: which leaves are chosen, see `check_mask`; None for all parameters.

    Raises:
      ValueError: as `chosen_parameters`.

    >>> params = {"w": 2.0, "steps": 3}
    >>> loss_fn, parameters = loss_of_parameters(lambda p: p["w"] ** p["steps"], params)
    >>> parameters["steps"] is None, loss_fn({"w": 4.0, "steps": None})
    (True, 64.0)
    """
    parameters = chosen_parameters(params, mask)
    others = jax.tree.map(lambda x, chosen: x if chosen is None else None, params, parameters)

    def of_parameters(parameters: Params, *batch: Batch) -> Any:
        return loss_fn(merge(parameters, others), *batch)

    return of_parameters, parameters


def chosen_parameters(params: Params, mask: Mask = None, *, name: str = "params") -> Params:
    """Return the chosen parameters as arrays in float32 or wider, and None at all other leaves.

    Raises:
      ValueError: there is none, or a complex one, or the mask does not fit.
    """
    parameters, _ = partition(params)
    if not jax.tree.leaves(parameters):
        kinds = sorted({_kind(leaf) for leaf in jax.tree.leaves(params)})
        raise ValueError(
            f"{name} must hold at least one array or number of floating point, got "
            f"{', '.join(kinds) if kinds else 'an empty pytree'}."
        )
    if mask is not None:
        parameters = jax.tree.map(
            lambda keep, w: w if keep else None, check_mask(mask, parameters), parameters
        )
    check_real(parameters)
    return jax.tree.map(widen, parameters)


def check_real(parameters: Params) -> None:
    """Raise a ValueError that names the first complex leaf, if there is one."""
    for path, leaf in jax.tree.leaves_with_path(parameters):
        if is_parameter(leaf) and jnp.iscomplexobj(leaf):
            raise ValueError(
                f"Complex parameters are not measured: split {_place(path)} in two real arrays, "
                "or leave it out by mask where the instrument takes one."
            )


def map_parameters(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Return `function(leaf, *leaves of rest)` at parameters, and the other leaves as they are.

    >>> map_parameters(lambda w, v: w + v, {"w": 1.0, "steps": 3}, {"w": 2.0, "steps": None})
    {'steps': 3, 'w': 3.0}
    """
    return jax.tree.map(
        lambda x, *others: function(x, *others) if is_parameter(x) else x, tree, *rest
    )


def _kind(leaf: Any) -> str:
    return str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__


def _place(path: tuple) -> str:
    return jax.tree_util.keystr(path) or "the only leaf"
