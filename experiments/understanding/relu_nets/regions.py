"""How complicated a learned function is; in NumPy."""

import numpy as np

from experiments.understanding.relu_nets.network import INPUTS, Net

RESOLUTION = 0.01  # of the inputs, the step of the released plots
SMALLEST_KINK = 1.0  # change of slope; between neighbouring points slopes reach 14


def breakpoints(net: Net) -> tuple[np.ndarray, np.ndarray]:
    """Return where neurons switch, and by how much the slope of f rises there.

    Neuron j switches at -bias_j / weight_j. From left to right the slope changes by
    output_j |weight_j|: a neuron that switches on adds output_j weight_j, one that switches off
    takes it away, and its weight is negative.

    Returns:
      Places and changes, of the neurons whose weight is not zero, by place.
    """
    chosen = net.weight != 0
    weight, bias, output = (np.asarray(leaf)[chosen] for leaf in net)
    places = -bias / weight
    order = np.argsort(places)
    return places[order], (output * np.abs(weight))[order]


def activation_regions(net: Net) -> int:
    """Return the number of intervals of the data's range in which the same neurons are active.

    It is 1 plus the number of different places, strictly between the least and the largest input,
    at which a neuron switches.

    >>> net = Net(np.array([1.0, 1.0, -2.0]), np.array([0.0, 9.0, 1.0]), np.ones(3))
    >>> activation_regions(net)  # switches at 0, at 0.5, and at -9, which is outside
    3
    """
    places, _ = breakpoints(net)
    return 1 + len(np.unique(places[_inside(places)]))


def kinks(net: Net) -> int:
    """Return the number of visible kinks of f on the data's range.

    The range is cut into cells of width 0.01. A cell has a kink where the slopes of f at its two
    ends differ by more than 1: neurons that switch in one cell add up, and may cancel.

    >>> net = Net(np.array([1.0, 1.0, -2.0]), np.array([0.0, 1e-3, 1.0]), np.array([3.0, -3.0, 1]))
    >>> kinks(net)  # the first two neurons switch in one cell and cancel
    1
    """
    places, changes = breakpoints(net)
    inside = _inside(places)
    cells = np.floor((places[inside] - INPUTS.min()) / RESOLUTION).astype(int)
    return int(np.sum(np.abs(np.bincount(cells, changes[inside])) > SMALLEST_KINK))


def l1_norm(net: Net) -> np.ndarray:
    """Return the sum of |p| over all parameters; leading axes stay."""
    return np.abs(np.stack(net)).sum(axis=(0, -1))


def path_norm(net: Net) -> np.ndarray:
    """Return sum_j |output_j| (|weight_j| + |bias_j|), the l1 norm over paths through the net."""
    return (np.abs(net.output) * (np.abs(net.weight) + np.abs(net.bias))).sum(axis=-1)


def _inside(places: np.ndarray) -> np.ndarray:
    return (places > INPUTS.min()) & (places < INPUTS.max())
