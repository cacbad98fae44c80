"""How rows say what was measured."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.benchmark import measured
from sam_jax.runs.records import Record


def of_case(case: Mapping[str, Any]) -> str:
    """Return the batch, the precision and the threads of a case in words.

    >>> of_case({"batch": 128, "precision": "float32", "threads": 1})
    'batch 128, float32, 1 thread'
    """
    words = [f"batch {case['batch']}"] if "batch" in case else []
    words += [case["precision"]] if "precision" in case else []
    threads = case.get("threads", 0)
    words += [f"{threads} thread{'s' * (threads > 1)}"] if threads else []
    return ", ".join(words)


def torch_name(record: Record) -> str:
    """Return the name of PyTorch with the mode that was the fastest."""
    mode = record.get("torch_mode", "")
    return f"PyTorch, {mode}" if mode else "PyTorch"


def images_per_second(record: Record, side: str, clock: str) -> str:
    """Return the images a second of a side, "" where it was not measured."""
    seconds = measured.median(record, side, clock)
    if not math.isfinite(seconds) or not seconds:
        return ""
    return f"{significant(record['examples'] / seconds)} images/s"


def seconds_text(seconds: float) -> str:
    """Return a time with three digits, "" for NaN.

    >>> seconds_text(0.01234), seconds_text(12.345), seconds_text(float("nan"))
    ('12.3 ms', '12.3 s', '')
    """
    if not math.isfinite(seconds):
        return ""
    if seconds < 1:
        return f"{significant(1e3 * seconds)} ms"
    return f"{significant(seconds)} s"


def significant(value: float) -> str:
    """Return a number with three digits, without an exponent.

    >>> significant(1234.5), significant(0.123456), significant(9.996)
    ('1234', '0.123', '10.0')
    """
    if not value:
        return "0"
    rounded = float(f"{value:.3g}")
    digits = max(2 - math.floor(math.log10(abs(rounded))), 0)
    return f"{value:.{digits}f}"
