"""What curves and ensembles are made of and evaluated on, checked before anything is compiled."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.runs import fields
from sam_jax.runs.fields import Fields
from sam_jax.training.trained import Trained
from sam_jax.typing import PyTree


def check_trained(name: str, value: Any) -> None:
    """Raise a ValueError unless a trained model is given, and not a part of one."""
    if not isinstance(value, Trained):
        raise ValueError(
            f"{name} must be a trained model, the second value of load_trained(workdir), got a "
            f"{type(value).__name__}."
        )


def check_settings(settings: Any, kind: type, table: Fields) -> None:
    """Raise a ValueError unless settings are of a kind, and each in its range."""
    if not isinstance(settings, kind):
        raise ValueError(
            f"settings must be of the type {kind.__name__}, such as {kind.__name__}(epochs=10), "
            f"got a {type(settings).__name__}."
        )
    fields.check(settings._asdict(), table, prefix="settings.")


def check_path(name: str, value: Any) -> None:
    """Raise a ValueError unless the path of a file or folder is given."""
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name} must be a path, such as 'runs/curve', got {value!r}.")


def check_stacked(name: str, stacked: Any, trained: Trained) -> None:
    """Raise a ValueError unless a tree is of some models of an architecture, stacked.

    Args:
      name: of the tree.
      stacked: leaves [n, ...], in the structure of the parameters of `trained`.
      trained: a model of the architecture.
    """
    wanted, found = (_shapes(tree) for tree in (trained.state.params, stacked))
    if wanted.keys() != found.keys():
        different = sorted(wanted.keys() ^ found.keys())
        raise ValueError(
            f"{name} must have the structure of the model's parameters; of {', '.join(different)} "
            "only one of them has something."
        )
    lengths = {shape[:1] for shape in found.values()}
    for path, shape in found.items():
        if shape[1:] != wanted[path] or len(lengths) > 1 or not shape[0]:
            raise ValueError(
                f"{name} must be models stacked along one new leading axis: {path} must have the "
                f"shape [n, {', '.join(map(str, wanted[path]))}] with one n of 1 or more, got "
                f"{list(shape)}."
            )


def check_images(images: Any, labels: Any) -> None:
    """Raise a ValueError unless images and labels of the same examples are given."""
    shapes = np.shape(images), np.shape(labels)
    whole = hasattr(labels, "dtype") and jnp.issubdtype(labels.dtype, jnp.integer)
    if getattr(images, "dtype", None) != jnp.uint8 or len(shapes[0]) != 4:
        what = getattr(images, "dtype", type(images).__name__)
        raise ValueError(
            f"images must be uint8 [m, H, W, C], before normalisation, got {what} {shapes[0]}."
        )
    if not whole or shapes[1] != shapes[0][:1] or not shapes[0][0]:
        what = getattr(labels, "dtype", type(labels).__name__)
        raise ValueError(
            f"labels must be integers [m], one for each of the m = {shapes[0][0]} images and m at "
            f"least 1, got {what} {shapes[1]}."
        )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the leaves by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/") or "the tree": np.shape(leaf)
        for path, leaf in leaves
    }
