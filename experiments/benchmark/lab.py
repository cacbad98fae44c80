"""What a row needs to measure: the sides, the folder of the benchmark, and the time left."""

import contextlib
import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.benchmark.sides import AnySide, Here, Side

JAX, TORCH = "experiments.benchmark.jax_side", "torch_side"
KEPT = "kept"
GRACE = 40.0  # seconds after the budget within which what has begun may end
START_SECONDS = 240.0  # a worker that takes longer to import and compile is given up


@dataclasses.dataclass(frozen=True)
class Lab:
    """The place where the rows are measured.

    Attributes:
      folder: of the benchmark.
      torch_python: an interpreter with PyTorch; empty for none.
      ends: when the budget ends, by the monotonic clock.
      data_dir: where prepared sets lie; empty for the default.
      in_process: whether JAX's side runs in this process, which the smoke preset does.
    """

    folder: pathlib.Path
    torch_python: str = ""
    ends: float = float("inf")
    data_dir: str = ""
    in_process: bool = False

    @property
    def left(self) -> float:
        """Seconds left of the budget."""
        return self.ends - time.monotonic()

    @contextlib.contextmanager
    def jax(
        self,
        task: str,
        case: Mapping[str, Any],
        *,
        cache: str = KEPT,
        own_process: bool = False,
        devices: int = 1,
    ) -> Iterator[AnySide]:
        """Start the side that runs JAX, and end it after the block.

        Args:
          task: a module of jax_side.
          case: what its `prepare` is given.
          cache: the folder of compiled programs. KEPT is one in the folder of the benchmark, for
            the next call; what compiles is bound to the number of processors, and so is the
            folder. Empty for none.
          own_process: whether the task needs a process of its own even where others do not.
          devices: above one, so many devices of the CPU.
        """
        if self.in_process and not own_process:
            with contextlib.closing(Here(f"{JAX}.{task}", case)) as here:
                yield here
            return
        if cache == KEPT:
            cache = str(self.folder / "compiled" / f"threads_{case.get('threads', 0)}")
        variables = {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # two processes share a GPU
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_ENABLE_COMPILATION_CACHE": str(bool(cache)).lower(),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if devices > 1:
            known = os.environ.get("XLA_FLAGS", "")
            flag = f"--xla_force_host_platform_device_count={devices}"
            variables |= {"XLA_FLAGS": f"{known} {flag}".strip(), "JAX_PLATFORMS": "cpu"}
        side = Side(
            sys.executable,
            f"{JAX}.{task}",
            case,
            log=self._log(task),
            environment=variables,
            ends=self.ends + GRACE,
        )
        with contextlib.closing(side):
            yield side

    @contextlib.contextmanager
    def torch(self, task: str, case: Mapping[str, Any]) -> Iterator[Side | None]:
        """Start the side that runs PyTorch; None where no interpreter has it."""
        if not self.torch_python:
            yield None
            return
        side = Side(
            self.torch_python,
            f"{TORCH}.{task}",
            case,
            log=self._log(f"torch_{task}"),
            ends=self.ends + GRACE,
        )
        with contextlib.closing(side):
            yield side

    def _log(self, task: str) -> pathlib.Path:
        return self.folder / "logs" / f"{task}.log"

    def start_seconds(self) -> float:
        """Return how long a worker may take to get ready: half of what is left, for the others."""
        return min(START_SECONDS, max(self.left / 2, 30.0))
