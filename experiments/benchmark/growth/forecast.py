"""Forecasts: how long whole studies take, each number with its assumption."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from configs.even_better import cifar10 as study_config
from experiments.benchmark.growth.hardware import H100, SAM_RATE, TPU_V4, Accelerator

GRADIENTS = {"sgd": 1, "average_sam": 1, "sam": 2}
FORWARD = 1 / 3  # of a gradient: a backward pass takes as many operations as two forward ones
HOUR, DAY = 3600.0, 86400.0
CIFAR_IMAGES, IMAGENET_IMAGES = 50_000, 1_281_167
# Multiply-adds of one forward pass: by the configs of sam_paper, and ResNet-50 as published.
MULTIPLY_ADDS = {
    "WRN-28-10": 5.2e9,
    "Shake-Shake 26 2x96d": 3.4e9,
    "PyramidNet-272": 4.3e9,
    "ResNet-50": 4.1e9,
    "ResNet-152": 11.5e9,
}
# What large convolutional networks reach of a chip's peak: an assumption, low and high.
UTILISATION = (0.2, 0.45)


class Forecast(NamedTuple):
    """The time of one part, from low to high."""

    what: str
    on: str
    low: float  # seconds
    high: float
    assumption: str


def study_on_one_gpu(rate: float = SAM_RATE) -> list[Forecast]:
    """Return the parts of one seed of the study on CIFAR-10, at measured images a second.

    Args:
      rate: images a second of SAM steps; a gradient runs at twice of it.
    """
    config = study_config.get_config()
    gradients = sum(GRADIENTS[method] * times for method, _, _, times in config.models)
    gradients += len(config.curve.pairs)  # a curve trains on one gradient
    epochs = config.training.epochs
    trained = gradients * epochs * CIFAR_IMAGES
    of_gradients = 2 * rate
    planes = len(config.models) * config.plane.points**2
    curve_planes = len(config.curve.pairs) * config.curve.plane_points**2
    c = config.training.instruments
    asymmetries = len(config.presets) * len(config.models) * (1 + 2 * c.asymmetry.num_directions)
    both = CIFAR_IMAGES + 10_000  # planes evaluate the training and the test set
    evaluated = (planes + curve_planes) * both + asymmetries * CIFAR_IMAGES
    parts = [
        Forecast(
            "the models and the curves",
            H100.name,
            trained / of_gradients,
            trained / of_gradients * 1.05,
            f"{gradients} gradients x {epochs} epochs, each half a measured SAM step; up to 5 % "
            "for all else",
        ),
        Forecast(
            "planes and asymmetries",
            H100.name,
            evaluated * FORWARD / of_gradients,
            evaluated * FORWARD / of_gradients * 2,
            f"{planes + curve_planes + asymmetries:,} evaluations, each image a third of a "
            "gradient, or twice that in full precision",
        ),
    ]
    seeds = len(config.seeds)
    low, high = (seeds * sum(getattr(part, end) for part in parts) for end in ("low", "high"))
    return [*parts, Forecast(f"all of {seeds} seeds", H100.name, low, high, "one after the other")]


def by_operations(
    what: str,
    net: str,
    images: float,
    gradients: float,
    chips: int,
    accelerator: Accelerator,
    *,
    bfloat16: bool,
) -> Forecast:
    """Return the time of a training from its operations and an assumed share of the peak.

    Args:
      what: its name.
      net: a name in MULTIPLY_ADDS.
      images: epochs times the size of the set.
      gradients: of an image in a step.
      chips: of the accelerator, all with the same share of the batch.
      accelerator: the chip.
      bfloat16: whether activations are in bfloat16, else float32.
    """
    operations = 2 * MULTIPLY_ADDS[net] * images * gradients / FORWARD
    peak = chips * (accelerator.bfloat16 if bfloat16 else accelerator.float32)
    seconds = [operations / (peak * share) for share in UTILISATION]
    return Forecast(
        what,
        f"{chips} x {accelerator.name}",
        min(seconds),
        max(seconds),
        f"{MULTIPLY_ADDS[net] / 1e9:.1f} G multiply-adds forward; {gradients:g} gradients a step; "
        f"{UTILISATION[0]:.0%} to {UTILISATION[1]:.0%} of "
        f"{peak / chips / 1e12:.0f} TFLOPS a chip; {images / max(seconds) / 1e3:,.0f} to "
        f"{images / min(seconds) / 1e3:,.0f} thousand images/s of input",
    )


def paper_on_eight_gpus() -> list[Forecast]:
    """Return a pair of SGD and SAM for each net of the paper's CIFAR table, one set and seed."""
    pair = functools.partial(by_operations, chips=8, accelerator=H100, bfloat16=False)
    # SGD is trained for twice the epochs, so that each of the two has as many gradients.
    return [
        pair("WRN-28-10, 200 epochs", "WRN-28-10", 200 * CIFAR_IMAGES, 4),
        pair("WRN-28-10, 1800 epochs", "WRN-28-10", 1800 * CIFAR_IMAGES, 4),
        pair("Shake-Shake, 1800 epochs", "Shake-Shake 26 2x96d", 1800 * CIFAR_IMAGES, 4),
        pair("PyramidNet, 1800 epochs", "PyramidNet-272", 1800 * CIFAR_IMAGES, 4),
    ]


def whole_paper_table(rows: Sequence[Forecast], sets: int = 2, augmentations: int = 3) -> Forecast:
    """Return the whole table: every net on both sets with three augmentations, one seed."""
    factor = sets * augmentations
    return Forecast(
        "the whole table, one seed",
        rows[0].on,
        factor * sum(row.low for row in rows),
        factor * sum(row.high for row in rows),
        f"{sets} sets x {augmentations} augmentations of the rows above; SAM, and SGD for twice "
        "the epochs",
    )


def imagenet_on_a_pod(chips: int = 256) -> list[Forecast]:
    """Return SAM on ImageNet with a batch of 4096 on a slice of a pod."""
    forecast = functools.partial(
        by_operations, gradients=2, chips=chips, accelerator=TPU_V4, bfloat16=True
    )
    return [
        forecast("ResNet-50, 100 epochs", "ResNet-50", 100 * IMAGENET_IMAGES),
        forecast("ResNet-152, 400 epochs", "ResNet-152", 400 * IMAGENET_IMAGES),
    ]


def reduction_seconds(parameters: int, chips: int, accelerator: Accelerator, passes: int) -> float:
    """Return the time of summing float32 gradients over all chips by a ring, `passes` times.

    Every chip sends and receives 2 (n - 1) / n of the gradient. Half the data sheet's link counts,
    which is of both ways together.

    >>> f"{1e3 * reduction_seconds(25_600_000, 256, TPU_V4, passes=1):.2f} ms"
    '1.36 ms'
    """
    sent = 2 * (chips - 1) / chips * 4 * parameters
    return passes * sent / (accelerator.link / 2)
