"""Build the pages of the public names from their docstrings: python .ci/api_pages.py FOLDER.

pdoc, of the extra `test`, writes them. Of a room that exports names there is one page with these
names; of the others, a page a module.
"""

import importlib
import pathlib
import pkgutil
import sys
import types

import pdoc

import sam_jax


def main(folder: pathlib.Path) -> None:
    """Write the pages of every room of the package."""
    rooms = [info.name for info in pkgutil.iter_modules(sam_jax.__path__) if info.ispkg]
    hidden = []  # where a room exports names, its files
    for name in rooms:
        room = importlib.import_module(f"sam_jax.{name}")
        if names := exported(room):
            room.__all__ = names
            hidden.append(rf"!sam_jax\.{name}\.")
    sam_jax.__all__ = [*exported(sam_jax), *rooms]
    pdoc.render.configure(docformat="google", math=True)
    pdoc.pdoc("sam_jax", *hidden, output_directory=folder)


def exported(room: types.ModuleType) -> list[str]:
    """Return the functions, classes and constants that a room has for users."""
    return [
        name
        for name, thing in vars(room).items()
        if name.isupper()
        or (
            not name.startswith("_") and callable(thing) and thing.__module__.startswith("sam_jax.")
        )
    ]


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
