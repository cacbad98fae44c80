"""Numbers of accelerators: peaks from public data sheets, and what runs measured on them."""

from typing import NamedTuple


class Accelerator(NamedTuple):
    """One chip, by its maker's public data sheet; peaks are dense, without sparsity."""

    name: str
    bfloat16: float  # operations a second
    float32: float  # the same for float32 inputs: TF32 on a GPU, bfloat16 passes on a TPU
    memory: float  # bytes a second
    link: float  # bytes a second to its neighbours, both ways together
    source: str


H100 = Accelerator(
    "NVIDIA H100 SXM",
    989e12,
    494e12,
    3.35e12,
    900e9,
    "NVIDIA's H100 data sheet: 1,979 and 989 TFLOPS of bfloat16 and TF32 with sparsity, half of "
    "it dense; 3.35 TB/s; NVLink 900 GB/s",
)
TPU_V4 = Accelerator(
    "Google TPU v4",
    275e12,
    275e12,
    1.2e12,
    300e9,
    "Google Cloud's TPU v4 page: 275 TFLOPS of bfloat16, 1,200 GB/s, six links, a pod of 4,096 "
    "chips in a 3D torus",
)


class MeasuredRate(NamedTuple):
    """Images a second of a SAM step on one card, measured by the preset gpu."""

    what: str
    images_per_second: float


MEASURED = (
    MeasuredRate("JAX, SAM, MobileNetV2, batch 128, TF32, one H100", 7145.0),
    MeasuredRate("PyTorch eager, the same", 3438.0),
)
SAM_RATE = MEASURED[0].images_per_second
