"""The arms of the experiment, its settings and its results."""

import itertools
import math
from typing import NamedTuple

import jax
import numpy as np

from experiments.understanding.command import Results
from experiments.understanding.convergence.problems import KINDS, Kind
from experiments.understanding.convergence.training import METHODS, Schedule, train

BATCH_SIZE = 8
PARTS = 100
SUB_BATCHES = (1, BATCH_SIZE)  # the values of m
SCHEDULES = ("constant", "decreasing")


class Arm(NamedTuple):
    """What is trained over all seeds."""

    kind: Kind
    method: str
    m: int
    schedule: str

    @property
    def label(self) -> str:
        """The arm without its problem, in words."""
        return f"{self.method}, m = {self.m}, {self.schedule}"


ARMS = tuple(Arm(*parts) for parts in itertools.product(KINDS, METHODS, SUB_BATCHES, SCHEDULES))


class Settings(NamedTuple):
    """What a run can change."""

    seeds: int = 10
    steps: int = 10_000
    decay: int = 200  # steps after which a decreasing step size is halved


SMOKE = Settings(seeds=3, steps=200, decay=20)


def check(settings: Settings) -> None:
    """Raise a ValueError unless the curves divide the steps."""
    if settings.steps % PARTS:
        raise ValueError(
            f"steps must be a multiple of {PARTS}, the parts that the curves have; got "
            f"{settings.steps}."
        )


def compute(settings: Settings) -> Results:
    """Train all arms in float64.

    Returns:
      excess_loss, squared_gradient: [arms, seeds, parts], means over parts of the training.
    """
    decays = np.array([math.inf, settings.decay])
    curves = []
    with jax.enable_x64(True):
        keys = jax.vmap(jax.random.key)(np.arange(settings.seeds))
        for number, (kind, method, m) in enumerate(itertools.product(KINDS, METHODS, SUB_BATCHES)):
            print(f"[{number + 1}/{len(ARMS) // 2}] {kind.name}: {method}, m = {m}", flush=True)
            rho = kind.usam_rho if method == "USAM" else kind.sam_rho
            schedules = Schedule(np.full(2, kind.learning_rate), np.full(2, rho), decays)
            problems = jax.vmap(kind.make)(keys)
            batches = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
            found = train(
                kind,
                problems,
                schedules,
                batches,
                method=method,
                m=m,
                batch_size=BATCH_SIZE,
                steps=settings.steps,
                parts=PARTS,
            )
            curves.append(jax.tree.map(np.asarray, found))
    return {
        name: np.concatenate([getattr(found, name) for found in curves])
        for name in ("excess_loss", "squared_gradient")
    }
