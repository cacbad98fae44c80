"""A set whose images differ in size: read, cropped and streamed by its name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_imagenet
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image
from test_streaming import OfAProcess

from sam_jax import data
from sam_jax.data import channel_statistics as statistics
from sam_jax.data import prepare, prepared, streaming
from sam_jax.data.crops import centre_box, random_box

NAME = "imagenet2012"
SIZE = 24
KEY = jax.random.key(3)


def resized(pixels, box):
    cut = pixels[box[1] : box[3], box[0] : box[2]]
    return np.asarray(Image.fromarray(cut).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def centres(split):
    """Evaluation crop -> label, by Pillow from the files that were written."""
    photos = tiny_imagenet.photos(split)
    crops = [resized(x.pixels, centre_box(*x.pixels.shape[:2], SIZE)) for x in photos]
    return sorted((crop.tobytes(), x.label) for crop, x in zip(crops, photos, strict=True))


def by_centre(split):
    """The pixels of every photograph by the bytes of its evaluation crop."""
    return {
        resized(x.pixels, centre_box(*x.pixels.shape[:2], SIZE)).tobytes(): x.pixels
        for x in tiny_imagenet.photos(split)
    }


def opened(data_dir, **changes):
    return data.load(NAME, data_dir, **({"image_size": SIZE, "streaming": "auto"} | changes))


def test_the_centres_of_all_images_are_read_for_evaluation(tiny_imagenet_dir):
    source, train, test = opened(tiny_imagenet_dir)
    assert (source.name, source.image_shape, source.num_classes) == (NAME, (SIZE, SIZE, 3), 1000)
    assert (source.augmentations, source.pad, source.cutout_size) == (("flip",), 3, 12)
    assert source.mean == data.SOURCES[NAME].mean
    for split, written in ((train, "train"), (test, "validation")):  # "test" has no labels
        assert isinstance(split, data.StreamedSplit)
        images, labels = split.images[:], split.labels[:]
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        found = sorted((x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True))
        assert found == centres(written)
        blocks = list(split.batches(np.arange(len(split)), 5))
        np.testing.assert_array_equal(np.concatenate([b.images for b in blocks]), images)
    assert len(opened(tiny_imagenet_dir, train_examples=5).train) == 5


def test_imagenet_has_a_size_of_its_own(tiny_imagenet_dir):
    source, train, _ = opened(tiny_imagenet_dir, image_size=0)
    assert source == data.SOURCES[NAME]
    assert train.images.shape == (48, 224, 224, 3) and train.images[:2].shape == (2, 224, 224, 3)


def blocks_of(split, order, columns=None, first_step=7, steps=2, key=KEY):
    """The images [1 + n, batch, ...] of an order, as one process reads them."""
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("d",)), PartitionSpec(None, "d"))
    arguments = (split, jnp.asarray(order), steps, sharding)
    blocks = list(streaming.training_blocks(*arguments, key=key, first_step=first_step))
    first, *rest = (np.asarray(images) for images, *_ in blocks)
    return np.concatenate([first, *(images[1:] for images in rest)])


def order_of(steps, batch_size, seed=0):
    return np.random.RandomState(seed).randint(0, 48, (1 + steps, batch_size))


def test_training_crops_are_the_drawn_ones(tiny_imagenet_dir):
    train = opened(tiny_imagenet_dir).train
    order = order_of(3, 4)
    found = blocks_of(train, order)
    whole = by_centre("train")
    words = np.asarray(jax.random.key_data(KEY))
    at_random = 0
    for row, column in np.ndindex(order.shape):
        seed = np.array([*words, 7 - 1 + row, column], np.uint32)
        pixels = whole[train.images[[order[row, column]]][0].tobytes()]
        height, width = pixels.shape[:2]
        box = random_box(np.random.RandomState(seed), height, width)
        at_random += box is not None
        expected = resized(pixels, box or centre_box(height, width, SIZE))
        np.testing.assert_array_equal(found[row, column], expected)
    assert at_random > 10


def test_crops_depend_on_the_seed_and_the_step_alone(tiny_imagenet_dir):
    train = opened(tiny_imagenet_dir).train
    order = order_of(6, 4)
    found = blocks_of(train, order)
    np.testing.assert_array_equal(found, blocks_of(train, order, steps=5))
    # A run that is resumed at a later step reads the same, the batch before its first included.
    np.testing.assert_array_equal(found[3:], blocks_of(train, order[3:], first_step=10))
    assert np.any(found != blocks_of(train, order, key=jax.random.key(4)))
    assert np.any(found != blocks_of(train, order, first_step=8))
    same = np.repeat(order[:1], 7, 0)  # the same images are cropped anew in every step
    assert len({x.tobytes() for x in blocks_of(train, same)[:, 0]}) == 7


def test_the_very_first_batch_stands_before_itself(tiny_imagenet_dir):
    train = opened(tiny_imagenet_dir).train
    order = order_of(1, 4)
    order[0] = order[1]
    before, first = blocks_of(train, order, first_step=0)
    np.testing.assert_array_equal(before, first)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_every_batch(processes, tiny_imagenet_dir, monkeypatch):
    """The order and the crops do not depend on their number; shares are disjoint and all there."""
    train = opened(tiny_imagenet_dir).train
    order = order_of(3, 8)
    whole = blocks_of(train, order)
    monkeypatch.setattr(streaming, "_on_devices", lambda local, *_: local)
    columns = []
    for index in range(processes):
        sharding = OfAProcess(index, processes, 8)
        columns.append(streaming.local_columns(sharding, 8))
        read = []
        original = data.StreamedSplit.read

        def counted(split, rows, seeds=None, read=read, original=original):
            read.append(rows)
            return original(split, rows, seeds)

        with monkeypatch.context() as patch:
            patch.setattr(data.StreamedSplit, "read", counted)
            ((images, _, _),) = streaming.training_blocks(
                train, jnp.asarray(order), 0, sharding, key=KEY, first_step=7
            )
        np.testing.assert_array_equal(images, whole[:, columns[-1]])
        assert sorted(np.concatenate(read)) == sorted(order[:, columns[-1]].reshape(-1))
    assert sorted(np.concatenate(columns)) == list(range(8))


def test_sets_of_one_size_are_cropped_where_a_size_is_given(tiny_tfds_dir):
    source, train, _ = data.load("tiny_shapes", tiny_tfds_dir, image_size=8, streaming="auto")
    assert source.image_shape == (8, 8, 3) and source.augmentations == ()
    pixels = train.images[:]
    assert pixels.shape == (72, 8, 8, 3)
    np.testing.assert_allclose(source.mean, (pixels / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(source.std, (pixels / 255).std((0, 1, 2)), rtol=1e-12)
    folder = prepared.locate("tiny_shapes", tiny_tfds_dir)
    kept = {path.name for path in folder.glob("channel_statistics*")}
    assert kept == {"channel_statistics.json", "channel_statistics_8.json"}
    # Neither is taken for the other.
    assert data.load("tiny_shapes", tiny_tfds_dir).source.image_shape == (12, 10, 3)
    assert statistics.read_statistics(folder, 72, 8).image_shape == (8, 8, 3)


def test_preparing_a_set_of_several_sizes_says_what_to_set(tiny_tfds_dir, capsys):
    name = "tiny_variants/sizes"
    prepare.main([name, f"--data_dir={tiny_tfds_dir}"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"config.data.name = '{name}' with config.data.image_size, such as 224: images of several "
        "sizes"
    )
    source, train, _ = data.load(name, tiny_tfds_dir, image_size=4, streaming="auto")
    assert source.image_shape == (4, 4, 3) and train.images[:].shape == (6, 4, 4, 3)


def test_artificial_sets_take_the_size():
    source, train, _ = data.load(NAME, synthetic_examples=5, image_size=16)
    assert source.image_shape == (16, 16, 3) and train.images.shape == (5, 16, 16, 3)
    assert (
        data.load("digits", synthetic_examples=5, image_size=16).source.image_shape[:2] == (16,) * 2
    )


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (NAME, {"image_size": -1}, "data.image_size must be 0 or positive, got -1"),
        (NAME, {"streaming": "never"}, "data.streaming = 'never', but the images of imagenet2012"),
        ("digits", {}, "data.image_size = 24 crops the images of prepared sets; the digits"),
    ],
)
def test_what_cannot_be_cropped_names_the_field(name, changes, message, tiny_imagenet_dir):
    with pytest.raises(ValueError, match=message):
        data.load(name, tiny_imagenet_dir, **({"image_size": SIZE, "streaming": "auto"} | changes))


def test_images_of_four_channels_are_not_cropped():
    from sam_jax.data.cropped_records import crop_shape

    assert crop_shape("some", 8, 1) == (8, 8, 1) and crop_shape("some", 8, None) == (8, 8, 3)
    with pytest.raises(ValueError, match="data.image_size = 8 .* of some have 4 channels"):
        crop_shape("some", 8, 4)


def test_a_file_that_cannot_be_decoded_is_named(tiny_imagenet_dir, monkeypatch):
    train = opened(tiny_imagenet_dir).train
    original = prepared.Records.chunks

    def broken(records, rows):
        for images, labels in original(records, rows):
            yield [images[0], images[1][:200], *images[2:]], labels

    monkeypatch.setattr(prepared.Records, "chunks", broken)
    with pytest.raises(
        ValueError, match="Image 9 of the split train of imagenet2012 cannot be dec"
    ):
        train.read(np.array([4, 9, 1]))
