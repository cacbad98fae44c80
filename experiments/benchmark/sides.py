"""Start the sides of a comparison, and time them in turns."""

import importlib
import json
import math
import os
import pathlib
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

from experiments.benchmark.worker import MARK, Prepared, described, timed

ROOT = pathlib.Path(__file__).parents[2]
WORKER = pathlib.Path(__file__).with_name("worker.py")
Times = dict[str, list[float]]  # "wall" and "processor": seconds of one repeat, a number a round


class SideFailed(RuntimeError):
    """A side of a comparison stopped; the message says why."""


class Side:
    """A worker in a process of its own."""

    def __init__(
        self,
        python: str,
        module: str,
        case: Mapping[str, Any],
        *,
        log: pathlib.Path,
        environment: Mapping[str, str] | None = None,
        ends: float = math.inf,
    ) -> None:
        """Start the worker; `ready` waits for it.

        Args:
          python: the interpreter.
          module: with the function `prepare`.
          case: what it is given; "threads" is the number of processors, 0 or none for all.
          log: a file for what the process says.
          environment: further variables.
          ends: when the process is ended whatever it does, by the monotonic clock.
        """
        threads = case.get("threads", 0)
        request = {"module": module, "case": dict(case), "threads": threads}
        variables = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log, self._ends = log, ends
        with log.open("w") as errors:
            # As a module where the project is, as a file under another Python.
            of_project = module.startswith("experiments.")
            worker = ["-m", "experiments.benchmark.worker"] if of_project else [str(WORKER)]
            self._process = subprocess.Popen(
                [python, *worker, json.dumps(request)],
                cwd=ROOT,
                env=os.environ | variables | dict(environment or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ready(self, seconds: float) -> dict[str, Any]:
        """Wait until the task is ready, and return what is known of it, with its "calls"."""
        return self._answer(seconds)

    def time(self, call: str, repeats: int, seconds: float = 600) -> dict[str, Any]:
        """Return the seconds of one repeat, "wall" and "processor", and the call's "result"."""
        assert self._process.stdin is not None  # as opened
        try:
            self._process.stdin.write(json.dumps({"call": call, "repeats": repeats}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise SideFailed(f"the process ended; see {self._log}") from error
        return self._answer(seconds)

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone, by itself or because it was late."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # as opened
        late = threading.Event()
        seconds = min(seconds, self._ends - time.monotonic())

        def stop() -> None:
            late.set()
            self._process.kill()

        watch = threading.Timer(max(seconds, 1.0), stop)
        watch.start()
        try:
            for line in self._process.stdout:
                if line.startswith(MARK):
                    message = json.loads(line.removeprefix(MARK))
                    if "error" in message:
                        raise SideFailed(message["error"])
                    return message
        finally:
            watch.cancel()
        if late.is_set():
            self._process.wait()
            raise SideFailed(f"no answer within {max(seconds, 0.0):.0f} s")
        code = self._process.wait()
        raise SideFailed(f"the process ended with code {code}; see {self._log}")


class Here:
    """A worker in this process, for a trial of the whole: no processor is set aside for it."""

    def __init__(self, module: str, case: Mapping[str, Any]) -> None:
        """Remember the task; `ready` prepares it."""
        self._prepare, self._case = importlib.import_module(module).prepare, dict(case)
        self._prepared: Prepared | None = None

    def ready(self, seconds: float) -> dict[str, Any]:
        """Prepare the task, and return what `Side.ready` returns."""
        del seconds
        self._prepared = self._prepare(self._case)
        assert self._prepared is not None  # as prepared
        return json.loads(json.dumps(described(self._prepared)))

    def time(self, call: str, repeats: int, seconds: float = 600) -> dict[str, Any]:
        """Return what `Side.time` returns."""
        del seconds
        assert self._prepared is not None  # as `ready` leaves it
        return json.loads(json.dumps(timed(self._prepared.calls[call], repeats)))

    def close(self) -> None:
        """Forget the task."""
        self._prepared = None


AnySide = Side | Here


def alternate(
    calls: Mapping[str, tuple[AnySide, str]],
    *,
    rounds: int,
    repeats: Mapping[str, int] | int = 1,
    seconds: float,
    least: int = 2,
) -> dict[str, Times]:
    """Time several calls in turns, so that all meet the same disturbances.

    Args:
      calls: name -> the side and the call.
      rounds: how many at most.
      repeats: of the work in one call, for each name or for all.
      seconds: after so many no further round begins.
      least: rounds that are timed whatever the seconds.

    Returns:
      name -> the times of all rounds.
    """
    times: dict[str, Times] = {name: {"wall": [], "processor": []} for name in calls}
    start = time.monotonic()
    for done in range(rounds):
        if done >= least and time.monotonic() - start > seconds:
            break
        for name, (side, call) in calls.items():
            count = repeats if isinstance(repeats, int) else repeats[name]
            answer = side.time(call, count)
            for clock in times[name]:
                times[name][clock].append(answer[clock])
    return times
