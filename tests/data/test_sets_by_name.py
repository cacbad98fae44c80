"""Any image classification set of TensorFlow Datasets by its name alone."""

import json
import os
import re
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sam_jax import data
from sam_jax.data import channel_statistics as statistics
from sam_jax.data import prepare, prepared
from sam_jax.data.description import describe
from sam_jax.mistakes import UserMistake

tfds = pytest.importorskip("tensorflow_datasets")
NAME = "tiny_shapes"


def kept_file(data_dir):
    return prepared.locate(NAME, data_dir) / statistics.FILE_NAME


def test_a_set_that_no_file_names_is_read_as_it_was_written(tiny_tfds_dir):
    from tiny_tfds import shapes_split

    source, train, test = data.load(NAME, tiny_tfds_dir)
    assert (source.name, source.image_shape, source.num_classes) == (NAME, (12, 10, 3), 3)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int32
    for split, expected in ((train, "train"), (test, "validation")):  # "test" has no labels
        written, read = (
            sorted((x.tobytes(), int(y)) for x, y in zip(*pair, strict=True))
            for pair in (shapes_split(expected), split)
        )
        assert written == read
    pixels = shapes_split("train")[0] / 255.0
    np.testing.assert_allclose(source.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(source.std, pixels.std((0, 1, 2)), rtol=1e-12)
    assert (source.augmentations, source.pad, source.cutout_size) == (("crop_zero",), 1, 5)


def test_an_artificial_set_has_its_format(tiny_tfds_dir):
    source, train, test = data.load(NAME, tiny_tfds_dir, synthetic_examples=8)
    assert source == data.load(NAME, tiny_tfds_dir).source
    assert train.images.shape == (8, 12, 10, 3) and set(test.labels) == {0, 1, 2}


def test_the_statistics_are_computed_once(tiny_tfds_dir):
    path = kept_file(tiny_tfds_dir)
    written = path.read_text()  # by the preparation
    original = data.load(NAME, tiny_tfds_dir).source
    try:
        path.write_text(json.dumps({**json.loads(written), "mean": [0.1, 0.2, 0.3]}))
        assert data.load(NAME, tiny_tfds_dir).source.mean == (0.1, 0.2, 0.3)  # not computed anew
        another_set = json.dumps({**json.loads(written), "examples": 71, "mean": [0.1, 0.2, 0.3]})
        for text in (another_set, "{", "[]", "{}"):
            path.write_text(text)
            assert data.load(NAME, tiny_tfds_dir).source == original
            assert path.read_text() == written
        path.unlink()
        assert data.load(NAME, tiny_tfds_dir).source == original
        assert path.read_text() == written and not list(path.parent.glob("*.tmp"))
    finally:
        path.write_text(written)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tiny_tfds_dir, monkeypatch, caplog):
    path = kept_file(tiny_tfds_dir)
    written = path.read_text()
    expected = data.load(NAME, tiny_tfds_dir).source

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(statistics.tempfile, "mkstemp", refuse)
    path.unlink()
    try:
        assert data.load(NAME, tiny_tfds_dir).source == expected
        assert "could not be kept: read-only" in caplog.text
        assert not path.exists()
    finally:
        path.write_text(written)


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), *[st.integers(1, 3)] * 3)), st.data())
def test_statistics_are_those_of_all_images_at_once(images, draw):
    cut = draw.draw(st.integers(0, len(images)))
    chunks = [list(chunk) for chunk in (images[:cut], images[cut:]) if len(chunk)]
    pixels = images.astype(np.float64) / 255
    if not (images != images[0, 0, 0]).any((0, 1, 2)).all():
        with pytest.raises(ValueError, match="has one value throughout"):
            statistics.channel_statistics("some", chunks)
        return
    found = statistics.channel_statistics("some", chunks)
    assert (found.examples, found.image_shape) == (len(images), images.shape[1:])
    np.testing.assert_allclose(found.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std((0, 1, 2)), rtol=1e-9)


def test_statistics_need_images():
    with pytest.raises(ValueError, match="some has no training images"):
        statistics.channel_statistics("some", [])


def info_of(keys=None, **features):
    return types.SimpleNamespace(features=features, supervised_keys=keys)


def test_what_a_set_says_of_itself():
    image, wide = tfds.features.Image(shape=(4, 4, 3)), tfds.features.Image(shape=(4, 8, 1))
    ten, two = (tfds.features.ClassLabel(num_classes=n) for n in (10, 2))
    assert describe("x", info_of(image=image, label=ten)) == ("image", "label", (4, 4, 3), 10)
    several = {"left": image, "right": wide, "fine": ten, "coarse": two}
    described = describe("x", info_of(("right", "coarse"), **several))
    assert described == ("right", "coarse", (4, 8, 1), 2)
    for keys in (None, ("left", "right")):
        with pytest.raises(ValueError, match="several of the kind image, left, right"):
            describe("x", info_of(keys, **several))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"label": "ten"}, r"x is no image classification set: its features \(label\) hold no im"),
        ({"image": "image", "text": "text"}, r"its features \(image, text\) hold no class label"),
        ({"image": "deep", "label": "ten"}, "images of x are .*uint16.*; only uint8"),
        ({"image": "image", "label": "open"}, "does not say how many classes its label label has"),
        ({}, r"its features \(none\) hold no image"),
    ],
)
def test_a_set_that_cannot_be_read_says_why(features, message):
    kinds = {
        "ten": tfds.features.ClassLabel(num_classes=10),
        "open": tfds.features.ClassLabel(),
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "deep": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16),
        "text": tfds.features.Text(),
    }
    with pytest.raises(ValueError, match=message):
        describe("x", info_of(**{name: kinds[kind] for name, kind in features.items()}))


