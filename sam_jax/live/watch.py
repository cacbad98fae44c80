"""All runs below a folder, remembered from one look to the next: a look reads only what is new."""

import json
import os
import pathlib
import threading
import time
from typing import Any, NamedTuple

from sam_jax.live import folders
from sam_jax.live.folders import Found
from sam_jax.live.logs import Record, read_object, read_on, version_of
from sam_jax.live.summary import Files, summary
from sam_jax.runs import locks


class _Kept(NamedTuple):
    """A run, how its page's JSON reads, and when that last changed."""

    files: Files
    config_version: tuple[int, ...]
    nonfinite_version: tuple[int, ...]
    text: str
    changed: int


class Watch:
    """The runs below a folder. Threads may ask at the same time."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Take the folder; nothing is read yet."""
        self._folder = folder
        self._root = folder.resolve().name or str(folder)
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        # No two processes count alike: a page that outlived one gets everything from the next.
        self._count = time.time_ns() // 1000

    def answer(self, after: int = 0) -> str:
        """Look at the runs, and return those that changed, as JSON.

        Args:
          after: the `version` of the answer that the asker has; 0 for none.

        Returns:
          An object with `version`, `now` in seconds since 1970, `names` of all runs in their
          order, and `runs`, the summaries of those that changed.
        """
        with self._lock:
            self._look()
            if after > self._count:  # an answer of another process, or of nobody
                after = 0
            changed = [kept.text for kept in self._kept.values() if kept.changed > after]
            head = json.dumps(
                {"version": self._count, "now": time.time(), "names": list(self._kept)}
            )
            return f'{head[:-1]}, "runs": [{", ".join(changed)}]}}'

    def _look(self) -> None:
        before, self._kept = self._kept, {}
        for found in folders.find(self._folder):
            kept = self._read(found, before.get(found.name))
            if kept is not None:
                self._kept[found.name] = kept

    def _read(self, found: Found, before: _Kept | None) -> _Kept | None:
        """Return a run as it is now, `before` itself where nothing changed; None for no run."""
        config, config_version = _read_again(
            found.path / "config.json",
            before and (before.files.config, before.config_version),
        )
        nonfinite, nonfinite_version = (None, ())
        if "nonfinite.json" in found.files:
            nonfinite, nonfinite_version = _read_again(
                found.path / "nonfinite.json",
                before and (before.files.nonfinite, before.nonfinite_version),
            )
        if not found.is_run and not (config and "epochs" in config and "method" in config):
            return None  # of a study, not of one of its trainings
        old = before.files if before else Files(found, None)
        held = "training.lock" in found.files
        files = Files(
            found,
            config,
            read_on(found.path / "metrics.jsonl", old.metrics),
            read_on(found.path / "speed.jsonl", old.speed),
            locks.holder(found.path, "training") if held else "",
            nonfinite,
        )
        if before is not None and _same(files, before.files):
            return before
        self._count += 1
        text = json.dumps(summary(files, self._root), allow_nan=False)
        return _Kept(files, config_version, nonfinite_version, text, self._count)


def everything(folder: pathlib.Path) -> dict[str, Any]:
    """Return all runs below a folder, as `Watch.answer` gives them to a page that has none."""
    return json.loads(Watch(folder).answer())


def _read_again(
    path: pathlib.Path, before: tuple[Record | None, tuple[int, ...]] | None
) -> tuple[Record | None, tuple[int, ...]]:
    """Return the object of a file and the file's version; what was read before if it is the same.

    What is half written has another version once it is whole.
    """
    try:
        version = version_of(os.stat(path))
    except OSError:
        return None, ()
    if before is not None and before[1] == version:
        return before
    return read_object(path), version


def _same(files: Files, before: Files) -> bool:
    """Say whether two looks at a run found the same; logs that did not change are one object."""
    logs = ((files.metrics, before.metrics), (files.speed, before.speed))
    return (
        all(log is old for log, old in logs)
        and files.config is before.config
        and files.nonfinite is before.nonfinite
        and (files.holder, files.found) == (before.holder, before.found)
    )
