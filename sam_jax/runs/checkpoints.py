"""Orbax checkpoints of a run: a pytree of arrays an epoch, typed keys included.

Several processes save and restore them together, each the arrays of its devices, in a folder that
all of them see. Which ones there are the first process says.

With its arrays a checkpoint keeps their checksums and the config of its run, and is held to both
when it is read: see `checkpoint_damage`.
"""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from sam_jax import pytree
from sam_jax.mistakes import UserMistake
from sam_jax.runs import checkpoint_damage, checksums, disk, records, workdirs
from sam_jax.runs.checkpoint_damage import ABOUT, ARRAYS, FILE, About, DamagedCheckpoint
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
            item_handlers={
                ARRAYS: ocp.StandardCheckpointHandler(),  # without it no shapes are known
                ABOUT: ocp.JsonCheckpointHandler(FILE),
            },
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


def save(
    manager: ocp.CheckpointManager, epoch: int, state: Any, run: pathlib.Path | None = None
) -> None:
    """Save the state at the end of an epoch; the write goes on in the background.

    Args:
      manager: from `open_manager`.
      epoch: the name of the checkpoint.
      state: a pytree of arrays.
      run: the folder with the config and the log that the state belongs to; None for the one that
        the checkpoints lie in.
    """
    with _LOCK:
        if manager not in _writing:
            _finish_writing()
        _writing[:] = [manager]
        data = _keys_to_data(state)
        run = run or _workdir(manager)
        from_first(lambda: records.sync(run / "metrics.jsonl"))  # the checkpoint demands its lines
        about = About(checksums.of_tree(data), *workdirs.config_and_log(run))
        items = {
            ARRAYS: ocp.args.StandardSave(data),
            ABOUT: ocp.args.JsonSave(checkpoint_damage.sealed(about)),
        }
        folder = pathlib.Path(manager.directory)
        needed = sum(x.nbytes for x in jax.tree.leaves(data)) + disk.MORE
        from_first(lambda: disk.check_room(folder, needed))
        with disk.writing(folder, needed):
            if not manager.save(epoch, args=ocp.args.Composite(**items)):
                raise RuntimeError(f"{folder} holds a checkpoint of {epoch} or later already.")


