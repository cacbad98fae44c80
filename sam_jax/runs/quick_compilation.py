"""Settings of a process that traces and compiles many programs: quicker, with the same results."""

import gc
import importlib.metadata
import os

# XLA's newer emitters set up MLIR anew for every fused operation of a CPU program. Without them
# the epoch of the digits with SAM, 356 of these, compiles in 4.5 s of one core in place of 7.3 s
# and runs as long. MobileNetV2 compiles more slowly without them, so a command asks for this.
_FLAG = "--xla_cpu_use_fusion_emitters=false"
# The first and the last version of jaxlib that know it: XLA ends a process with unknown flags.
_KNOWN_IN = ((0, 8), (0, 10))
# Objects that are made before Python looks for cycles among the youngest; by default 700. With
# those of the imports left out, tracing that epoch takes 0.64 s in place of 0.90 s.
_YOUNGEST = 50_000


def collect_seldom() -> None:
    """Search for garbage less often, and no more in what is imported by now."""
    gc.freeze()
    youngest, *older = gc.get_threshold()
    gc.set_threshold(max(youngest, _YOUNGEST), *older)


def for_small_nets() -> None:
    """Compile programs of small nets for CPUs quickly; call it before JAX looks for devices.

    What the environment variable XLA_FLAGS says about it holds.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    if _KNOWN_IN[0] <= version <= _KNOWN_IN[1] and _FLAG.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}".strip()
