"""The settings of the experiment and its results."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.understanding.command import Results
from experiments.understanding.relu_nets import regions
from experiments.understanding.relu_nets.network import Net, loss
from experiments.understanding.relu_nets.training import RHO, train

ARMS = ("GD", f"SAM, ρ = {RHO:g}")
RADII = (0.0, RHO)
QUANTITIES = ("loss", "iterations", "activation_regions", "kinks", "l1_norm", "path_norm")


class Settings(NamedTuple):
    """What a run can change."""

    seeds: int = 5
    iterations: int = 1_000_000  # at most
    records: int = 120  # about so many times at which nets are kept


SMOKE = Settings(seeds=2, iterations=60, records=5)


def compute(settings: Settings) -> Results:
    """Train GD and SAM from the same initial nets.

    Returns:
      recorded: numbers of iterations, [records].
      weight, bias, output: of the nets then, [arms, seeds, records, width].
      every name of QUANTITIES: of these nets, [arms, seeds, records].
    """
    last = settings.iterations
    spread = np.geomspace(1, last, settings.records).round().astype(int)
    recorded = np.unique([*spread, last])
    keys = jax.vmap(jax.random.key)(np.arange(settings.seeds))
    paths = [train(keys, recorded, rho, last) for rho in RADII]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *paths)
    return {
        "recorded": recorded,
        "iterations": stacked.iterations,
        **stacked.nets._asdict(),
        "loss": np.asarray(_losses(stacked.nets)),
        "activation_regions": _of_every(regions.activation_regions, stacked.nets),
        "kinks": _of_every(regions.kinks, stacked.nets),
        "l1_norm": regions.l1_norm(stacked.nets),
        "path_norm": regions.path_norm(stacked.nets),
    }


@jax.jit
def _losses(nets: Net) -> jax.Array:
    return jax.vmap(jax.vmap(jax.vmap(loss)))(nets)


def _of_every(quantity: Callable[[Net], int], nets: Net) -> np.ndarray:
    """Return an integer of every net; the nets have leading axes."""
    found = np.zeros(nets.weight.shape[:-1], int)
    for place in np.ndindex(found.shape):
        found[place] = quantity(Net(*(leaf[place] for leaf in nets)))
    return found
