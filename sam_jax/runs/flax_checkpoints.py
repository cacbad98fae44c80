"""Checkpoints that other Flax programs wrote, read as arrays by their names.

A folder is one of orbax, of a step or of all steps; a file ends in .safetensors, or is msgpack, as
`flax.serialization.to_bytes` writes it. Nothing here reads pickles.
"""

import hashlib
import pathlib
import re
from typing import Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp

from sam_jax import extras
from sam_jax.mistakes import UserMistake
from sam_jax.suggestions import did_you_mean
from sam_jax.typing import PyTree

# The names on the way to an array, such as ("params", "Dense_0", "kernel").
Arrays = dict[tuple[str, ...], np.ndarray]

_TREE = "_METADATA"  # the file by which orbax says what a tree holds


def read(path: pathlib.Path | str) -> Arrays:
    """Return all arrays of a checkpoint.

    Args:
      path: a folder of orbax, a file .safetensors, or a file of msgpack.

    Raises:
      UserMistake: there is nothing, or no checkpoint of these kinds.
    """
    path = pathlib.Path(path).absolute()
    if not path.exists():
        near = did_you_mean(str(path), [str(other) for other in path.parent.glob("*")])
        raise UserMistake(f"There is no checkpoint {path}.{near}")
    if path.is_dir():
        path = _folder_of_tree(path)
        read_tree = _read_orbax
    else:
        read_tree = _read_safetensors if path.suffix == ".safetensors" else _read_msgpack
    try:
        tree = read_tree(path)
    except extras.MissingExtra as error:
        raise UserMistake(str(error)) from error
    except Exception as error:  # of three libraries, each with errors of its own
        first = str(error).split("\n")[0]
        raise UserMistake(
            f"{path} cannot be read as a checkpoint: it is damaged, or neither a folder of orbax, "
            f"nor .safetensors, nor msgpack of Flax ({type(error).__name__}: {first})."
        ) from error
    found = by_names(tree) if isinstance(tree, dict | list) else {}
    if not found:
        raise UserMistake(f"The checkpoint {path} holds no arrays.")
    return found


def by_names(tree: PyTree) -> dict[tuple[str, ...], Any]:
    """Return the leaves of a pytree by the names of the way to them.

    The "value" of a variable of NNX, or of a box of linen, has the name of the variable.

    >>> by_names({"dense": {"kernel": 1.0}, "layers": [2.0]})
    {('dense', 'kernel'): 1.0, ('layers', '0'): 2.0}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_names(path): leaf for path, leaf in leaves if not isinstance(leaf, str | bytes)}


def digest(arrays: Arrays) -> str:
    """Return a short name of arrays, the same wherever and in whatever format they are kept.

    >>> digest({("w",): np.zeros(2)}) == digest({("v",): np.zeros(2)})
    False
    """
    found = hashlib.sha256()
    for names, array in sorted(arrays.items()):
        array = np.asarray(array)
        found.update(repr((names, str(array.dtype), array.shape)).encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    parts = []
    for key in path:
        name = next((getattr(key, k) for k in ("key", "idx", "name") if hasattr(key, k)), key)
        parts.append(str(name))
    return tuple(parts[:-1] if len(parts) > 1 and parts[-1] == "value" else parts)


def _folder_of_tree(path: pathlib.Path) -> pathlib.Path:
    """Return the folder in which orbax keeps a tree: this one, its last step, or its only item."""
    if (path / _TREE).is_file():
        return path
    inside = [folder for folder in path.iterdir() if folder.is_dir()]
    steps = [folder for folder in inside if folder.name.isdigit()]
    if steps:
        return _folder_of_tree(max(steps, key=lambda folder: int(folder.name)))
    trees = sorted(folder.name for folder in inside if (folder / _TREE).is_file())
    if len(trees) == 1:
        return path / trees[0]
    if trees:
        raise UserMistake(f"{path} holds the trees {', '.join(trees)}; give the path of one.")
    raise UserMistake(
        f"{path} holds no checkpoint of orbax; give the folder of one, or a file .safetensors or "
        "msgpack."
    )


def _read_orbax(path: pathlib.Path) -> PyTree:
    # As NumPy arrays: the devices that wrote it need not be here.
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        found: Any = checkpointer.metadata(path)
        found = getattr(found, "item_metadata", found)  # which older versions return itself
        each = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), found.tree)
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=each))


def _read_msgpack(path: pathlib.Path) -> PyTree:
    return flax.serialization.msgpack_restore(path.read_bytes())


def _read_safetensors(path: pathlib.Path) -> PyTree:
    extras.needs("A checkpoint in safetensors", "safetensors", "safetensors")
    from safetensors.flax import load_file

    tree: dict[str, Any] = {}
    for name, array in load_file(path).items():
        *groups, last = re.split(r"[./]", name)
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = array
    return tree
