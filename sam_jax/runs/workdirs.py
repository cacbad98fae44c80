"""The folder of a run: its config, and the refusal to mix two configs in one folder.

Of several processes the first one looks at the folder and writes to it.
"""

import json
import pathlib
import re
import zlib
from typing import Any

import jax
import ml_collections
import numpy as np

from sam_jax.runs.distributed import from_first
from sam_jax.typing import PyTree

REFUSAL = (
    "{workdir} belongs to a run with another config. Differing keys: {differing}. Choose another "
    "--workdir, or go on with the new config by --accept_config_changes."
)


_ABSENT = object()
_INSTRUMENT = re.compile(r"(training\.)?instruments\.\w+\.")
# How many images are evaluated in a pass bounds the memory and changes no result: it may differ in
# a folder that was run before, and digests go on to name the pass of before.
_PASS = re.compile(r"(training\.)?(evaluation|instruments)\.batch_size")
_PASS_BEFORE = {96: 480}  # of the digits
_BASE_BEFORE = {"augmentation": ["crop_zero"], "pad": 1, "cutout_size": 16}
# Fields that trainings of before lack, with the values of what they did.
_TRAINING_BEFORE = {
    "mesh": [["data", -1], ["model", 1]],
    "split_parameters": [],
    "step_form": "auto",
    "data": {
        "train_split": "train",
        "image_size": 0,
        "randaugment_layers": 2,
        "randaugment_magnitude": 9,
        "validation_examples": 0,
        "mixup": 0.0,
        "label_noise": 0.0,
        "label_noise_kind": "symmetric",
        "label_noise_seed": 0,
    },
    "loss": {
        "name": "cross_entropy",
        "offset_cross_entropy": {"offset": 1.0},
        "generalised_cross_entropy": {"q": 0.7},
        "smallest_cross_entropy": {"removed": 0.2},
    },
    "evaluation": {"top_k": []},
    "fine_tune": {"workdir": "", "epoch": 0},
    "method": {
        "synchronise": "local",
        "from_share": 0.0,
        "until_share": 1.0,
        "multi_step_sam": {"normalised": True},
        "weight_noise": {"relative": 0.0},
    },
    "optimiser": {
        "name": "sgd",
        "schedule": "cosine",
        "exponential": {"end": 0.012},
        "linear": {"end": 0.0},
        "piecewise": {"boundaries": [0.5, 0.75], "factors": [0.1, 0.01]},
        "rmsprop": {"decay": 0.9, "epsilon": 0.001, "initial": 1.0},
        "adamw": {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        "weight_decay_on": "all",
    },
    "weight_average": {"ema_warm_up": False, "ema_start_epochs": 0.0},
}


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return a config as JSON would give it back: nested dicts, with lists for tuples."""
    return json.loads(config.to_json())


def plain_as_before(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return a config as JSON, without the fields that came later and hold what was done before.

    A digest of it is the same as that of a config from before these fields.

    Args:
      config: of a training.
    """
    found = plain(config)
    return _without(found, _TRAINING_BEFORE) if "optimiser" in found else found


def pass_as_before(images: int) -> int:
    """Return the images of a pass that records of before name, for the digest of their settings.

    Args:
      images: of a pass, as a config has them.

    >>> pass_as_before(96), pass_as_before(1000)
    (480, 1000)
    """
    return _PASS_BEFORE.get(images, images)


def claim(
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    accept_config_changes: bool = False,
    refusal: str = REFUSAL,
) -> None:
    """Write config.json, or check that the one in the folder is the same.

    A folder that holds nothing but a config.json, or empty folders, belongs to a run that failed at
    once, and is free.

    Args:
      workdir: the folder of the run, made where it does not exist.
      config: the config to run.
      accept_config_changes: go on with the new config, which then replaces the old.
      refusal: what an error says, with places for {workdir} and the {differing} keys.

    Raises:
      ValueError: the folder belongs to a different config; the message names the differing keys.
    """
    if not accept_config_changes:
        refuse_another(workdir, config, refusal)

    def write() -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "config.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(plain(config), indent=2) + "\n")
        temporary.replace(path)

    from_first(write)


def refuse_another(
    workdir: pathlib.Path, config: ml_collections.ConfigDict, refusal: str = REFUSAL
) -> None:
    """Raise the error of `claim` where a folder belongs to a different config, and write nothing.

    Args:
      workdir: the folder of a run, which need not exist.
      config: the config to run.
      refusal: as in `claim`.
    """

    def find() -> list[str]:
        path = workdir / "config.json"
        if not path.exists():
            return []
        others = [x for x in workdir.iterdir() if x != path and (x.is_file() or any(x.iterdir()))]
        return _differences(_read(path), plain(config)) if others else []

    differing = from_first(find)
    if differing:
        raise ValueError(refusal.format(workdir=workdir, differing="; ".join(differing)))


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Return the config that a folder was run with.

    Raises:
      FileNotFoundError: the folder has no config.json.
    """
    path = workdir / "config.json"
    found = from_first(lambda: _read(path) if path.exists() else None)
    if found is None:
        raise FileNotFoundError(
            f"{workdir} holds no config.json. Give the --workdir of a run, made by "
            "python -m sam_jax.train --config=... --workdir=..."
        )
    return ml_collections.ConfigDict(found)


def checksum(tree: PyTree) -> int:
    """Return the CRC-32 of the bytes of all leaves: what tells two models apart."""
    found = 0
    for leaf in jax.tree.leaves(tree):
        found = zlib.crc32(np.asarray(leaf).tobytes(), found)
    return found


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Return a config.json, one of before in the words of today's configs.

    Before sets were streamed, the base config named the augmentation that is now the set's own.
    Before configs said so, planes and curves were recalibrated on 128 images at a time. Fields that
    came later get the values that keep what the run did.
    """
    config = json.loads(path.read_text())
    for group in ("plane", "curve", "measuring"):  # of a study, and of a curve in one
        if isinstance(config.get(group), dict):
            config[group].setdefault("batch_norm_batch_size", 128)
    for part in (config, config.get("training", {})):  # a run, or a study
        data = part.get("data")
        if data is not None and "streaming" not in data:
            data["streaming"] = "auto"  # every set of that time fits the device
            if data["name"] == "digits" and data.items() >= _BASE_BEFORE.items():
                data.update(dict.fromkeys(_BASE_BEFORE))
        if "optimiser" in part:
            _fill(part, _TRAINING_BEFORE)
    return config


def _fill(tree: dict[str, Any], values: dict[str, Any]) -> None:
    """Put values into a tree where it has none."""
    for name, value in values.items():
        if isinstance(value, dict):
            _fill(tree.setdefault(name, {}), value)
        else:
            tree.setdefault(name, value)


def _without(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a tree without the values, nor the groups that they fill."""
    kept = {}
    for name, found in tree.items():
        value = values.get(name, _ABSENT)
        if isinstance(value, dict) and isinstance(found, dict):
            found = _without(found, value)
            if found:
                kept[name] = found
        elif found != value:
            kept[name] = found
    return kept


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    old, new = _flatten(old), _flatten(new)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    # A config that is older than an instrument has no group for it, which changes nothing in it.
    names = [name for name in names if name in old or not _INSTRUMENT.match(name)]
    names = [name for name in names if not _PASS.fullmatch(name)]
    return [f"{n} (was {old.get(n, 'absent')!r}, is {new.get(n, 'absent')!r})" for n in names]
