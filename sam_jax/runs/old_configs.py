"""Configs of before: their words in today's, and today's in theirs, for digests that stay."""

from typing import Any

_ABSENT = object()
_PASS_BEFORE = {96: 480}  # of the digits
# What a run does where numbers are not finite or grow, and what gets its numbers. It may differ in
# a folder that was run before, so that a run that stopped can go on by another choice, and no
# digest names it. Trainings of before went on, and wrote events.
CHANGEABLE_BEFORE = {
    "on_nonfinite": "continue",
    "divergence_factor": 0.0,
    "writers": ["tensorboard"],
}
_BASE_BEFORE = {"augmentation": ["crop_zero"], "pad": 1, "cutout_size": 16}
# Fields that trainings of before lack, with the values of what they did.
TRAINING_BEFORE = {
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
    "evaluation": {"top_k": [], "sharpness_every_epochs": 0},
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


def without_changeable(found: dict[str, Any]) -> dict[str, Any]:
    """Return the plain config of a training without the fields that may change as it goes on."""
    return {name: value for name, value in found.items() if name not in CHANGEABLE_BEFORE}


def pass_as_before(images: int) -> int:
    """Return the images of a pass that records of before name, for the digest of their settings.

    Args:
      images: of a pass, as a config has them.

    >>> pass_as_before(96), pass_as_before(1000)
    (480, 1000)
    """
    return _PASS_BEFORE.get(images, images)


def without_later_fields(found: dict[str, Any]) -> dict[str, Any]:
    """Return a plain config without the fields that came later and hold what was done before."""
    found = without_changeable(found)
    return _without(found, TRAINING_BEFORE) if "optimiser" in found else found


def upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config of before in the words of today's configs.

    Before sets were streamed, the base config named the augmentation that is now the set's own.
    Before configs said so, planes and curves were recalibrated on 128 images at a time. Fields that
    came later get the values that keep what the run did.
    """
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
            _fill(part, TRAINING_BEFORE | CHANGEABLE_BEFORE)
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
