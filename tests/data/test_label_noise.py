"""Label noise: its law, its seed, and the same in memory and streamed."""

import numpy as np
import pytest
from scipy import stats
from training_problems import tiny_config

from sam_jax import data
from sam_jax.data.label_noise import label_noise, with_label_noise
from sam_jax.data.splits import InMemory, Split
from sam_jax.data.streaming import StreamedSplit
from sam_jax.training import build

DIGITS = data.SOURCES["digits"]
N = 5000


def noisy(share=0.4, kind="symmetric", seed=0, source=DIGITS, examples=N):
    labels = np.random.default_rng(1).integers(0, source.num_classes, examples).astype(np.int32)
    noise = label_noise(source, examples, share, kind, seed)
    return labels, noise(np.arange(examples), labels)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.80001, 1.0])
def test_symmetric_noise_replaces_the_share_by_other_labels_alone(share):
    labels, found = noisy(share)
    assert np.sum(found != labels) == round(share * N)
    assert found.dtype == np.int32 and set(found) <= set(range(10))
    if share == 1:  # every other label is as likely: a true law fails at one seed in 10,000
        steps = np.bincount((found - labels) % 10, minlength=10)
        assert steps[0] == 0 and stats.chisquare(steps[1:]).pvalue > 1e-4


def test_chosen_examples_do_not_depend_on_their_labels():
    labels, found = noisy(0.5)
    by_class = [np.mean(found[labels == c] != c) for c in range(10)]
    assert np.all(np.abs(np.subtract(by_class, 0.5)) < 0.12)  # five deviations of 500 coins


def test_the_seed_and_nothing_else_decides():
    _, first = noisy(seed=3)
    np.testing.assert_array_equal(first, noisy(seed=3)[1])
    assert np.mean(first != noisy(seed=4)[1]) > 0.3
    # What a smaller share replaces, a larger one replaces by the same.
    labels, more = noisy(0.8, seed=3)
    chosen = first != labels
    np.testing.assert_array_equal(more[chosen], first[chosen])
    np.random.seed(5)
    np.testing.assert_array_equal(first, noisy(seed=3)[1])


@pytest.mark.parametrize(
    ("name", "confused"),
    [
        # airplane 0, automobile 1, bird 2, cat 3, deer 4, dog 5, frog 6, horse 7, ship 8, truck 9
        ("cifar10", [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]),
        ("svhn_cropped", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]),
        ("digits", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]),
    ],
)
def test_asymmetric_noise_takes_classes_for_one_another(name, confused):
    labels, found = noisy(1.0, "asymmetric", source=data.SOURCES[name])
    np.testing.assert_array_equal(found, np.array(confused)[labels])
    labels, found = noisy(0.3, "asymmetric", source=data.SOURCES[name])
    changes = np.array(confused)[labels] != labels
    assert np.mean(found != labels) == pytest.approx(0.3 * np.mean(changes), abs=0.03)
    np.testing.assert_array_equal(
        found[found != labels], np.array(confused)[labels[found != labels]]
    )


def test_a_hundred_classes_go_to_the_next():
    labels, found = noisy(1.0, "asymmetric", source=data.SOURCES["cifar100"])
    np.testing.assert_array_equal(found, (labels + 1) % 100)


def test_a_streamed_split_has_the_labels_of_one_in_memory():
    images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    labels = (np.arange(40) % 10).astype(np.int32)
    rows = np.arange(39, -1, -2)  # a split is a part of its examples
    noise = label_noise(DIGITS, len(rows), 0.5, "symmetric", 0)
    held, held_pairs = with_label_noise(Split(images[rows], labels[rows]), noise)
    streamed, pairs = with_label_noise(
        StreamedSplit(InMemory(images, labels), (1, 1, 1), rows), noise
    )
    np.testing.assert_array_equal(streamed.labels[:], held.labels)
    np.testing.assert_array_equal(streamed.images[:], held.images)
    asked = np.array([7, 2, 2])
    np.testing.assert_array_equal(streamed.read(asked).labels, held.labels[asked])
    np.testing.assert_array_equal(pairs.read(asked).labels, held_pairs.labels[asked])
    np.testing.assert_array_equal(held_pairs.labels[:, 1], labels[rows])
    assert np.sum(held_pairs.labels[:, 0] != held_pairs.labels[:, 1]) == 10


def test_a_config_makes_the_training_set_noisy_and_leaves_the_test_set():
    _, clean = build.load_data(tiny_config())
    _, found = build.load_data(tiny_config(data__label_noise=0.25, data__label_noise_seed=2))
    differs = np.asarray(found.train_labels) != np.asarray(clean.train_labels)
    assert differs.sum() == 16 and clean.train_pairs is None
    np.testing.assert_array_equal(found.test_labels, clean.test_labels)
    np.testing.assert_array_equal(found.train_images, clean.train_images)
    images, pairs = found.train_pairs
    assert images is found.train_images
    np.testing.assert_array_equal(pairs[:, 0], found.train_labels)
    np.testing.assert_array_equal(pairs[:, 1], clean.train_labels)
    # The seed of the run has no part in it.
    _, again = build.load_data(
        tiny_config(seed=9, data__label_noise=0.25, data__label_noise_seed=2)
    )
    np.testing.assert_array_equal(again.train_labels, found.train_labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__label_noise": 1.5}, r"data.label_noise must be .* got 1.5"),
        ({"data__label_noise_kind": "both"}, "label_noise_kind must be one of symmetric, asymm"),
    ],
)
def test_noise_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build.check(tiny_config(**changes))


def test_two_classes_flip():
    source = DIGITS._replace(num_classes=2)
    for kind in ("symmetric", "asymmetric"):
        labels, found = noisy(1.0, kind, source=source)
        np.testing.assert_array_equal(found, 1 - labels)
