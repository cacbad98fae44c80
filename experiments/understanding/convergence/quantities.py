"""What the curves of a training say, as a number a seed; in NumPy."""

import numpy as np

from experiments.understanding.command import Results

SMALLEST = 1e-40  # takes the place of smaller numbers, zero among them, before logarithms
QUANTITIES = ("late_loss", "fall", "change", "exponent", "gradient_exponent")


def quantities(results: Results) -> dict[str, np.ndarray]:
    """Return numbers of every arm and seed, each [arms, seeds].

    late_loss: log10 of the excess loss in the last fifth.
    fall: orders of magnitude by which the excess loss falls from the first part to the last fifth.
    change: log10 of the excess loss in the last fifth over that between 30 % and 50 %.
    exponent: a, where the excess loss falls as t^-a after the first tenth.
    gradient_exponent: the same of the squared norm of the gradient.
    """
    losses = results["excess_loss"]
    late = _log_mean(losses, 0.8, 1.0)
    return {
        "late_loss": late,
        "fall": _log(losses[..., 0]) - late,
        "change": late - _log_mean(losses, 0.3, 0.5),
        "exponent": decay_exponent(losses),
        "gradient_exponent": decay_exponent(results["squared_gradient"]),
    }


def decay_exponent(curves: np.ndarray) -> np.ndarray:
    """Return a of the least-squares fit log(curve) = b - a log(t) after the first tenth.

    >>> curve = 3.0 / (np.arange(100) + 0.5) ** 2  # a part's mean stands for its middle
    >>> decay_exponent(curve[None]).round(6).tolist()
    [2.0]
    """
    parts = curves.shape[-1]
    first = parts // 10
    time = np.log(np.arange(first, parts) + 0.5)
    heights = _log(curves[..., first:]).reshape(-1, parts - first)
    slopes = np.polyfit(time, heights.T * np.log(10), 1)[0]
    return -slopes.reshape(curves.shape[:-1])


def _log_mean(curves: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return log10 of the mean over a share of the parts."""
    parts = curves.shape[-1]
    return _log(curves[..., round(start * parts) : round(end * parts)].mean(axis=-1))


def _log(values: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(values, SMALLEST))
