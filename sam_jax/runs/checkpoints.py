"""Orbax checkpoints of a run: a pytree of arrays an epoch, typed keys included."""

import pathlib
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from sam_jax import pytree

State = TypeVar("State")


def open_manager(workdir: pathlib.Path, keep: int) -> ocp.CheckpointManager:
    """Open the checkpoints in `workdir/checkpoints`, keeping the last `keep` of them."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    return ocp.CheckpointManager((workdir / "checkpoints").resolve(), options=options)


def exists(workdir: pathlib.Path, epoch: int) -> bool:
    """Say whether the checkpoint of an epoch is complete; orbax renames it only then."""
    return (workdir / "checkpoints" / str(epoch)).is_dir()


def save(manager: ocp.CheckpointManager, epoch: int, state: Any) -> None:
    """Save the state at the end of an epoch; the write goes on in the background."""
    manager.save(epoch, args=ocp.args.StandardSave(_keys_to_data(state)))


def restore(
    manager: ocp.CheckpointManager,
    template: State,
    epoch: int,
    sharding: jax.sharding.Sharding | None = None,
) -> State:
    """Return the saved state of an epoch.

    Args:
      manager: from `open_manager`.
      template: a state, or its shapes, with the structure that was saved.
      epoch: one of `manager.all_steps()`.
      sharding: where every array is to lie; None for the first device.

    Returns:
      The state, with typed keys where the template has them.
    """
    shapes = jax.eval_shape(_keys_to_data, template)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    data = manager.restore(epoch, args=ocp.args.StandardRestore(shapes))
    return jax.tree.map(
        lambda like, x: jax.random.wrap_key_data(x) if pytree.is_key(like) else x, template, data
    )


def restore_latest(
    manager: ocp.CheckpointManager, state: State, sharding: jax.sharding.Sharding
) -> tuple[State, int]:
    """Return the state of the last checkpoint and its epoch; without one `state` itself and 0."""
    epoch = manager.latest_step()
    if epoch is None:
        return state, 0
    return restore(manager, state, epoch, sharding), epoch


def _keys_to_data(state: State) -> State:
    return jax.tree.map(lambda x: jax.random.key_data(x) if pytree.is_key(x) else x, state)
