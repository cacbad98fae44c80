"""The machine and the software of a benchmark, as its report names them."""

import os
import pathlib
import platform
import subprocess
from typing import Any

import sam_jax

ROOT = pathlib.Path(__file__).parents[2]


def machine() -> dict[str, Any]:
    """Return the processor, the cores that this process may use, memory, system and versions."""
    return {
        "processor": processor(pathlib.Path("/proc/cpuinfo")),
        "cores": cores(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sam_jax": sam_jax.__version__,
        "commit": _commit(),
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor(path: pathlib.Path) -> str:
    """Return the model's name from a file like /proc/cpuinfo, with its family and model numbers."""
    fields: dict[str, str] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = fields.get("flags", "").split()
    widest = next((f for f in ("amx_tile", "avx512f", "avx2", "avx") if f in flags), "")
    more = [
        text
        for text in (f"family {fields.get('cpu family', '')}", f"model {fields.get('model', '')}")
        if text.split()[1:]
    ]
    return ", ".join([name, *more, *([widest] if widest else [])])


def _memory() -> str:
    try:
        count = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{count / 2**30:.0f} GiB"


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return result.stdout.strip() or "unknown"
