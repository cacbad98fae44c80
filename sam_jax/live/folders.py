"""The runs below a folder, by the names of the files that lie there."""

import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

# What a run keeps in folders of its own holds no further run.
_OF_RUNS = frozenset(
    ("checkpoints", "interrupted", "landscapes", "tensorboard", "wandb", "mlflow", "report")
)
_MARKS = ("metrics.jsonl", "training.lock", "interrupted", "nonfinite.json")
_SEED = re.compile(r"(^|[ ._-])seed[ ._-]?(\d+)$")


class Found(NamedTuple):
    """A folder with a config.json."""

    path: pathlib.Path
    name: str  # its path below the folder that was looked through; "." for that one itself
    files: frozenset[str]  # the names of what lies in it

    @property
    def is_run(self) -> bool:
        """Whether a training has left more than its config there."""
        return any(mark in self.files for mark in _MARKS)


def find(folder: pathlib.Path) -> list[Found]:
    """Return the folders with a config.json, this one included, in the order of their names.

    Links to folders are not followed, and what cannot be read is left out.
    """
    return sorted(_below(folder, ""), key=lambda found: _natural(found.name))


def arm_and_seed(name: str, root: str) -> tuple[str, int | None]:
    """Return the arm of a run and its seed, by its path: `seed_N` at the end is one of several.

    Args:
      name: of the run, as in `Found`.
      root: the name of the folder that was looked through, for runs that lie right in it.

    >>> arm_and_seed("models/sam_0.1/seed_2", "study"), arm_and_seed("sam-seed3", "runs")
    (('sam_0.1', 2), ('sam', 3))
    >>> arm_and_seed("seed_0", "asam"), arm_and_seed("first/try", "runs"), arm_and_seed(".", "one")
    (('asam', 0), ('first/try', None), ('one', None))
    """
    match = _SEED.search(name.rsplit("/", 1)[-1])
    seed = int(match[2]) if match else None
    arm = name[: len(name) - len(match[0])].rstrip("/") if match else name
    if arm in ("", "."):
        return root, seed
    return arm.removeprefix("models/"), seed


def _below(folder: pathlib.Path, name: str) -> Iterator[Found]:
    try:
        with os.scandir(folder) as entries:
            files = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:
        return
    has_config = "config.json" in files
    if has_config:
        yield Found(folder, name or ".", frozenset(files))
    for child, is_folder in files.items():
        if is_folder and not child.startswith(".") and not (has_config and child in _OF_RUNS):
            yield from _below(folder / child, f"{name}/{child}" if name else child)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts seed_2 before seed_10.

    >>> sorted(["a/seed_10", "a/seed_2", "."], key=_natural)
    ['.', 'a/seed_2', 'a/seed_10']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
