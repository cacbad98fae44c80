"""Masks: which leaves are perturbed or rescaled, told by their paths and their kinds."""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sam_jax.optim.perturbations.common import last_name, without_value
from sam_jax.typing import Params, PyTree


def leaves_where(predicate: Callable[[str, Any], bool]) -> Callable[[Params], PyTree]:
    """Return the mask of the leaves for which a predicate of path and leaf holds.

    Args:
      predicate: (path, leaf) -> bool. The path holds the names from the outermost to the leaf's
        own with slashes between, such as "block_1/Dense_0/kernel"; places in lists are numbers.
        The leaf may be an abstract array, with a shape and a dtype.

    Returns:
      A function from params to booleans, for the `mask` of any method and for `rescaled` of `asam`.
      It raises a ValueError with the paths where no leaf is chosen.

    Example:
      >>> import jax.numpy as jnp, sam_jax
      >>> params = {"linear": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}}
      >>> sam_jax.leaves_where(lambda path, leaf: path.endswith("/w"))(params)
      {'linear': {'b': False, 'w': True}}
    """

    def mask(params: Params) -> PyTree:
        chosen = jax.tree.map_with_path(
            lambda path, leaf: bool(predicate(_joined(path), leaf)), params
        )
        if not any(jax.tree.leaves(chosen)):
            raise ValueError(
                f"The predicate of leaves_where chooses none of the leaves {_paths(params)}: it "
                "gets such a path and the leaf, and says whether that is chosen."
            )
        return chosen

    return mask


def not_biases(params: Params) -> PyTree:
    """Return the mask of the leaves that are not named "bias", by the last name of their paths."""
    return jax.tree.map_with_path(lambda path, _: last_name(path) != "bias", params)


# Classes whose leaves all belong to a normalisation layer.
_CLASSES = ("BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm")
# Names of what normalisation layers hold, also where that has more than one axis.
_NAMES = ("scale", "bias", "gamma", "beta", "offset")


def norm_layers(params: Params) -> PyTree:
    """Return the mask of the parameters of normalisation layers.

    The name of the layer that holds a leaf, the last name but one on its path, decides:

    - A normalisation layer has a word that ends in "norm" (BatchNorm_0, LayerNorm_1, final_norm,
      norm1) or that is "bn", "gn" or "ln" (bn1, ln_f).
    - WeightNorm and SpectralNorm do not count, because they rescale other layers.
    - A layer that holds a kernel does not count, such as a dense layer "pre_norm_block". A kernel
      is a leaf of several axes that is not called scale, bias, gamma, beta or offset.
    - The classes BatchNorm, GroupNorm, InstanceNorm, LayerNorm and RMSNorm tell by themselves: in
      the names that Flax makes of them, and in a tree of modules as in Equinox. The tree may hold
      them in a list, whose members have no names.

    Args:
      params: parameters of Flax linen, Flax NNX (`nnx.state(model, nnx.Param)`), Haiku, Equinox
        (`eqx.filter(model, eqx.is_inexact_array)`), or any nested dictionaries.

    Returns:
      Booleans with the structure of params, for the `mask` of a method. Where the names do not
      tell, `leaves_where` makes a mask of a predicate.

    Raises:
      ValueError: no parameter belongs to a normalisation layer.

    Example:
      >>> import jax.numpy as jnp, sam_jax
      >>> params = {"Conv_0": {"kernel": jnp.ones((3, 3, 1, 2))}, "BatchNorm_0": {"scale": 1.0}}
      >>> sam_jax.norm_layers(params)
      {'BatchNorm_0': {'scale': True}, 'Conv_0': {'kernel': False}}
    """
    with_kernel = {
        _layer(path) for path, leaf in jax.tree.leaves_with_path(params) if _is_kernel(path, leaf)
    }

    def mark(path: tuple, node: PyTree) -> PyTree:
        layer = _layer(path)
        name = jax.tree_util.keystr(layer[-1:], simple=True).rpartition("/")[2]
        is_certain = _is_norm_class(node) or re.sub(r"_\d+$", "", name) in _CLASSES
        is_norm = is_certain or (layer not in with_kernel and _is_norm_name(name))
        return jax.tree.map(lambda _: is_norm, node)

    mask = jax.tree.map_with_path(mark, params, is_leaf=_is_norm_class)
    if not any(jax.tree.leaves(mask)):
        raise ValueError(
            'No parameter belongs to a normalisation layer, by a name such as "BatchNorm_0", '
            f'"norm1" or "ln_f", among {_paths(params)}. Give mask, booleans with the structure of '
            "the parameters or sam_jax.leaves_where(lambda path, leaf: ...), to say which do."
        )
    return mask


def _layer(path: tuple) -> tuple:
    """Return the path of the layer that holds a leaf."""
    return without_value(path)[:-1]


def _is_kernel(path: tuple, leaf: Any) -> bool:
    return np.ndim(leaf) > 1 and last_name(path) not in _NAMES


def _is_norm_class(node: Any) -> bool:
    return type(node).__name__ in _CLASSES


def _is_norm_name(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    if re.search("weightnorm|spectralnorm", "".join(words)):
        return False
    return any(word.endswith("norm") or word in ("bn", "gn", "ln") for word in words)


def _joined(path: tuple) -> str:
    return jax.tree_util.keystr(without_value(path), simple=True, separator="/")


def _paths(params: Params) -> list[str]:
    """Return the first paths, for an error."""
    return [_joined(path) for path, _ in jax.tree.leaves_with_path(params)][:20]
