"""Watch runs as they train: python -m sam_jax.dashboard DIR.

Serves one page on this machine with every run below DIR, in a table and as curves over epochs. The
page renews itself, and finds new runs. Nothing is written, and runs are not disturbed.

    python -m sam_jax.dashboard runs --port=6007
    python -m sam_jax.dashboard runs/digits --once=runs.html

The second line writes the page as it is now into one file, which needs no server. From another
machine, `ssh -L 6007:localhost:6007 HOST` brings the first one to http://localhost:6007/.
"""

import pathlib
import signal
from collections.abc import Sequence
from types import FrameType

from absl import app, flags

from sam_jax.live.page import page
from sam_jax.live.server import Server
from sam_jax.live.watch import everything
from sam_jax.mistakes import UserMistake
from sam_jax.runs import signals
from sam_jax.runs.flags import run_command

_PORT = flags.DEFINE_integer(
    "port", 6007, "The port of the page; 0 for any that is free.", lower_bound=0, upper_bound=65535
)
_HOST = flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "The address to serve at. This one is reached from this machine alone; 0.0.0.0 shows the runs "
    "to everyone who reaches this machine.",
)
_ONCE = flags.DEFINE_string("once", None, "Write the page to this file instead of serving it.")


def main(argv: Sequence[str]) -> None:
    """Serve or write the page of the folder that the command line names."""
    if len(argv) < 2:
        raise app.UsageError("DIR is missing, the folder of the runs")
    if len(argv) > 2:
        raise app.UsageError(f"unknown arguments: {argv[2:]}")
    folder = pathlib.Path(argv[1])
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserMistake(f"DIR must name a folder with runs below it; {folder} {what}.")
    if _ONCE.value is not None:
        write_once(folder, _ONCE.value)
    else:
        serve(folder)


def write_once(folder: pathlib.Path, file: str) -> None:
    """Write the page of the runs below a folder into a file."""
    if not file.strip():
        raise UserMistake("--once must name a file, and '' names none.")
    data = everything(folder)
    pathlib.Path(file).write_bytes(page(str(folder), data))
    print(f"The page of {_counted(len(data['names']))} below {folder} is in {file}")


def serve(folder: pathlib.Path) -> None:
    """Serve the page of the runs below a folder until a signal ends it."""
    with Server(folder, _HOST.value, _PORT.value) as server:
        for number in signals.SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)
        print(f"The runs below {folder} are at {server.address} until Ctrl-C.", flush=True)
        server.serve_forever()


def _stop(number: int, frame: FrameType | None) -> None:
    raise signals.Stopped(number, advice="")


def _counted(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


if __name__ == "__main__":
    run_command(main)
