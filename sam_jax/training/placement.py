"""Where a training's arrays lie: the mesh, the shares of a batch, and how the state is split."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam_jax import pytree
from sam_jax.runs import mesh_axes
from sam_jax.runs.fields import check_value, one_of
from sam_jax.training.device_data import device_mesh, everywhere, replicated
from sam_jax.training.step import DEVICES
from sam_jax.typing import PyTree

FORMS = ("auto", "shard_map", "jit")
# Smaller leaves lie whole on every device: they take no memory, and a message costs more.
NUMBERS_OF_A_SPLIT_LEAF = 2**12


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices of a training and what lies where; a part of what its program depends on.

    Attributes:
      axes: names and sizes of the axes of devices.
      split_parameters: the axes that parameters are split over, with all arrays of their shapes.
      form: of the compiled step: "shard_map" or "jit".
    """

    axes: tuple[tuple[str, int], ...]
    split_parameters: tuple[str, ...]
    form: str

    @property
    def mesh(self) -> Mesh:
        """The mesh of all devices; of the form shard_map it has the one axis `DEVICES`."""
        return device_mesh() if self.form == "shard_map" else _mesh(self.axes)

    @property
    def batch_axes(self) -> tuple[str, ...]:
        """The axes of the mesh that a batch is split over."""
        if self.form == "shard_map":
            return (DEVICES,)
        return mesh_axes.batch_axes([name for name, _ in self.axes])

    @property
    def share_count(self) -> int:
        """The number of shares of a batch."""
        return mesh_axes.share_count(dict(self.axes))

    @property
    def batches(self) -> NamedSharding:
        """How the batches of many steps lie, [steps, batch, ...]."""
        return NamedSharding(self.mesh, PartitionSpec(None, self.batch_axes))

    @property
    def batch(self) -> NamedSharding:
        """How one batch lies, [batch, ...]."""
        return NamedSharding(self.mesh, PartitionSpec(self.batch_axes))

    def shardings(self, tree: PyTree) -> PyTree:
        """Return how the leaves of a state lie, from their shapes alone."""
        sizes = {name: size for name, size in self.axes if name in self.split_parameters}

        def of(leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
            if self.form == "shard_map":
                return replicated()
            spec = PartitionSpec() if pytree.is_key(leaf) else spec_of(leaf.shape, sizes)
            return NamedSharding(self.mesh, spec)

        return jax.tree.map(of, tree)

    def laid_out(self, make: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Return a function whose result, a state, lies as it should.

        Where the state is split every device makes its own part, and none has the whole.
        """

        def lay(*arguments: Any) -> PyTree:
            if self.form == "shard_map":
                return everywhere(make(*arguments))
            shardings = self.shardings(jax.eval_shape(make, *arguments))
            return jax.jit(make, out_shardings=shardings)(*arguments)

        return lay


def spec_of(shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    """Return how an array is split over some axes of devices.

    Each axis of devices in its turn splits the longest axis of what a device then holds, among
    those that it divides; of equal ones the last. Small arrays stay whole.

    Args:
      shape: of the array.
      sizes: of the axes of devices, by name.

    >>> tuple(spec_of((3, 3, 64, 128), {"data": 8, "model": 2}))
    (None, None, 'model', 'data')
    >>> tuple(spec_of((64, 10), {"data": 8}))
    ()
    """
    if math.prod(shape) < NUMBERS_OF_A_SPLIT_LEAF:
        return PartitionSpec()
    left = list(shape)
    names: list[tuple[str, ...]] = [() for _ in shape]
    for name, size in sizes.items():
        divided = [place for place, length in enumerate(left) if size > 1 and length % size == 0]
        if divided:
            place = max(divided, key=lambda place: (left[place], place))
            left[place] //= size
            names[place] = (*names[place], name)
    return PartitionSpec(*(entry[0] if len(entry) == 1 else entry or None for entry in names))


def placement_of(config: ml_collections.ConfigDict) -> Placement:
    """Return the placement of a config on the devices that JAX sees here.

    Raises:
      ValueError: mesh, split_parameters or step_form cannot be had, or the batch cannot be split.
    """
    axes = mesh_axes.mesh_axes(config.mesh, jax.device_count())
    split = tuple(config.split_parameters)
    for name in split:
        check_value("split_parameters", name, one_of(axes))
    check_value("step_form", config.step_form, one_of(FORMS))
    shares = mesh_axes.share_count(axes)
    if config.batch_size % shares:
        raise ValueError(
            f"batch_size = {config.batch_size} cannot be split over {shares} devices; choose a "
            f"multiple of {shares}."
        )
    splits = any(axes[name] > 1 for name in split)
    is_whole = not splits and axes.get(mesh_axes.MODEL, 1) == 1
    if config.step_form == "shard_map" and not is_whole:
        raise ValueError(
            "step_form = 'shard_map' keeps all parameters whole on every device and splits the "
            f"batch over all of them, but mesh = {config.mesh!r} and split_parameters = {split!r}: "
            "choose step_form = 'auto'."
        )
    form = config.step_form
    # Eight CPU devices on two cores, batch 256, ms of processor time a step of SAM. The small
    # convolutional net: shard_map 14.2 (a perturbation for each device) and 18.5 (one for all), jit
    # 14.8 and 17.5, with split parameters 15.0 and 18.5. Three dense layers of 512: shard_map 54.8
    # and 63.0, jit 55.0 and 88.2, with split parameters 56.9 and 48.3.
    if form == "auto":
        form = "shard_map" if is_whole else "jit"
    return Placement(tuple(axes.items()), split, form)


@functools.lru_cache(maxsize=8)
def _mesh(axes: tuple[tuple[str, int], ...]) -> Mesh:
    """Return the devices in JAX's order, as the meshes of the other rooms have them."""
    names, sizes = zip(*axes, strict=True)
    return Mesh(np.array(jax.devices()).reshape(sizes), names)
