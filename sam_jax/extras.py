"""Which extra of sam_jax brings a missing package.

The core (`sam_jax`, `sam_jax.optim`, `sam_jax.metrics`) needs JAX, optax and NumPy alone. Every
other room says in its `__init__.py` what more it needs.
"""

import importlib.util


class MissingExtra(ModuleNotFoundError):
    """Packages are missing, and an extra of sam_jax brings them."""


def needs(who: str, extra: str, *packages: str) -> None:
    """Raise an error that names the extra to install, where a package is missing.

    Args:
      who: what needs the packages, the subject of the sentence.
      extra: the extra of sam_jax that brings them.
      *packages: the names under which they are imported.

    Raises:
      MissingExtra: if one of them is not installed.

    >>> needs("It", "lab", "numpy")
    >>> needs("It", "lab", "numpy", "no_such_package")
    Traceback (most recent call last):
    sam_jax.extras.MissingExtra: It needs no_such_package; run `pip install "sam_jax[lab]"`.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f'{who} needs {", ".join(missing)}; run `pip install "sam_jax[{extra}]"`.',
            name=missing[0],
        )
