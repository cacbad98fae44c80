"""The common part of the perturbations: states, the mask, schedules of rho."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import pytree, threefry
from sam_jax.known import known
from sam_jax.typing import Key, Mask, Params, PyTree, Scalar, ScalarOrSchedule


class ScheduleState(NamedTuple):
    """The number of updates so far, at which a schedule of rho is read."""

    count: jax.Array


class RandomState(NamedTuple):
    """The number of updates so far and the key that all draws derive from."""

    count: jax.Array
    key: Key


def init_schedule(params: Params) -> ScheduleState:
    """Return the state before the first update."""
    del params
    return ScheduleState(count=jnp.zeros((), jnp.int32))


def advance(state: Any) -> Any:
    """Return the state with its count one higher."""
    return state._replace(count=incremented(state.count))


def incremented(count: jax.Array) -> jax.Array:
    """Return a count one higher; the largest one stays."""
    return jnp.asarray(optax.safe_increment(count))


def transformation(
    init: Callable[..., Any], update: Callable[..., tuple[PyTree, Any]]
) -> optax.GradientTransformationExtraArgs:
    """Return an optax transformation whose state has a type of its own."""
    return optax.GradientTransformationExtraArgs(init, update)


def value_at(schedule: ScalarOrSchedule, count: jax.Array) -> Scalar:
    """Return the value of a schedule at an update, or the number that it is."""
    if not callable(schedule):
        return schedule
    value = schedule(count)
    if np.shape(value) != ():
        raise ValueError(
            f"A schedule must return one number, got an array of the shape {np.shape(value)}."
        )
    return value


def select(tree: PyTree, params: Params, mask: Mask) -> PyTree:
    """Return None at the leaves that the mask does not choose.

    An array of booleans chooses among the entries of a leaf; those that it leaves out are zero.

    Raises:
      ValueError: a chosen leaf is complex.
    """
    selected = jax.tree.map(_kept, pytree.chosen_leaves(mask, params, tree), tree)
    for path, leaf in jax.tree.leaves_with_path(selected):
        if jnp.iscomplexobj(leaf):
            place = jax.tree_util.keystr(path) or "them"
            raise ValueError(
                f"complex parameters are not perturbed: split {place} in two real arrays, or leave "
                "it out by mask."
            )
    return selected


def _kept(keep: Any, x: jax.Array) -> jax.Array | None:
    decision = known(keep)
    if decision is not None and decision.ndim == 0:
        return x if decision else None
    return jnp.where(keep, x, jnp.zeros_like(x))


def last_name(path: tuple) -> str:
    """Return the name of a leaf: the last dictionary key or attribute on its path."""
    return jax.tree_util.keystr(without_value(path)[-1:], simple=True)


def without_value(path: tuple) -> tuple:
    """Return the path of a leaf, without the attribute in which Flax NNX keeps it."""
    return path[:-1] if path[-1:] == (jax.tree_util.GetAttrKey("value"),) else path


def check_key(key: Any) -> None:
    """Raise unless `key` is one typed key."""
    if not pytree.is_key(key) or key.ndim:
        raise TypeError(f"key must be one typed key such as jax.random.key(0), got {key!r}.")


def init_random(key: Key) -> Callable[[Params], RandomState]:
    """Return the init of a perturbation that draws from `key`."""
    check_key(key)

    def init(params: Params) -> RandomState:
        del params
        # A copy, because a step that donates its state would delete the caller's key with it.
        return RandomState(count=jnp.zeros((), jnp.int32), key=jnp.copy(key))

    return init


def draw_key(state: RandomState, sub_batch: Scalar) -> Key:
    """Return the key of one update and one sub-batch of it."""
    return threefry.fold_in(threefry.fold_in(state.key, state.count), sub_batch)
