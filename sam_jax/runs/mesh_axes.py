"""The axes of devices that a config names, and the shares that they cut a batch into."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MODEL = "model"  # the one name with a meaning: this axis does not split the batch


def mesh_axes(mesh: Sequence[Any], devices: int) -> dict[str, int]:
    """Return the sizes of the axes of a mesh by their names.

    Args:
      mesh: the field `mesh` of a config, pairs of a name and a size. One size may be -1, which
        stands for what the others leave of the devices.
      devices: over all processes.

    Raises:
      ValueError: it holds something else, or its axes do not take all devices.

    >>> mesh_axes((("data", -1), ("model", 2)), 8)
    {'data': 4, 'model': 2}
    """
    try:
        names, sizes = [name for name, _ in mesh], [size for _, size in mesh]
    except (TypeError, ValueError):
        names, sizes = [], []
    whole = all(isinstance(size, int) and (size == -1 or size > 0) for size in sizes)
    named = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
    if not names or not whole or not named or sizes.count(-1) > 1:
        raise ValueError(
            'mesh must hold pairs of a name and a size, such as (("data", -1), ("model", 1)): each '
            "name once, sizes positive, and at most one of them -1 for the devices that are left; "
            f"got {mesh!r}."
        )
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and devices % known == 0:
        sizes = [devices // known if size == -1 else size for size in sizes]
    if math.prod(sizes) != devices:
        raise ValueError(
            f"The axes of mesh = {mesh!r} do not take the {devices} devices here; choose sizes "
            f"whose product is {devices}, or -1 for one of them."
        )
    return dict(zip(names, sizes, strict=True))


def batch_axes(names: Sequence[str]) -> tuple[str, ...]:
    """Return the axes that split the batch: all but `MODEL`."""
    return tuple(name for name in names if name != MODEL)


def share_count(axes: Mapping[str, int]) -> int:
    """Return the number of shares that a batch is cut into: the devices of its axes."""
    return math.prod(axes[name] for name in batch_axes(tuple(axes)))
