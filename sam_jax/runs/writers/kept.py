"""What writers of services share: the id that a run keeps, its name, and an end in seconds."""

import contextlib
import pathlib
import re
import threading
from collections.abc import Callable, Iterator

from absl import logging

from sam_jax.mistakes import UserMistake
from sam_jax.runs import disk

FILE = "run_id.txt"
SECONDS = 3.0  # at most, until a writer is closed: a signal gives a command about ten for all


def run_id(folder: pathlib.Path) -> str | None:
    """Return the id that a folder keeps, None where it has none or no whole one."""
    path = folder / FILE
    text = path.read_text(errors="replace").strip() if path.exists() else ""
    return text if re.fullmatch(r"[a-z0-9]{8,64}", text) else None


def keep_run_id(folder: pathlib.Path, found: str) -> None:
    """Keep an id in a folder."""
    temporary = folder / f"{FILE}.tmp"
    with disk.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(f"{found}\n")
        temporary.replace(folder / FILE)


def run_name(workdir: pathlib.Path) -> str:
    """Return the name of a run, that of its folder."""
    return workdir.resolve().name


@contextlib.contextmanager
def beginning(who: str, where: str) -> Iterator[None]:
    """Turn what a service says against a run in this block into a UserMistake.

    Args:
      who: the service.
      where: what it writes to, or how.
    """
    try:
        yield
    except disk.NoRoom:
        raise
    except Exception as error:  # of whatever service
        raise UserMistake(
            f"{who} cannot begin the run ({where}): {error} Change its variables in the "
            "environment, or leave it out of config.writers; the same command goes on."
        ) from error


def end(who: str, function: Callable[[], object], seconds: float = SECONDS) -> None:
    """Call what ends a writer, and wait for it no longer than some seconds.

    A service that does not answer would keep a training from its end.

    Args:
      who: the service, for the warning.
      function: what to call.
      seconds: how long to wait.
    """

    def call() -> None:
        try:
            function()
        except Exception as error:  # of whatever service: the numbers are in metrics.jsonl
            logging.warning("%s could not be closed: %s", who, error)

    thread = threading.Thread(target=call, name=f"end of {who}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        logging.warning(
            "%s is not done after %.3g seconds; the training ends without it.", who, seconds
        )
