"""What TensorFlow Datasets says about an image classification set."""

from typing import Any, NamedTuple

import numpy as np


class Description(NamedTuple):
    """How a set names its images and labels, and their format.

    Attributes:
      image: name of the image among the features.
      label: name of the class label.
      image_shape: height, width and channels; None where they differ or are not said.
      num_classes: number of classes.
    """

    image: str
    label: str
    image_shape: tuple[int | None, int | None, int | None]
    num_classes: int


def describe(name: str, info: Any) -> Description:
    """Return the facts needed to read an image classification set.

    Args:
      name: of the set, for errors.
      info: its `tfds.core.DatasetInfo`.

    Returns:
      A Description. The image and the label are the supervised keys of the set. A set without them
      must have one image and one class label.

    Raises:
      ValueError: it has no image or no class label, several without saying which, or images of more
        than eight bits.
    """
    import tensorflow_datasets as tfds  # takes a second, and the digits do not need it

    features = dict(info.features or {})
    image = _one(name, features, "image", tfds.features.Image, info.supervised_keys)
    label = _one(name, features, "class label", tfds.features.ClassLabel, info.supervised_keys)
    dtype = np.dtype(features[image].np_dtype)
    if dtype != np.uint8:
        raise ValueError(f"The images of {name} are {dtype}; only uint8 images can be read.")
    if features[label].num_classes is None:
        raise ValueError(f"{name} does not say how many classes its label {label} has.")
    return Description(image, label, features[image].shape, features[label].num_classes)


def _one(name: str, features: dict[str, Any], kind: str, feature: type, keys: Any) -> str:
    """Return the name of the feature of a kind that is meant."""
    found = [key for key, value in features.items() if isinstance(value, feature)]
    meant = [key for key in found if isinstance(keys, tuple) and key in keys]
    chosen = meant if len(meant) == 1 else found
    if len(chosen) == 1:
        return chosen[0]
    if not found:
        raise ValueError(
            f"{name} is no image classification set: its features "
            f"({', '.join(sorted(features)) or 'none'}) hold no {kind}."
        )
    raise ValueError(
        f"{name} is no image classification set: it has several of the kind {kind}, "
        f"{', '.join(sorted(found))}, and does not say which is meant."
    )


def builder_names() -> list[str]:
    """Return the names of all sets that TensorFlow Datasets can prepare, without the network."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)
