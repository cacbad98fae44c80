"""Every random number of a run derives from the config's seed, a named stream and a count."""

import zlib

import jax

from sam_jax.typing import Key


def stream(key: Key, name: str) -> Key:
    """Return the key of a named stream, so that adding a stream leaves the others as they are.

    Args:
      key: the key of the run, `jax.random.key(seed)`.
      name: for example "parameters", "order" or "augmentation".

    Returns:
      A typed key.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
