"""Sets that do not fit on a device: read from disk when needed, in the order that is asked for.

Whoever asks decides the order. So a streamed training sees the same batches as one with the set in
memory. A resumed training goes on with the next batches.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sam_jax.data.checks import check_whole
from sam_jax.data.splits import Examples, Split
from sam_jax.draws import check_key
from sam_jax.suggestions import did_you_mean
from sam_jax.typing import Key, PyTree

STREAMING = ("auto", "never", "always")
DEVICE_SHARE = 4  # "auto" keeps a set on the device up to a quarter of its memory
UNKNOWN_DEVICE_LIMIT = 2**32  # bytes, for devices that do not tell their memory, as CPUs
THREADS = 4  # that read batches
Relabel = Callable[[np.ndarray, np.ndarray], np.ndarray]
BLOCK_BYTES = 2**28  # of images that are read, and put on the devices, at a time


def is_streamed(streaming: str, size: int) -> bool:
    """Say whether a set is streamed.

    Args:
      streaming: "always", "never", or "auto": where the set takes more than a quarter of a device's
        memory, or than 4 GiB where the device does not tell. It lies whole on every device.
      size: of all images, in bytes.
    """
    if streaming not in STREAMING:
        raise ValueError(
            f"streaming must be one of {', '.join(STREAMING)}, got {streaming!r}."
            f"{did_you_mean(str(streaming), STREAMING)}"
        )
    return streaming == "always" or (streaming == "auto" and size > device_limit())


def device_limit() -> int:
    """Return the bytes up to which "auto" keeps a set on the devices of this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    limits = [s["bytes_limit"] // DEVICE_SHARE for s in stats if "bytes_limit" in s]
    return min(limits, default=UNKNOWN_DEVICE_LIMIT)


class StreamedSplit:
    """A split that stays where it is; `images` and `labels` stand in the place of arrays."""

    def __init__(
        self,
        examples: Examples,
        image_shape: tuple[int, int, int],
        rows: np.ndarray,
        relabel: Relabel | None = None,
    ) -> None:
        """Wrap examples; nothing is read yet.

        Args:
          examples: the data source, read by several threads at once.
          image_shape: height, width and channels.
          rows: the places of those that make up the split.
          relabel: (places in the split, their labels) -> the labels to give in their stead.
        """
        self._examples, self._rows, self.image_shape = examples, rows, image_shape
        self._relabel = relabel

    @property
    def images(self) -> "StreamedColumn":
        """The images, uint8 [n, height, width, channels]."""
        return StreamedColumn(self, 0, self.image_shape)

    @property
    def labels(self) -> "StreamedColumn":
        """The labels, int32 [n]."""
        return StreamedColumn(self, 1, ())

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: np.ndarray, seeds: np.ndarray | None = None) -> Split:
        """Return the examples at some places, in their order; `seeds` as in `batches`."""
        found = self._examples.read(self._rows[rows], self.image_shape, seeds)
        if self._relabel is None:
            return found
        return found._replace(labels=self._relabel(rows, found.labels))

    def relabelled(self, relabel: Relabel) -> "StreamedSplit":
        """Return the same examples with other labels."""
        return StreamedSplit(self._examples, self.image_shape, self._rows, relabel)

    def batches(
        self, rows: np.ndarray, batch_size: int, seeds: np.ndarray | None = None
    ) -> Iterator[Split]:
        """Yield examples in the order given, batch after batch; threads read a block ahead.

        Args:
          rows: [n] places in the split.
          batch_size: of a batch; the last may be smaller.
          seeds: [n, k] uint32, as from `example_seeds`; None where nothing is drawn at random.
        """
        import grain  # slow to import, and only needed here

        # A whole batch is one element: reading it at once is ten times as fast as one by one.
        ahead = max(1, self.examples_in_a_block() // batch_size)
        options = grain.ReadOptions(num_threads=min(THREADS, ahead), prefetch_buffer_size=ahead)
        batches = grain.MapDataset.source(_Batches(self, rows, batch_size, seeds))
        return iter(batches.to_iter_dataset(options))

    def examples_in_a_block(self) -> int:
        """Return how many images are read at a time."""
        return max(1, BLOCK_BYTES // math.prod(self.image_shape))


class StreamedColumn:
    """The images or the labels of a streamed split; indexing reads the examples asked for."""

    def __init__(self, split: StreamedSplit, position: int, shape: tuple[int, ...]) -> None:
        """Stand for the images (position 0) or the labels (1) of a split."""
        self.split, self._position = split, position
        self.shape = (len(split), *shape)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return what an array of the same shape returns for a slice or an array of places."""
        index = index if isinstance(index, slice) else np.asarray(index)
        rows = np.arange(len(self))[index]
        found = self.split.read(rows.reshape(-1))[self._position]
        return found.reshape(rows.shape + self.shape[1:])


def _refuse(column: StreamedColumn) -> Any:
    raise ValueError(
        f"This needs all {len(column)} examples on the device at once, and the set is streamed "
        "from disk (data.streaming in the config). Leave it out, as by --measures=evaluation,"
        "adversarial_sharpness,average_sharpness, or train on a part of the set that fits "
        "(data.train_examples)."
    )


# jit takes its arguments apart as pytrees, so every compiled function that gets a streamed set in
# place of an array raises a clear error.
jax.tree_util.register_pytree_node(StreamedColumn, _refuse, lambda _, leaves: leaves)


class _Batches(Sequence[Split]):
    """The batches of an order by their number, as grain takes them."""

    def __init__(
        self, split: StreamedSplit, rows: np.ndarray, batch_size: int, seeds: np.ndarray | None
    ) -> None:
        self._split, self._rows, self._batch_size, self._seeds = split, rows, batch_size, seeds

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, number: int) -> Split:
        batch = slice(number * self._batch_size, (number + 1) * self._batch_size)
        seeds = None if self._seeds is None else self._seeds[batch]
        return self._split.read(self._rows[batch], seeds)


def training_blocks(
    split: StreamedSplit,
    order: jax.Array,
    steps: int,
    sharding: NamedSharding,
    *,
    key: Key | None = None,
    first_step: int = 0,
) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """Yield the batches of an epoch, many steps at a time, on the devices that work on them.

    Every process reads the shares of its own devices alone, and while the devices work on a block
    its threads read the next one.

    Args:
      split: the training set.
      order: [1 + n, batch] the examples of the step before the first, and of each of n steps.
      steps: in one block; 0 for what `BLOCK_BYTES` holds. The last block may be smaller.
      sharding: of arrays [steps, batch], which splits the second axis over the devices.
      key: of what is drawn at random about an example when it is read, such as its crop. It depends
        on the step and on the place in the batch, and not on devices, processes or blocks. None
        where nothing is drawn.
      first_step: the number of the second row of `order`, counted from the start of the training.

    Returns:
      An iterator over blocks: their images [1 + steps, batch, H, W, C], labels [1 + steps, batch]
      and order [1 + steps, batch]. Their first batch is the last one of the block before.

    >>> from sam_jax.data.splits import InMemory
    >>> examples = InMemory(np.zeros((4, 1, 1, 1), np.uint8), np.arange(4, dtype=np.int32))
    >>> split = StreamedSplit(examples, (1, 1, 1), np.arange(4))
    >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    >>> order = jnp.array([[0, 1], [0, 1], [3, 2]])  # two steps, and the one before them
    >>> sharding = NamedSharding(mesh, PartitionSpec(None, "data"))
    >>> blocks = training_blocks(split, order, steps=1, sharding=sharding)
    >>> [labels.tolist() for _, labels, _ in blocks]
    [[[0, 1], [0, 1]], [[0, 1], [3, 2]]]
    """
    if np.ndim(order) != 2 or order.shape[0] < 1:
        raise ValueError(
            "order must have the shape [1 + n, batch], the batch before the first and n of an "
            f"epoch; got {np.shape(order)}."
        )
    check_whole("steps", steps)
    check_whole("first_step", first_step)
    if key is not None:
        check_key(key)
    total, batch_size = order.shape[0] - 1, order.shape[1]
    steps = steps or max(1, split.examples_in_a_block() // batch_size)
    columns = local_columns(sharding, batch_size)
    seeds = None
    if key is not None:
        numbers = np.maximum(first_step - 1 + np.arange(1 + total), 0)  # the first is no other's
        seeds = example_seeds(key, numbers, columns).reshape(len(columns) * (1 + total), -1)
    batches = split.batches(np.asarray(order)[:, columns].reshape(-1), len(columns), seeds)
    before = next(batches)
    for start in range(0, total, steps):
        block = [before, *itertools.islice(batches, min(steps, total - start))]
        before = block[-1]
        images, labels = (
            _on_devices(np.stack(x), columns, batch_size, sharding)
            for x in zip(*block, strict=True)
        )
        yield images, labels, order[start : start + len(block)]


def example_seeds(key: Key, steps: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return a seed for each example of some steps.

    Args:
      key: a typed key.
      steps: [s] numbers of steps.
      columns: [b] places in the batch over all processes.

    Returns:
      uint32 [s, b, k]: the words of the key, the step and the place, for
      `np.random.RandomState`.
    """
    words = np.asarray(jax.random.key_data(key), np.uint32).reshape(-1)
    parts = [*words, steps[:, None], columns]
    return np.stack(np.broadcast_arrays(*parts), axis=-1).astype(np.uint32)


def mean_over_blocks(
    mean: Callable[..., PyTree],
    columns: Sequence[jax.Array | StreamedColumn | None],
    batch_size: int,
    sharding: NamedSharding,
) -> PyTree:
    """Return a mean over a set, of a streamed one as the mean over its blocks.

    Of a block every process reads the shares of its own devices alone; they lie whole on each
    device once all are read.

    Args:
      mean: (images, labels) -> a pytree of means over these examples.
      columns: the images and the labels, as arrays or of a streamed split.
      batch_size: blocks have a multiple of so many examples, but for the last.
      sharding: of a block on the devices, whole on each of a mesh.

    Returns:
      What `mean` returns of arrays; of a streamed split the average over blocks by their numbers of
      examples, summed in float64 on the host.

    >>> from sam_jax.data.splits import InMemory
    >>> examples = InMemory(np.zeros((4, 1, 1, 1), np.uint8), np.arange(4, dtype=np.int32))
    >>> split = StreamedSplit(examples, (1, 1, 1), np.arange(4))
    >>> whole = NamedSharding(jax.sharding.Mesh(jax.devices()[:1], ("data",)), PartitionSpec())
    >>> mean_label = lambda images, labels: jnp.mean(labels, dtype=jnp.float32)
    >>> print(mean_over_blocks(mean_label, (split.images, split.labels), 2, whole))
    1.5
    """
    if len(columns) != 2:
        raise ValueError(f"columns must be the images and the labels, got {len(columns)} of them.")
    check_whole("batch_size", batch_size, 1)
    images, labels = columns
    if not isinstance(images, StreamedColumn):
        return mean(images, labels)
    total: Any = None
    part: Any = None
    for block in _whole_blocks(images.split, batch_size, sharding):
        share = len(block[1]) / len(images)
        part = mean(*block)
        weighted = jax.tree.map(lambda x, share=share: share * np.asarray(x, np.float64), part)
        total = weighted if total is None else jax.tree.map(np.add, total, weighted)
    return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), total, part)


