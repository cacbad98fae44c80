"""The settings of the experiment and the results of its networks."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.understanding.command import Results
from experiments.understanding.diagonal_nets.arms import ARMS, ITERATIONS, methods
from experiments.understanding.diagonal_nets.data import Data, make_data
from experiments.understanding.diagonal_nets.sweep import Weights, loss, train
from sam_jax.typing import AnyArray

DENSE = 500  # the first iterations are all logged


class Settings(NamedTuple):
    """What a run can change."""

    iterations: int = ITERATIONS  # of each of the two phases


SMOKE = Settings(iterations=201)


def compute(settings: Settings) -> Results:
    """Train all networks.

    Returns:
      logged: the numbers of the logged iterations of a phase, from 0.
      train_losses, test_losses: [phases, logged, networks].
      u, v: [phases, networks, d], after every phase.
    """
    logged = logged_iterations(settings.iterations)
    flags = np.isin(np.arange(settings.iterations), logged)
    phases = [methods(ARMS, phase) for phase in range(2)]
    scales = np.array([arm.scale for arm in ARMS])
    found = train(phases, scales, make_data(), np.stack([flags, flags]))
    return {
        "logged": logged,
        "train_losses": found.train_losses[:, logged],
        "test_losses": found.test_losses[:, logged],
        "u": np.asarray(found.weights.u),
        "v": np.asarray(found.weights.v),
    }


def logged_iterations(iterations: int) -> np.ndarray:
    """Return the first 500 iterations and 201 at equal ratios, the last among them.

    >>> logged_iterations(10_001)[[0, 499, 500, -1]].tolist()
    [0, 499, 501, 10000]
    """
    last = iterations - 1
    spread = np.geomspace(1, max(last, 1), 201).astype(int)
    return np.unique(np.minimum(np.concatenate([np.arange(DENSE), spread, [last]]), last))


def losses_between(
    first: Weights, second: Weights, data: Data, alphas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return training and test losses at (1 - alpha) * first + alpha * second, in float64."""

    def at(alpha: AnyArray) -> tuple[jax.Array, jax.Array]:
        weights = jax.tree.map(lambda a, b: (1 - alpha) * a + alpha * b, first, second)
        return (
            loss(weights, data.inputs, data.outputs),
            loss(weights, data.test_inputs, data.test_outputs),
        )

    with jax.enable_x64(True):
        train_losses, test_losses = jax.vmap(at)(alphas)
        return np.asarray(train_losses), np.asarray(test_losses)
