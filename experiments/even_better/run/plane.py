"""The plane of random directions around every model, for Figures 4 and 9."""

import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from experiments.study.study import Load
from sam_jax import metrics
from sam_jax.measuring.batch_norm_policy import BatchNormPolicy, policy_of
from sam_jax.measuring.landscapes import is_whole, measure_plane
from sam_jax.runs import records
from sam_jax.runs.randomness import stream
from sam_jax.training.trained import Trained
from sam_jax.typing import Key, Params, PyTree


def diverged(trained: Trained) -> bool:
    """Say whether a model has weights that are not finite, around which there is no landscape."""
    return not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(trained.state.params))


def run_plane(
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    load: Load,
    epoch: int,
    seed: int,
    label: str,
) -> None:
    """Measure the losses of a model on two Gaussian directions of its filters' lengths.

    All models of a seed see the same random numbers; each filter is then scaled to the length of
    the model's filter. A plane of another epoch or of other settings, left by an accepted change,
    is measured again.

    Args:
      config: as in configs/even_better/digits.py.
      folder: of a trained model; its `plane.jsonl` is written, and left alone where it is whole.
      load: returns the config and the model of the folder, as `load_trained`.
      epoch: of the model.
      seed: of the directions.
      label: its name in the progress.
    """
    c, path = config.plane, folder / "plane.jsonl"
    policy = policy_of(c.batch_norm, c.batch_norm_batch_size)
    # Planes of before were recalibrated on 128 images at a time, and do not say so.
    default = policy == BatchNormPolicy("recalibrated", 128)
    grid = {"limit": c.limit, "points": c.points, "batch_norm": policy.kind}
    settings = [grid, None if default else policy.batch_size]
    about = {"epoch": epoch, "settings": records.digest(settings)}
    found = records.read(path)
    if found and any(found[0].get(name) != value for name, value in about.items()):
        path.unlink()
    elif is_whole(path):
        return
    _, trained = load()
    if diverged(trained):
        logging.warning("%s has weights that are not finite, and no plane.", folder)
        return
    axis = np.linspace(-c.limit, c.limit, c.points)
    key = stream(jax.random.key(seed), "plane")
    first, second = _two_directions(key, trained.state.params)
    measure_plane(
        trained,
        first,
        second,
        axis,
        axis,
        path,
        batch_norm=policy,
        batch_size=config.training.instruments.batch_size,
        about=about,
        label=label,
    )


@jax.jit  # compiled once for all models
def _two_directions(key: Key, params: Params) -> tuple[PyTree, PyTree]:
    both = metrics.random_directions(key, params, 2, "gaussian", "filter")
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in (0, 1))
    return first, second
