"""Orbax checkpoints of a run: a pytree of arrays an epoch, typed keys included.

Several processes save and restore them together, each the arrays of its devices, in a folder that
all of them see. Which ones there are the first process says.
"""

import contextlib
import pathlib
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from sam_jax import pytree
from sam_jax.runs import disk
from sam_jax.runs.distributed import from_first

State = TypeVar("State")
_NONE = (
    "{workdir} holds no checkpoint yet. Train it first: python -m sam_jax.train --config=... "
    "--workdir={workdir}"
)


# Orbax numbers its operations in one place of the process, and managers in several threads take
# each other's numbers: one reads or writes at a time.
_LOCK = threading.RLock()
_writing: list[ocp.CheckpointManager] = []  # at most one, which may write in the background


@contextlib.contextmanager
def open_manager(workdir: pathlib.Path, keep: int | None) -> Iterator[ocp.CheckpointManager]:
    """Open the checkpoints in `workdir/checkpoints`, keeping the last `keep` of them, or all."""
    folder = (workdir / "checkpoints").resolve()
    with disk.writing(folder):
        manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            item_handlers=ocp.StandardCheckpointHandler(),  # without it no shapes are known
        )
    try:
        yield manager
    finally:
        with disk.writing(folder), manager, _LOCK:
            if manager in _writing:
                _finish_writing()


def exists(workdir: pathlib.Path, epoch: int) -> bool:
    """Say whether the checkpoint of an epoch is complete; orbax renames it only then."""
    return from_first((workdir / "checkpoints" / str(epoch)).is_dir)


def epochs_of(manager: ocp.CheckpointManager) -> list[int]:
    """Return the epochs whose checkpoints are there, ascending."""
    return from_first(lambda: sorted(map(int, manager.all_steps())))


def save(manager: ocp.CheckpointManager, epoch: int, state: Any) -> None:
    """Save the state at the end of an epoch; the write goes on in the background."""
    with _LOCK:
        if manager not in _writing:
            _finish_writing()
        _writing[:] = [manager]
        folder = pathlib.Path(manager.directory)
        needed = sum(x.nbytes for x in jax.tree.leaves(_keys_to_data(state))) + disk.MORE
        from_first(lambda: disk.check_room(folder, needed))
        with disk.writing(folder, needed):
            manager.save(epoch, args=ocp.args.StandardSave(_keys_to_data(state)))


def restore(
    manager: ocp.CheckpointManager,
    template: State,
    epoch: int,
    sharding: jax.sharding.Sharding | State | None = None,
) -> State:
    """Return the saved state of an epoch.

    Args:
      manager: from `open_manager`.
      template: a state, or its shapes, with the structure that was saved.
      epoch: one of `epochs_of(manager)`.
      sharding: where every array is to lie, or a tree of where each lies, in the structure of the
        state; None for the first device.

    Returns:
      The state, with typed keys where the template has them.
    """
    shapes = jax.eval_shape(_keys_to_data, template)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        jax.tree.broadcast(sharding, shapes),
    )
    with _LOCK:
        _finish_writing()
        data = manager.restore(epoch, args=ocp.args.StandardRestore(shapes))
    return jax.tree.map(
        lambda like, x: jax.random.wrap_key_data(x) if pytree.is_key(like) else x, template, data
    )


def read(
    workdir: pathlib.Path, epoch: int | None, sharding: jax.sharding.Sharding
) -> tuple[int, dict[str, Any]]:
    """Return a checkpoint without knowing its structure.

    Args:
      workdir: the folder of a run.
      epoch: the checkpoint to read; None for the last.
      sharding: where every array is to lie.

    Returns:
      The epoch, and the state as nested dicts and lists, with the integers of typed keys.

    Raises:
      FileNotFoundError: there is no checkpoint, or not that one.
    """
    if not from_first((workdir / "checkpoints").is_dir):
        raise FileNotFoundError(_NONE.format(workdir=workdir))
    with open_manager(workdir, keep=None) as manager:
        epoch = chosen_epoch(manager, workdir, epoch)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            manager.item_metadata(epoch).tree,
        )
        with _LOCK:
            _finish_writing()
            found: Any = manager.restore(epoch, args=ocp.args.StandardRestore(shapes))
        return epoch, found


def chosen_epoch(manager: ocp.CheckpointManager, workdir: pathlib.Path, epoch: int | None) -> int:
    """Return the epoch of a checkpoint that is there: the one asked for, or the last for None.

    Raises:
      FileNotFoundError: there is no checkpoint, or not that one.
    """
    saved = epochs_of(manager)
    if not saved:
        raise FileNotFoundError(_NONE.format(workdir=workdir))
    epoch = max(saved) if epoch is None else epoch
    if epoch not in saved:
        raise FileNotFoundError(
            f"{workdir} holds no checkpoint of epoch {epoch}; it has {saved}. "
            "checkpoint.keep says how many a run keeps."
        )
    return epoch


def restore_latest(
    manager: ocp.CheckpointManager, state: State, sharding: jax.sharding.Sharding
) -> tuple[State, int]:
    """Return the state of the last checkpoint and its epoch; without one `state` itself and 0."""
    saved = epochs_of(manager)
    if not saved:
        return state, 0
    return restore(manager, state, saved[-1], sharding), saved[-1]


def _finish_writing() -> None:
    """Wait for what is written in the background."""
    while _writing:
        _writing.pop().wait_until_finished()


def _keys_to_data(state: State) -> State:
    return jax.tree.map(lambda x: jax.random.key_data(x) if pytree.is_key(x) else x, state)
