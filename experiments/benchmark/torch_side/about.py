"""What is said of the side that runs PyTorch, and its device."""

import os
from typing import Any

import torch


def device() -> str:
    """Return "cuda" where there is a GPU and the benchmark does not ask for the CPU."""
    wants_cpu = os.environ.get("JAX_PLATFORMS", "") == "cpu"
    return "cuda" if torch.cuda.is_available() and not wants_cpu else "cpu"


def start(threads: int) -> dict[str, Any]:
    """Set the threads and the precision that TF32 rows have; return versions and device."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 4  # the slowest of all can take a minute to try
    name = torch.cuda.get_device_name() if device() == "cuda" else "cpu"
    return {"torch": torch.__version__, "torch_threads": torch.get_num_threads(), "device": name}


def full_precision() -> None:
    """Take no TF32, as evaluations and instruments of the other side take none."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def synchronise() -> None:
    """Wait for the GPU."""
    if device() == "cuda":
        torch.cuda.synchronize()