def restore(
    manager: ocp.CheckpointManager,
    template: State,
    epoch: int,
    sharding: jax.sharding.Sharding | State | None = None,
    run: pathlib.Path | None = None,
) -> State:
    """Return the saved state of an epoch.

    Args:
      manager: from `open_manager`.
      template: a state, or its shapes, with the structure that was saved.
      epoch: one of `epochs_of(manager)`.
      sharding: where every array is to lie, or a tree of where each lies, in the structure of the
        state; None for the first device.
      run: as in `save`.

    Returns:
      The state, with typed keys where the template has them.

    Raises:
      DamagedCheckpoint: it cannot be read, or is not what was saved.
      ValueError: it is of a run with another config than the folder has.
    """
    folder = _folder(_workdir(manager), epoch)
    _check_origin(run or _workdir(manager), folder, tell=False)
    shapes = jax.eval_shape(_keys_to_data, template)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        jax.tree.broadcast(sharding, shapes),
    )
    data = _restore(manager, epoch, shapes)
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
      DamagedCheckpoint: it cannot be read, or is not what was saved.
    """
    if not from_first((workdir / "checkpoints").is_dir):
        raise FileNotFoundError(_NONE.format(workdir=workdir))
    with open_manager(workdir, keep=None) as manager:
        epoch = chosen_epoch(manager, workdir, epoch)
        _check_files(_folder(workdir, epoch))
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            manager.item_metadata(epoch)[ARRAYS].tree,
        )
        return epoch, _restore(manager, epoch, shapes)


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


def restore_newest(
    manager: ocp.CheckpointManager, restore_epoch: Callable[[int], State]
) -> tuple[State | None, int]:
    """Return the state of the newest whole checkpoint and its epoch; None and 0 without one.

    Newer ones that are damaged are renamed, and a warning says so.

    Args:
      manager: from `open_manager`.
      restore_epoch: reads the checkpoint of an epoch by `restore`.
    """
    damaged: dict[int, DamagedCheckpoint] = {}
    state, newest = None, 0
    for epoch in reversed(epochs_of(manager)):
        try:
            state, newest = restore_epoch(epoch), epoch
            break
        except DamagedCheckpoint as error:
            damaged[epoch] = error
    for epoch, error in damaged.items():
        place = checkpoint_damage.set_aside(_folder(_workdir(manager), epoch))
        checkpoint_damage.warn(epoch, error, place, instead=newest)
    if damaged:
        manager.reload()
    return state, newest


def restore_latest(
    manager: ocp.CheckpointManager, state: State, sharding: jax.sharding.Sharding
) -> tuple[State, int]:
    """Return what `restore_newest` does; `state` itself and 0 where no whole checkpoint is left."""
    found, epoch = restore_newest(manager, lambda epoch: restore(manager, state, epoch, sharding))
    return (state, 0) if found is None else (found, epoch)


def is_whole(workdir: pathlib.Path, epoch: int) -> bool:
    """Say whether a checkpoint is there, and as it was saved."""
    if not exists(workdir, epoch):
        return False
    try:
        _check_files(_folder(workdir, epoch))
    except DamagedCheckpoint:
        return False
    return True


def check_config(workdir: pathlib.Path, epoch: int, tell: bool = True) -> None:
    """Raise an error unless a checkpoint is of a run with the config in its folder.

    What changes no weight may differ, and is told in a warning. Checkpoints from before say
    nothing.

    Raises:
      DamagedCheckpoint: what the checkpoint says about itself cannot be read.
      ValueError: the config is another; the message names the fields.
    """
    _check_origin(workdir, _folder(workdir, epoch), tell)


def log_of(manager: ocp.CheckpointManager, epoch: int) -> list[str] | None:
    """Return the checksums of the lines that the log had when a checkpoint was saved.

    Args:
      manager: from `open_manager`.
      epoch: one of `epochs_of(manager)`.

    Returns:
      They, or None where the checkpoint says nothing, or there was no log.

    Raises:
      DamagedCheckpoint: what the checkpoint says about itself cannot be read.
    """
    about = checkpoint_damage.about_of(_folder(_workdir(manager), epoch))
    return None if about is None else about.log


def _check_origin(run: pathlib.Path, folder: pathlib.Path, tell: bool) -> None:
    """Hold the checkpoint in a folder to the config of a run, as `check_config` does."""
    about = checkpoint_damage.about_of(folder)
    if about is not None and about.config is not None:
        workdirs.refuse_other_origin(run, about.config, f"The checkpoint {folder}", tell)


def _restore(manager: ocp.CheckpointManager, epoch: int, shapes: State) -> State:
    """Return the arrays of a checkpoint, held to their checksums."""
    folder = _folder(_workdir(manager), epoch)
    about = checkpoint_damage.about_of(folder)
    # First on the host: where orbax fails it leaves readers behind, and of several processes one
    # that cannot read its part leaves the others waiting.
    _check_files(folder)
    others = "" if about is None else checkpoint_damage.other_shapes(about, shapes)
    if others:
        raise UserMistake(
            f"The checkpoint {folder} is of another model, method or optimiser than this config's: "
            f"{others}."
        )
    try:
        with _LOCK:
            _finish_writing()
            items = {ARRAYS: ocp.args.StandardRestore(shapes)}
            data = manager.restore(epoch, args=ocp.args.Composite(**items))[ARRAYS]
    except Exception as error:
        if about is None:
            raise
        raise DamagedCheckpoint(folder, checkpoint_damage.cannot_be_read(error)) from error
    what = "" if about is None else checkpoint_damage.differing(about, checksums.of_tree(data))
    if what:
        raise DamagedCheckpoint(folder, what)
    return data


def _check_files(folder: pathlib.Path) -> None:
    """Raise `DamagedCheckpoint` unless a checkpoint is as it was saved."""
    with _LOCK:
        _finish_writing()
        checkpoint_damage.check(folder)


def _workdir(manager: ocp.CheckpointManager) -> pathlib.Path:
    return pathlib.Path(manager.directory).parent


def _folder(workdir: pathlib.Path, epoch: int) -> pathlib.Path:
    return workdir / "checkpoints" / str(epoch)


def _finish_writing() -> None:
    """Wait for what is written in the background."""
    while _writing:
        _writing.pop().wait_until_finished()


def _keys_to_data(state: State) -> State:
    return jax.tree.map(lambda x: jax.random.key_data(x) if pytree.is_key(x) else x, state)
