"""Run a command that kills itself: python kill_at.py MOMENT NUMBER FOLDER MODULE ...

The moments, of which the first argument names one and the second which of them:

- `operation`: before an operation on a file or folder in FOLDER: opening, moving, making, removing.
- `line`: with half a line of a file of records written.
- `count`: never; at its end the command prints the number of operations and of lines.
"""

import builtins
import io
import os
import runpy
import signal
import sys

OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


class Moments:
    """Counts what happens in a folder, and ends the process when it is time."""

    def __init__(self, moment, number, folder):
        self.moment, self.number, self.folder = moment, number, f"{folder}{os.sep}"
        self.counts = {"operation": 0, "line": 0}

    def happens(self, moment):
        self.counts[moment] += 1
        return moment == self.moment and self.counts[moment] == self.number

    def on_event(self, event, arguments):
        if event not in OPERATIONS or not isinstance(arguments[0], str | os.PathLike):
            return
        reads = (
            event == "open"
            and isinstance(arguments[1], str)
            and set("wax+").isdisjoint(arguments[1])
        )
        if (
            not reads
            and os.fspath(arguments[0]).startswith(self.folder)
            and self.happens("operation")
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    def opened(self, file, mode="r", *rest, **options):
        found = open_before(file, mode, *rest, **options)
        if "a" in mode and str(file).startswith(self.folder) and str(file).endswith(".jsonl"):
            write = found.write

            def write_line(text):
                if self.happens("line"):
                    write(text[: len(text) // 2])
                    found.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(text)

            return Proxy(found, write_line)
        return found


class Proxy:
    """A file with another `write`."""

    def __init__(self, file, write):
        self._file, self.write = file, write

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


open_before = io.open

if __name__ == "__main__":
    moment, number, folder, module = sys.argv[1:5]
    moments = Moments(moment, int(number), os.path.realpath(folder))
    sys.path[0] = os.getcwd()
    sys.argv = sys.argv[4:]
    io.open = builtins.open = moments.opened
    sys.addaudithook(moments.on_event)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        if moment == "count":
            print(f"counted {moments.counts['operation']} {moments.counts['line']}", flush=True)
