"""Streamed sets hold what the same sets in memory hold, whoever asks for which part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam_jax import data
from sam_jax.data import prepared, streaming
from sam_jax.data.splits import InMemory

SHAPE = (3, 2, 1)


def split_of(examples, taken=None):
    """A streamed split whose image i is filled with i, and the places in it."""
    images = np.broadcast_to(np.arange(examples)[:, None, None, None], (examples, *SHAPE))
    held = InMemory(images.astype(np.uint8), np.arange(examples, dtype=np.int32) % 5)
    rows = np.arange(examples) if taken is None else np.asarray(taken)
    return streaming.StreamedSplit(held, SHAPE, rows), rows


def sharding_of(devices):
    return NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec(None, "devices"))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.data())
def test_batches_come_in_the_order_asked_for(examples, draw):
    taken = draw.draw(st.lists(st.integers(0, examples - 1), min_size=1, max_size=30))
    split, rows = split_of(examples, taken)
    asked = draw.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=50))
    batch_size = draw.draw(st.integers(1, 60))
    found = list(split.batches(np.array(asked), batch_size))
    assert [len(batch.labels) for batch in found[:-1]] == [batch_size] * (len(found) - 1)
    images, labels = (np.concatenate(x) for x in zip(*found, strict=True))
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(
        images, np.broadcast_to(rows[asked].reshape(-1, 1, 1, 1), images.shape)
    )
    np.testing.assert_array_equal(labels, rows[asked] % 5)


def whole_on(devices):
    return NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec())


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.devices)])
def test_means_are_of_the_whole_split_in_whole_batches(monkeypatch, count):
    """Three devices divide no block: their shares are filled up, and the filling is dropped."""
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 10 * 6)
    split, rows = split_of(23)
    columns, whole = (split.images, split.labels), whole_on(jax.devices()[:count])
    seen = []

    def mean(images, labels):
        assert images.sharding.is_equivalent_to(whole, images.ndim)
        seen.append(np.asarray(images)[:, 0, 0, 0])
        np.testing.assert_array_equal(labels, seen[-1] % 5)
        return labels.mean(dtype=jnp.float32)

    streaming.mean_over_blocks(mean, columns, 4, whole)
    assert [len(block) for block in seen] == [8, 8, 7]
    assert np.concatenate(seen).tolist() == rows.tolist()
    seen.clear()
    streaming.mean_over_blocks(mean, columns, 100, whole)
    assert [len(block) for block in seen] == [23]


def test_a_column_is_indexed_as_an_array():
    split, rows = split_of(9, [8, 2, 5, 5])
    assert split.images.shape == (4, *SHAPE) and split.labels.shape == (4,) == (len(split.labels),)
    places = jnp.array([[0, 3], [1, 1]])
    assert split.images[places].shape == (2, 2, *SHAPE)
    np.testing.assert_array_equal(split.images[places][..., 0, 0, 0], rows[np.asarray(places)])
    np.testing.assert_array_equal(split.labels[1:3], rows[1:3] % 5)
    assert split.labels[2] == 0 and split.labels[2].shape == ()


def test_a_compiled_function_says_that_it_cannot_take_a_streamed_set():
    split, _ = split_of(9)
    for arguments in ((split.images,), ({"images": split.images}, 1)):
        with pytest.raises(ValueError, match="all 9 examples on the device at once.*streamed"):
            jax.jit(lambda *x: 0)(*arguments)


def test_a_block_is_a_chunk_of_the_order_on_all_devices():
    split, _ = split_of(50)
    devices = jax.devices()
    batch_size = 2 * len(devices)
    order = np.random.RandomState(0).randint(0, 50, (1 + 7, batch_size))
    blocks = list(streaming.training_blocks(split, jnp.array(order), 3, sharding_of(devices)))
    assert [len(chunk) - 1 for _, _, chunk in blocks] == [3, 3, 1]
    for number, (images, labels, chunk) in enumerate(blocks):
        expected = order[3 * number : 3 * number + len(chunk)]
        np.testing.assert_array_equal(chunk, expected)
        np.testing.assert_array_equal(images[..., 0, 0, 0], expected)
        np.testing.assert_array_equal(labels, expected % 5)
        assert images.shape == (*expected.shape, *SHAPE)
        shards = {shard.device: np.asarray(shard.data) for shard in images.addressable_shards}
        for place, device in enumerate(devices):  # each has its share alone
            share = expected[:, 2 * place : 2 * place + 2]
            np.testing.assert_array_equal(shards[device][..., 0, 0, 0], share)


def test_as_many_steps_as_fit_a_block_are_read_at_a_time(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 100)
    split, _ = split_of(64)  # of 6 bytes each
    order = jnp.arange(64).reshape(8, 8)
    sizes = [
        len(x) - 1
        for *_, x in streaming.training_blocks(split, order, 0, sharding_of(jax.devices()[:1]))
    ]
    assert sizes == [2, 2, 2, 1]  # 100 // 6 // 8


class OfAProcess:
    """The sharding of two devices a process, as process `index` sees it."""

    def __init__(self, index, processes, batch_size):
        self.share = batch_size // (2 * processes)
        self.first = 2 * index

    def addressable_devices_indices_map(self, shape):
        places = (self.first, self.first + 1)
        return {i: (slice(None), slice(i * self.share, (i + 1) * self.share)) for i in places}


def test_each_process_reads_the_columns_of_its_own_devices():
    columns = [streaming.local_columns(OfAProcess(i, 3, 24), 24).tolist() for i in range(3)]
    assert columns == [list(range(8 * i, 8 * i + 8)) for i in range(3)]


def test_the_mean_over_blocks_is_that_over_the_set(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 8 * 6)
    split, rows = split_of(29)
    sharding = whole_on(jax.devices()[:1])

    def mean(images, labels):
        return {"image": images.astype(jnp.float32).mean(), "label": labels.mean(dtype=jnp.float32)}

    def over(columns):
        return streaming.mean_over_blocks(mean, columns, 4, sharding)

    streamed = over((split.images, split.labels))
    whole = over((jnp.asarray(split.images[:]), jnp.asarray(split.labels[:])))
    assert streamed["image"].dtype == jnp.float32
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), streamed, whole)
    np.testing.assert_allclose(streamed["label"], np.mean(rows % 5), rtol=1e-6)


def test_a_set_is_streamed_by_its_size(monkeypatch):
    limit = streaming.device_limit()
    assert not streaming.is_streamed("auto", limit) and streaming.is_streamed("auto", limit + 1)
    assert streaming.is_streamed("always", 1) and not streaming.is_streamed("never", limit + 1)
    with pytest.raises(ValueError, match="one of auto, never, always, got 'sometimes'"):
        streaming.is_streamed("sometimes", 1)

    class Device:
        def __init__(self, limit):
            self.limit = limit

        def memory_stats(self):
            return self.limit and {"bytes_limit": self.limit}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(800), Device(400)])
    assert streaming.device_limit() == 100  # a quarter of the smaller
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(None)])
    assert streaming.device_limit() == 4 * 1024**3


def test_what_is_taken_of_a_set_decides(monkeypatch):
    def streamed(**changes):
        return isinstance(
            data.load("digits", streaming="auto", **changes).train, data.StreamedSplit
        )

    monkeypatch.setattr(streaming, "device_limit", lambda: (100 + 357) * 64)
    assert streamed() and not streamed(train_examples=100) and streamed(train_examples=101)


@pytest.mark.parametrize("train_examples", [0, 11])
def test_a_prepared_set_streams_what_it_loads(tiny_tfds_dir, train_examples):
    part = {"train_examples": train_examples}
    held = data.load("tiny_shapes", tiny_tfds_dir, **part)
    streamed = data.load("tiny_shapes", tiny_tfds_dir, **part, streaming="always")
    assert held.source == streamed.source
    for name in ("train", "test"):
        split, expected = getattr(streamed, name), getattr(held, name)
        assert isinstance(split, data.StreamedSplit) and len(split) == len(expected.labels)
        np.testing.assert_array_equal(split.images[:], expected.images)
        np.testing.assert_array_equal(split.labels[:], expected.labels)


def test_a_streamed_image_of_another_size_is_refused(tiny_tfds_dir):
    folder = prepared.locate("tiny_shapes", tiny_tfds_dir)
    records = prepared.Records("tiny_shapes", folder, "test", "picture", "kind")
    split = streaming.StreamedSplit(records, (12, 12, 3), np.arange(5))
    with pytest.raises(ValueError, match=r"tiny_shapes differ in size.*\(12, 10, 3\)"):
        list(split.batches(np.arange(5), 2))  # in the threads that read ahead
