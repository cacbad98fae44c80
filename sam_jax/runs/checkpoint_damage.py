"""What a checkpoint says about itself, and whether it is as it was saved.

Beside its arrays a checkpoint has `about/about.json`: the checksum of every array, the config of
its run, and the checksums of the lines that the log had by then. Checkpoints from before have none,
and are only tried whether they can be read.
"""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
import tensorstore
from absl import logging

from sam_jax.mistakes import UserMistake, first_of
from sam_jax.runs import checksums
from sam_jax.runs.distributed import from_first
from sam_jax.typing import PyTree

ARRAYS, ABOUT = "default", "about"  # the items of a checkpoint; the first has orbax's own name
FILE = "about.json"
# Where the arrays themselves are, and when they were written.
_STORE = ("d", "ocdbt.process_", "manifest.ocdbt", "commit_success.txt")
_READABLE: set[tuple[bytes, ...]] = set()  # what says which arrays there are, as read before
_MOST = 256  # of 20 KB each
_ALONE = ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="damage"
)


class DamagedCheckpoint(UserMistake):
    """A checkpoint that cannot be read, or that is not what was saved."""

    def __init__(self, folder: pathlib.Path, what: str) -> None:
        """Say what is wrong with the checkpoint in a folder."""
        others = [str(epoch) for epoch in epochs_in(folder.parent) if str(epoch) != folder.name]
        super().__init__(
            f"The checkpoint {folder} is damaged: {what}. The command that trained the run goes on "
            "from the newest whole checkpoint, and keeps this one aside; other checkpoints here: "
            f"{', '.join(others) or 'none'}."
        )
        self.what = what


class About(NamedTuple):
    """What a checkpoint says about itself."""

    arrays: dict[str, str]  # name -> type, shape and checksum
    config: dict[str, Any] | None  # of its run; None for a run without one
    log: list[str] | None  # checksums of the lines of metrics.jsonl; None for a run without one


def sealed(about: About) -> dict[str, Any]:
    """Return what is written, with a checksum of its own."""
    content = about._asdict()
    return {"about": content, "checksum": _seal(content)}


def about_of(folder: pathlib.Path) -> About | None:
    """Return what a checkpoint says about itself, in all processes; None for one from before.

    Raises:
      DamagedCheckpoint: it cannot be read.
    """

    def read() -> tuple[Any, str]:
        try:
            return _read_about(folder), ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return None, f"{ABOUT}/{FILE} {error}"

    content, what = from_first(read)
    if what:
        raise DamagedCheckpoint(folder, what)
    return None if content is None else About(**content)


def find(folder: pathlib.Path) -> str:
    """Return what is damaged in a checkpoint, read on the host alone; nothing where it is whole.

    The first process reads it for all of them, array by array.
    """

    def read() -> str:
        try:
            about = about_of(folder)
            if about is None and not (folder / ARRAYS / "manifest.ocdbt").exists():
                return ""  # of a layout that this reader does not know
            what = _differing_arrays(folder / ARRAYS, about)
            # What says which arrays there are is read by the store itself.
            return what or _unreadable_tree(folder / ARRAYS)
        except DamagedCheckpoint as error:
            return error.what
        except PermissionError:
            raise
        except Exception as error:  # whatever the store makes of damaged files
            return cannot_be_read(error)

    return from_first(read)


def check(folder: pathlib.Path) -> None:
    """Raise `DamagedCheckpoint`, in all processes, unless a checkpoint is whole."""
    what = find(folder)
    if what:
        raise DamagedCheckpoint(folder, what)


def differing(about: About, found: dict[str, str]) -> str:
    """Return in words which arrays differ from those that were saved; nothing where none does."""
    names = sorted(
        name
        for name in about.arrays.keys() | found.keys()
        if about.arrays.get(name) != found.get(name)
    )
    return f"{first_of(names)} differ from what was saved" if names else ""


