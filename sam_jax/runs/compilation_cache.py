"""JAX's cache of compiled programs on disk, which every command turns on."""

import os
import pathlib
import tempfile
from typing import Any

import jax
from absl import logging

# JAX's own settings; where the environment has a variable of the name, it holds.
SETTINGS = {
    "jax_compilation_cache_max_size": 2 * 1024**3,  # bytes; the least recently used go first
    # Writing an entry takes up to 0.1 s beside a thousand others, whose ages are read each time.
    "jax_persistent_cache_min_compile_time_secs": 0.2,
}


def turn_on() -> None:
    """Keep compiled programs on disk, so that no later command compiles them again.

    The folder is `default_folder()`. Whoever chose one by JAX_COMPILATION_CACHE_DIR, or turned the
    cache off by JAX_ENABLE_COMPILATION_CACHE=false, keeps that. JAX finds a program by all that it
    depends on: its operations, its devices, the flags of XLA and the version of jaxlib. A folder
    that cannot be written is a warning, and the command works without a cache. Call it before
    anything is compiled.
    """
    settings: Any = jax.config  # whose fields are made as JAX is imported
    chosen = settings.jax_compilation_cache_dir is not None
    if chosen or not settings.jax_enable_compilation_cache:
        return
    folder = default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        logging.warning(
            "Compiled programs are not kept, because %s cannot be written (%s). Set "
            "JAX_COMPILATION_CACHE_DIR to a folder that can.",
            folder,
            error,
        )
        return
    for name, value in SETTINGS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    jax.config.update("jax_compilation_cache_dir", str(folder))


def default_folder() -> pathlib.Path:
    """Return where compiled programs are kept: a folder in the user's folder of caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
    return pathlib.Path(caches) / "sam_jax" / "compiled_programs"
