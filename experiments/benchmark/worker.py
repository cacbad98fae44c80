"""One side of a comparison, in a process of its own: it times what it is asked to time.

The request is a JSON object in the first argument: "module", with a function
`prepare(case) -> Prepared`; "case"; "threads", the processors that this process may use, 0 for all.
They are set before a library starts its threads, so that both sides have the same. Every line of
the output that counts is MARK and a JSON object; anything else is a library's chatter.

This file needs the standard library alone: a Python that has PyTorch and no JAX runs it too.
"""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TextIO

MARK = "@@ "


class Prepared(NamedTuple):
    """A task made ready: what is known of it, and the calls that can be timed.

    A call gets how many times it is to do its work, waits until it is done, and may return what
    JSON can hold.
    """

    about: Mapping[str, Any]
    calls: Mapping[str, Callable[[int], Any]]


def write(output: TextIO, message: Mapping[str, Any]) -> None:
    """Write one message."""
    output.write(MARK + json.dumps(message) + "\n")
    output.flush()


def described(prepared: Prepared) -> dict[str, Any]:
    """Return what is known of a task, with the names of its calls."""
    return dict(prepared.about) | {"calls": list(prepared.calls)}


def timed(call: Callable[[int], Any], repeats: int) -> dict[str, Any]:
    """Return the seconds of one repeat by the wall clock and of all threads, and the result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = call(repeats)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"wall": wall / repeats, "processor": processor / repeats, "result": result}


def serve(prepared: Prepared, requests: TextIO, output: TextIO) -> None:
    """Say that the task is ready, then time what every line of requests asks for.

    A request is {"call": NAME, "repeats": N}. A call that fails is answered by its error, and
    others may follow: where one mode does not compile, another may.
    """
    write(output, described(prepared))
    for line in requests:
        request = json.loads(line)
        try:
            answer = timed(prepared.calls[request["call"]], request["repeats"])
        except Exception as error:
            traceback.print_exc()
            answer = _words(error)
        write(output, answer)


def _words(error: Exception) -> dict[str, str]:
    return {"error": f"{type(error).__name__}: {error}"[:600]}


def use_threads(threads: int) -> None:
    """Bind this process to its first so many processors; 0 leaves it as it is."""
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def main(request: dict[str, Any]) -> int:
    """Prepare the task of a request and serve it; return the exit code."""
    output, sys.stdout = sys.stdout, sys.stderr  # what libraries print goes to the log
    use_threads(request["threads"])
    try:
        prepare = importlib.import_module(request["module"]).prepare
        serve(prepare(request["case"]), sys.stdin, output)
    except Exception as error:
        traceback.print_exc()
        write(output, _words(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
