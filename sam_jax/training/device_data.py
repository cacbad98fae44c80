"""A data set on the devices, and the compiled calls that an epoch of it takes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam_jax import data, pytree
from sam_jax.training.step import DEVICES, StepMetrics, TrainState
from sam_jax.typing import Key, PyTree

# Of a call whose steps the config leaves open: a second or some on the devices that a net is meant
# for, so that signals are answered, and long beside the millisecond that a call costs.
IMAGES_PER_CALL = 4096

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
    skip: int = 0,
) -> Iterator[tuple[RunSteps, tuple[jax.Array, ...]]]:
    """Yield the compiled calls of an epoch: the function, and its images, labels and order.

    Args:
      run_steps: compiled for a set that lies on the devices.
      run_streamed_steps: compiled for one that is streamed.
      data_set: the data set.
      order: as from `order_after_previous`, [1 + steps, batch_size].
      steps_per_call: steps of one call; zero for all of a small set.
      key: of the crops of a set that is cropped when it is read.
      first_step: the number of the first step of the epoch.
      sharding: of batches that are streamed, [steps, batch].
      skip: the first steps of the epoch that were done before, in whole calls.
    """
    images, labels = data_set.train_images, data_set.train_labels
    steps_per_epoch, batch_size = len(order) - 1, order.shape[1]
    steps = steps_per_call or _steps_of_a_call(steps_per_epoch, batch_size)
    if isinstance(images, data.StreamedColumn):
        in_a_block = max(1, images.split.examples_in_a_block() // batch_size)
        blocks = data.training_blocks(
            images.split,
            order[skip:],
            steps_per_call or min(steps, in_a_block),
            sharding,
            key=key,
            first_step=first_step + skip,
        )
        yield from ((run_streamed_steps, block) for block in blocks)
        return
    if steps >= steps_per_epoch and not skip:  # without a slice, which is a call of its own
        yield run_steps, (images, labels, order)
        return
    for start in range(skip, steps_per_epoch, steps):
        yield run_steps, (images, labels, order[start : start + 1 + steps])


def _steps_of_a_call(steps_per_epoch: int, batch_size: int) -> int:
    """Return how many steps are compiled into one call.

    A number that divides those of an epoch, if one is near, so that one program serves all calls.

    >>> _steps_of_a_call(44, 32), _steps_of_a_call(468, 128), _steps_of_a_call(521, 128)
    (44, 26, 32)
    """
    most = max(1, IMAGES_PER_CALL // batch_size)
    if steps_per_epoch <= most:
        return steps_per_epoch
    near = range(most, most // 4, -1)
    return next((steps for steps in near if steps_per_epoch % steps == 0), most)