def _whole_blocks(
    split: StreamedSplit, batch_size: int, whole: NamedSharding
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yield images and labels in order, in blocks of whole batches but for the last."""
    batches = max(1, split.examples_in_a_block() // batch_size)
    per_block = min(batches * batch_size, len(split))
    sharding = NamedSharding(whole.mesh, PartitionSpec(None, whole.mesh.axis_names))
    full, rest = divmod(len(split), per_block)
    for first, count, blocks in ((0, per_block, full), (full * per_block, rest, 1)):
        if not count:
            continue
        size = count + -count % whole.mesh.size
        columns = local_columns(sharding, size)
        starts = first + per_block * np.arange(blocks)[:, None]
        rows = starts + np.minimum(columns, count - 1)  # the last example fills up
        for part in split.batches(rows.reshape(-1), len(columns)):
            shares = (_on_devices(x[None], columns, size, sharding) for x in part)
            images, labels = (_joined(x, count, whole) for x in shares)
            yield images, labels


@functools.partial(jax.jit, static_argnames=("count", "whole"))
def _joined(shares: jax.Array, count: int, whole: NamedSharding) -> jax.Array:
    """Return the first examples of [1, n, ...] whole on every device."""
    return jax.lax.with_sharding_constraint(shares[0, :count], whole)


def local_columns(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """Return the columns of a [steps, batch] array that lie on the devices of this process."""
    indices = sharding.addressable_devices_indices_map((1, batch_size)).values()
    found = [np.arange(batch_size)[columns] for _, columns in filter(None, indices)]
    return np.unique(np.concatenate(found))


def _on_devices(
    local: np.ndarray, columns: np.ndarray, batch_size: int, sharding: NamedSharding
) -> jax.Array:
    """Return the array of all processes; `local` holds the columns of this process."""

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        wanted = np.arange(batch_size)[index[1]]
        return local[:, np.searchsorted(columns, wanted)]

    shape = (local.shape[0], batch_size, *local.shape[2:])
    return jax.make_array_from_callback(shape, sharding, shard)