@pytest.mark.parametrize(("variant", "shape"), [("grey", (6, 5, 1)), ("unsaid_size", (6, 5, 3))])
def test_sizes_are_found_where_they_are_not_said(variant, shape, tiny_tfds_dir):
    name = f"tiny_variants/{variant}"
    prepare.prepare(name, tiny_tfds_dir)
    source, train, test = data.load(name, tiny_tfds_dir)
    assert source.image_shape == shape and len(source.mean) == shape[-1]
    assert train.images.shape == test.images.shape == (6, *shape)
    assert (prepared.locate(name, tiny_tfds_dir) / statistics.FILE_NAME).exists()


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("sizes", r"differ in size, for example \(6, [56], 3\) and \(6, [56], 3\).*resize"),
        ("constant", "Channel 2 of the images of tiny_variants/constant has one value"),
        ("train_only", "no labelled test or validation split, only train"),
    ],
)
def test_a_set_that_cannot_be_trained_on_says_what_to_do(variant, message, tiny_tfds_dir):
    prepare.prepare(f"tiny_variants/{variant}", tiny_tfds_dir)
    with pytest.raises(ValueError, match=message):
        data.load(f"tiny_variants/{variant}", tiny_tfds_dir)


@pytest.mark.parametrize(
    ("name", "train_split", "message"),
    [
        (NAME, "train+extra", "no split 'extra'; it has train, validation, test"),
        (NAME, "trian", "no split 'trian'; it has"),
        (NAME, "train+validation", "holds 'validation', on which tiny_shapes is tested"),
        (NAME, "train+test", "the split 'test' of tiny_shapes has no labels"),
        ("digits", "extra", "digits has no split 'extra'"),
    ],
)
def test_splits_that_cannot_be_trained_on_are_named(name, train_split, message, tiny_tfds_dir):
    with pytest.raises(
        ValueError, match=f"data.train_split = '{re.escape(train_split)}'.*{message}"
    ):
        data.load(name, tiny_tfds_dir, train_split=train_split)


def test_another_set_of_a_known_name_is_refused(tiny_tfds_dir, monkeypatch):
    known = data.SOURCES["cifar10"]._replace(name=NAME)
    monkeypatch.setitem(data.SOURCES, NAME, known)
    with pytest.raises(
        ValueError,
        match=f"data.name = '{NAME}' stands for images of 32 x 32 x 3 in 10 classes, but .* holds "
        "images of 12 x 10 x 3 in 3 classes",
    ):
        data.load(NAME, tiny_tfds_dir)
    fitting = known._replace(image_shape=(12, 10, 3), num_classes=3)
    monkeypatch.setitem(data.SOURCES, NAME, fitting)
    assert data.load(NAME, tiny_tfds_dir).source == fitting


def test_an_image_of_another_size_in_the_test_split_is_refused(tiny_tfds_dir):
    folder = prepared.locate(NAME, tiny_tfds_dir)
    records = prepared.Records(NAME, folder, "test", "picture", "kind")
    with pytest.raises(ValueError, match=r"\(12, 12, 3\) and \(12, 10, 3\)"):
        records.read(np.arange(5), (12, 12, 3))


def test_preparing_prints_what_to_write_in_a_config(tiny_tfds_dir, capsys):
    prepare.main([NAME, f"--data_dir={tiny_tfds_dir}"])
    folder = prepared.locate(NAME, tiny_tfds_dir)
    assert capsys.readouterr().out == (
        f"{NAME} was already prepared: 72 train and 21 validation and 5 test examples in {folder}\n"
        f"config.data.name = '{NAME}': 12 x 10 x 3 pixels, 3 classes\n"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_shape", "has no set 'tiny_shape'. Did you mean .*tiny_shapes"),
        ("zzzzzzzzzz", "has no set 'zzzzzzzzzz'\\.$"),
        ("tiny_variants", "has variants; choose one of tiny_variants/grey, tiny_variants/unsaid"),
        ("tiny_variants/blue", "has no set 'tiny_variants/blue'"),
        ("tiny_words", r"tiny_words is no image classification set: .*\(kind, word\) hold no im"),
        ("digits", "nothing to prepare"),
    ],
)
def test_what_cannot_be_prepared_ends_in_one_sentence(name, message, tiny_tfds_dir, tmp_path):
    with pytest.raises(UserMistake, match=message):
        prepare.main([name, f"--data_dir={tmp_path}"])
    assert not any(tmp_path.iterdir())


def test_what_is_downloaded_by_hand_comes_from_the_folder(tiny_tfds_dir, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    with pytest.raises(RuntimeError, match="(?s)tiny_manual failed.*--from_dir=FOLDER"):
        prepare.prepare("tiny_manual", tmp_path / "data", files)
    images = np.random.RandomState(0).randint(0, 256, (3, 12, 10, 3)).astype(np.uint8)
    np.save(files / "images.npy", images)
    prepare.prepare("tiny_manual", tmp_path / "data", os.fspath(files))
    train = data.load("tiny_manual", tmp_path / "data").train
    assert sorted(x.tobytes() for x in train.images) == sorted(x.tobytes() for x in images)


def test_a_set_that_is_not_prepared_has_the_command(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=f"no mnist prepared .*check the name .*`python -m sam_jax.data.prepare mnist "
        f"--data_dir={tmp_path}` first.*digits, fashion_mnist",
    ):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "nearest"), [("cifr10", "cifar10"), ("tiny_shaped", "tiny_shapes"), ("mnst", "mnist")]
)
def test_a_misspelt_set_has_the_nearest_names(name, nearest, tiny_tfds_dir):
    with pytest.raises(FileNotFoundError, match=rf"check the name.* Did you mean .*{nearest}"):
        data.load(name, tiny_tfds_dir)
