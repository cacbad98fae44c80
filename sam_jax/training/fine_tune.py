"""Fine-tuning: a training that starts from the weights of another run, as far as they fit."""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from sam_jax.mistakes import UserMistake
from sam_jax.runs import checkpoints
from sam_jax.runs.distributed import from_first
from sam_jax.training.device_data import replicated
from sam_jax.training.program import Program
from sam_jax.training.step import TrainState
from sam_jax.typing import Key, PyTree

REPORT = "fine_tune.json"
THIS_RUN = "{workdir}"  # the folder of the run itself, so that both can be moved together


class Fitted(NamedTuple):
    """What fits of a saved tree, and what does not.

    Attributes:
      tree: the fresh tree with the saved arrays in the places that they fit.
      not_restored: a name, the shape there and the saved shape (None for no such name), for each
        array that stays fresh.
      unused: the names of the saved arrays that have no place.
    """

    tree: PyTree
    not_restored: list[dict[str, Any]]
    unused: list[str]


def fitted(fresh: PyTree, saved: PyTree) -> Fitted:
    """Put saved arrays in the places of a fresh tree that have their name and their shape.

    Args:
      fresh: nested dicts of arrays, whose dtypes stay.
      saved: likewise, of any structure.

    >>> fresh = {"layer": jnp.zeros(2), "head": jnp.zeros(3)}
    >>> result = fitted(fresh, {"layer": jnp.ones(2), "head": jnp.ones(5), "old": jnp.ones(1)})
    >>> print(result.tree["layer"], result.tree["head"], result.unused)
    [1. 1.] [0. 0. 0.] ['head', 'old']
    >>> result.not_restored
    [{'name': 'head', 'shape': [3], 'saved_shape': [5]}]
    """
    places, found = _by_path(fresh), _by_path(saved)
    fits = [n for n in places if n in found and jnp.shape(found[n]) == jnp.shape(places[n])]
    tree = places | {n: jnp.asarray(found[n], places[n].dtype) for n in fits}
    not_restored = [
        {
            "name": name,
            "shape": list(jnp.shape(place)),
            "saved_shape": list(jnp.shape(found[name])) if name in found else None,
        }
        for name, place in places.items()
        if name not in fits
    ]
    unused = [name for name in found if name not in fits]
    return Fitted(unflatten_dict(tree, sep="/"), not_restored, unused)


def _by_path(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of nested dicts by their paths."""
    found: Any = flatten_dict(tree, sep="/")
    return found


def starting_state(
    c: ml_collections.ConfigDict, program: Program, key: Key, workdir: pathlib.Path
) -> TrainState:
    """Return the state before the first step of a fine-tuning run, and write what was restored.

    Parameters and running statistics come from the other run where name and shape agree, so that a
    classifier for other classes is a new one. Of a run that averages weights they are the averaged
    ones, with the running statistics of the last. Method, optimiser and step start anew.

    Args:
      c: the group `fine_tune` of a config: the workdir of the other run, where `THIS_RUN` stands
        for that of this run, and its epoch.
      program: of the run that starts.
      key: of its seed.
      workdir: the folder of the run, where fine_tune.json is written.

    Raises:
      FileNotFoundError: the other run has no such checkpoint.
      ValueError: no kernel fits, or the other run is this one.
    """
    check_start(c, workdir)
    other = _start_of(c, workdir)
    epoch, saved = checkpoints.read(other, c.epoch or None, replicated())
    fresh = program.init(key)
    averages = list(_averages(saved["optimiser_state"]))
    params = fitted(fresh.params, averages[-1] if averages else saved["params"])
    batch_stats = fitted(fresh.batch_stats, saved["batch_stats"] or {})
    # Biases of the same number of classes fit any model.
    new = {item["name"] for item in params.not_restored}
    kernels = [name for name, w in _by_path(fresh.params).items() if w.ndim > 1]
    if new.issuperset(kernels):
        raise UserMistake(
            f"No kernel of the run in {other} has the name and the shape of one of this model: "
            "fine_tune.workdir must be the run of a model with the same layers. This model has "
            f"{', '.join(kernels[:3])}, and that run {', '.join(params.unused[:3])}."
        )
    parts = {"params": params, "batch_stats": batch_stats}
    report = {
        "workdir": str(other),
        "epoch": epoch,
        "averaged": bool(averages),
        "not_restored": [
            item | {"name": f"{part}/{item['name']}"}
            for part, result in parts.items()
            for item in result.not_restored
        ],
        "unused": [f"{part}/{n}" for part, result in parts.items() for n in result.unused],
    }
    for item in report["not_restored"]:
        logging.warning(
            "%s is new, of shape %s; %s has %s there.",
            item["name"],
            item["shape"],
            other,
            item["saved_shape"] or "nothing",
        )
    from_first(lambda: (workdir / REPORT).write_text(json.dumps(report, indent=2) + "\n"))
    return program.start(key, params.tree, batch_stats.tree)


def check(c: ml_collections.ConfigDict) -> None:
    """Raise a ValueError unless the fields of the group `fine_tune` fit each other."""
    if c.epoch and not c.workdir:
        raise ValueError(f"fine_tune.epoch = {c.epoch} needs fine_tune.workdir, which is empty.")


def check_start(c: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Raise an error unless there is another run to start from, or this one has begun.

    Args:
      c: the group `fine_tune` of a config.
      workdir: the folder of the run that starts.

    Raises:
      ValueError: the other run is this one.
      FileNotFoundError: there is no such run, or no checkpoint in it.
    """
    if not c.workdir:
        return
    other = _start_of(c, workdir)
    if other.resolve() == workdir.resolve():
        raise UserMistake(f"fine_tune.workdir = {c.workdir!r} is the folder of this run itself.")
    if from_first((workdir / "checkpoints").is_dir):
        return  # what has begun needs no other run
    folder = other / "checkpoints" / (str(c.epoch) if c.epoch else "")
    if not from_first(folder.is_dir):
        raise FileNotFoundError(
            f"fine_tune.workdir = {c.workdir!r} holds no checkpoint"
            f"{f' of epoch {c.epoch}' if c.epoch else ''}: there is no folder {folder}."
        )


def _start_of(c: ml_collections.ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(os.path.normpath(c.workdir.replace(THIS_RUN, str(workdir))))


def _averages(tree: PyTree) -> Iterator[PyTree]:
    """Yield the averaged parameters in the saved state of an optimiser."""
    if isinstance(tree, dict):
        if tree.keys() >= {"average", "averaged"}:
            if tree["averaged"] > 0:
                yield tree["average"]
            return
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for item in tree:
            yield from _averages(item)
