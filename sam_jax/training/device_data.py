"""A data set on the devices, and the compiled calls that an epoch of it takes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam_jax import data, pytree
from sam_jax.training.step import DEVICES, StepMetrics, TrainState
from sam_jax.typing import Key, PyTree

RunSteps = Callable[..., tuple[TrainState, StepMetrics]]


class DeviceData(NamedTuple):
    """A data set on the devices, as uint8 images and int32 labels.

    Of a set that is streamed these are `data.StreamedColumn`, which only look like arrays.
    """

    train_images: jax.Array
    train_labels: jax.Array
    test_images: jax.Array
    test_labels: jax.Array
    validation_images: jax.Array | None = None  # None where no examples are held out
    validation_labels: jax.Array | None = None
    # Where the training labels are noisy: the images, and [n, 2] the given and the true labels.
    train_pairs: tuple[jax.Array, jax.Array] | None = None


def on_devices(
    train: Any, test: Any, validation: Any = None, train_pairs: Any = None
) -> DeviceData:
    """Return splits on all devices; those that are streamed stay where they are.

    Args:
      train: the training set.
      test: the test set.
      validation: the held-out examples; None for none.
      train_pairs: the training set with pairs of labels, of `data.with_label_noise`.
    """
    splits = [train, test] if validation is None else [train, test, validation]
    arrays = [column for split in splits for column in (split.images, split.labels)]
    if isinstance(train, data.StreamedSplit):
        pairs = None if train_pairs is None else (train_pairs.images, train_pairs.labels)
        return DeviceData(*arrays)._replace(train_pairs=pairs)
    found = DeviceData(*everywhere(arrays))
    if train_pairs is None:
        return found
    pairs = everywhere(train_pairs.labels)
    return found._replace(train_pairs=(found.train_images, pairs))


def device_mesh() -> Mesh:
    """Return all devices along the one axis of a training."""
    return Mesh(np.array(jax.devices()), (DEVICES,))


def replicated() -> NamedSharding:
    """Return the sharding of the state and the data, which lie whole on every device.

    Every call of `run_steps` gets a state with this sharding, so JAX compiles it once, also after a
    resume.
    """
    return NamedSharding(device_mesh(), PartitionSpec())


def everywhere(tree: PyTree) -> PyTree:
    """Return arrays whole on every device of all processes, which give the same; typed keys, too.

    Args:
      tree: arrays of this process, or of all.
    """
    # JAX puts no typed key on the devices of other processes.
    data = jax.tree.map(lambda x: jax.random.key_data(x) if pytree.is_key(x) else x, tree)
    put = jax.device_put(data, replicated())
    return jax.tree.map(
        lambda like, x: (
            jax.random.wrap_key_data(x, impl=jax.random.key_impl(like))
            if pytree.is_key(like)
            else x
        ),
        tree,
        put,
    )


def epoch_calls(
    run_steps: RunSteps,
    run_streamed_steps: RunSteps,
    data_set: DeviceData,
    order: jax.Array,
    steps_per_call: int,
    *,
    key: Key,
    first_step: int,
    sharding: NamedSharding,
) -> Iterator[tuple[RunSteps, tuple[jax.Array, ...]]]:
    """Yield the compiled calls of an epoch: the function, and its images, labels and order.

    Args:
      run_steps: compiled for a set that lies on the devices.
      run_streamed_steps: compiled for one that is streamed.
      data_set: the data set.
      order: as from `order_after_previous`, [1 + steps, batch_size].
      steps_per_call: steps of one call; zero for all.
      key: of the crops of a set that is cropped when it is read.
      first_step: the number of the first step of the epoch.
      sharding: of batches that are streamed, [steps, batch].
    """
    images, labels = data_set.train_images, data_set.train_labels
    if isinstance(images, data.StreamedColumn):
        blocks = data.training_blocks(
            images.split, order, steps_per_call, sharding, key=key, first_step=first_step
        )
        yield from ((run_streamed_steps, block) for block in blocks)
        return
    steps_per_epoch = len(order) - 1
    steps = steps_per_call or steps_per_epoch
    if steps >= steps_per_epoch:  # without a slice, which is a call of its own
        yield run_steps, (images, labels, order)
        return
    for start in range(0, steps_per_epoch, steps):
        yield run_steps, (images, labels, order[start : start + 1 + steps])