def other_shapes(about: About, template: PyTree) -> str:
    """Return in words which arrays have other names, types or shapes than a template."""
    wanted = {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype} {list(x.shape)}"
        for path, x in jax.tree_util.tree_flatten_with_path(template)[0]
    }
    saved = {name: text.rpartition(" ")[0] for name, text in about.arrays.items()}
    names = sorted(n for n in wanted.keys() | saved.keys() if wanted.get(n) != saved.get(n))
    texts = [f"{n} ({saved.get(n, 'none')}, not {wanted.get(n, 'there')})" for n in names]
    return first_of(texts)


def cannot_be_read(error: Exception) -> str:
    """Return in words that the store failed."""
    line = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return f"it cannot be read ({line})"


def set_aside(folder: pathlib.Path) -> pathlib.Path:
    """Rename the folder of a damaged checkpoint, EPOCH to damaged_EPOCH; return the new name."""

    def move() -> str:
        for number in range(1, 1000):
            suffix = f"_{number}" if number > 1 else ""
            place = folder.with_name(f"damaged_{folder.name}{suffix}")
            if not place.exists():
                folder.rename(place)
                return str(place)
        raise ValueError(f"{folder.parent} is full of damaged checkpoints; delete some of them.")

    return pathlib.Path(from_first(move))


def epochs_in(checkpoints: pathlib.Path) -> list[int]:
    """Return the epochs of the complete checkpoints in a folder, ascending."""
    if not checkpoints.is_dir():
        return []
    names = (path.name for path in checkpoints.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def warn(epoch: int, error: DamagedCheckpoint, place: pathlib.Path, instead: int) -> None:
    """Say that a run goes on from another checkpoint."""
    logging.warning(
        "The checkpoint of epoch %d is damaged: %s. It is kept in %s, and the run goes on from %s.",
        epoch,
        error.what,
        place,
        f"the checkpoint of epoch {instead}" if instead else "its start: no whole one is left",
    )


def _read_about(folder: pathlib.Path) -> dict[str, Any] | None:
    path = folder / ABOUT / FILE
    if not path.exists():
        # Orbax lists the items that it wrote.
        listed = folder / "_CHECKPOINT_METADATA"
        if path.parent.exists() or (listed.exists() and b'"about"' in listed.read_bytes()):
            raise ValueError("is missing")
        return None
    found = json.loads(path.read_bytes())
    content = found["about"]
    if found["checksum"] != _seal(content):
        raise ValueError("differs from its own checksum")
    return content


def _seal(content: dict[str, Any]) -> str:
    return checksums.of_bytes(json.dumps(content, sort_keys=True).encode())


def _differing_arrays(folder: pathlib.Path, about: About | None) -> str:
    """Read all arrays, and return in words which are not what was saved.

    By the store below orbax, which answers in turn: orbax leaves readers behind at an error.
    """
    base = {"driver": "ocdbt", "base": f"{folder.resolve().as_uri()}/"}
    keys = [key.decode() for key in tensorstore.KvStore.open(base).result().list().result()]
    found = {}
    for name in (key.removesuffix("/.zarray") for key in keys if key.endswith("/.zarray")):
        place = {"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}}
        array = tensorstore.open(place, open=True, read=True).result().read().result()
        if about is not None:
            found[name] = checksums.of_tree(array)[""]
    if about is None:
        return ""
    # Orbax joins the names of a path by dots.
    dotted = {name.replace("/", "."): text for name, text in about.arrays.items()}
    return differing(about._replace(arrays=dotted), found)


def _unreadable_tree(folder: pathlib.Path) -> str:
    """Say why orbax cannot read which arrays there are; nothing where it can.

    The runs of a study have the same words there. They are read once: the store below orbax loses
    3 KB for each array of each reading.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    words = tuple(
        path.read_bytes()
        for path in files
        if not path.relative_to(folder).parts[0].startswith(_STORE)
    )
    if words in _READABLE:
        return ""
    handler: Any = ocp.PyTreeCheckpointHandler(multiprocessing_options=_ALONE)
    try:
        handler.metadata(folder.resolve())
    except Exception as error:  # as above
        return cannot_be_read(error)
    if len(_READABLE) >= _MOST:
        _READABLE.clear()
    _READABLE.add(words)
    return ""
