"""Damage to the files of a run, for the tests that say what notices it."""

import json
import pathlib
import shutil


def as_before(workdir: pathlib.Path) -> None:
    """Make checkpoints what they were before they had checksums."""
    for checkpoint in (workdir / "checkpoints").iterdir():
        shutil.rmtree(checkpoint / "about")
        path = checkpoint / "_CHECKPOINT_METADATA"
        listed = json.loads(path.read_text())
        del listed["item_handlers"]["about"]
        path.write_text(json.dumps(listed))


def flip(path: pathlib.Path, place: float = 0.5, bit: int = 3) -> None:
    """Flip a bit of a file, at this share of its length."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)


def data_file(checkpoint: pathlib.Path) -> pathlib.Path:
    """The file with the numbers of most arrays."""
    found = checkpoint.glob("default/**/d/*")
    return max(found, key=lambda path: (path.stat().st_size, path.parent.parent.name == "default"))
