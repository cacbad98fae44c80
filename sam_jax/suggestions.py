"""What an error says about a name that is none: the nearest valid ones."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str], most: int = 1) -> str:
    """Return a question with the nearest valid names, to follow a sentence; empty for none.

    Args:
      name: what was given.
      names: the valid ones.
      most: how many are named at most.

    >>> did_you_mean("cifr10", ["cifar10", "cifar100", "mnist"], most=2)
    " Did you mean 'cifar10' or 'cifar100'?"
    >>> did_you_mean("zzz", ["mnist"])
    ''
    """
    names = sorted(set(names))
    near = [] if name in names else difflib.get_close_matches(str(name), names, n=most)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
