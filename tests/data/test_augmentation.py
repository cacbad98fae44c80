"""Flip, crop and cutout against NumPy; keys, order, tracing and errors of `augment`."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sam_jax import data
from sam_jax.data.augmentation import AUGMENTATIONS, augment, augmentation_of

KEY = jax.random.key(5)


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@functools.partial(jax.jit, static_argnames=("names", "pad", "cutout_size"))
def jitted(key, images, names, pad=4, cutout_size=16, fill=128):
    sizes = {"pad": pad, "cutout_size": cutout_size, "randaugment_magnitude": 1}
    return augment(key, images, names, **sizes, fill=fill)


def test_flip_mirrors_half_of_the_images():
    images = noise((4000, 4, 5, 2))
    result = np.array(jitted(KEY, images, ("flip",)))
    flipped = np.all(result == images[:, :, ::-1], axis=(1, 2, 3))
    kept = np.all(result == images, axis=(1, 2, 3))
    assert np.all(flipped ^ kept)
    # Five standard errors of a fair coin.
    assert abs(flipped.mean() - 0.5) < 5 * np.sqrt(0.25 / 4000)


@pytest.mark.parametrize(("name", "mode"), [("crop_zero", "constant"), ("crop_reflect", "reflect")])
def test_crops_are_windows_of_the_padded_image_at_uniform_offsets(name, mode):
    count, pad = 3000, 2
    image = noise((7, 9, 3), 1)
    result = np.array(jitted(KEY, np.stack([image] * count), (name,), pad=pad))
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    hits = np.array(
        [
            np.all(result == padded[top : top + 7, left : left + 9], axis=(1, 2, 3))
            for top, left in itertools.product(range(2 * pad + 1), repeat=2)
        ]
    )
    assert np.all(hits.sum(0) == 1)
    expected = count / 25
    # Chi-square with 24 degrees of freedom; uniform offsets exceed the bound once in 10^5.
    assert np.sum((hits.sum(1) - expected) ** 2 / expected) < scipy.stats.chi2.isf(1e-5, 24)
    # Negative control: the other padding is told apart wherever the border shows.
    other = {"crop_zero": "crop_reflect", "crop_reflect": "crop_zero"}[name]
    swapped = np.array(jitted(KEY, np.stack([image] * count), (other,), pad=pad))
    inner = hits.reshape(5, 5, count)[pad, pad]
    np.testing.assert_array_equal(np.all(swapped == result, axis=(1, 2, 3)), inner)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_cutout_is_a_clipped_square_about_a_uniform_centre(size):
    count, height, width = 4000, 6, 8
    images = noise((count, height, width, 3), 2) % 200
    fill = np.array([201, 202, 203], np.uint8)
    run = functools.partial(jitted, KEY, images, ("cutout",), fill=fill)
    # A single pixel shows the centre, which does not depend on the size.
    centre = np.argwhere(np.all(np.array(run(cutout_size=1)) == fill, axis=-1))[:, 1:]
    expected = images.copy()
    for i, (y, x) in enumerate(centre):
        top, left = max(y - size // 2, 0), max(x - size // 2, 0)
        expected[i, top : y - size // 2 + size, left : x - size // 2 + size] = fill
    np.testing.assert_array_equal(run(cutout_size=size), expected)
    cells = np.bincount(centre[:, 0] * width + centre[:, 1], minlength=height * width)
    mean = count / (height * width)
    bound = scipy.stats.chi2.isf(1e-5, height * width - 1)
    assert np.sum((cells - mean) ** 2 / mean) < bound
    # Negative control: without the clipped squares at one border the law is another.
    assert np.sum((cells[width:] - mean) ** 2 / mean) + mean * width > bound


@pytest.mark.parametrize("data_set", ["cifar10", "svhn"])
def test_torchvisions_autoaugment_moves_black_in_and_the_authors_the_fill(data_set):
    # No other operation, nor any pair of them, takes a white image to this grey level.
    images = np.full((400, 32, 32, 3), 255, np.uint8)
    names = (f"autoaugment_{data_set}", f"autoaugment_{data_set}_torchvision")
    authors, torchvision = (np.array(jitted(KEY, images, (name,), fill=128)) for name in names)
    filled = (authors != torchvision).any(axis=(1, 2, 3))
    assert filled.mean() > 0.2  # a geometric operation was drawn
    assert np.any(authors == 128) and not np.any(torchvision == 128)
    other = np.array(jitted(KEY, images, (names[1],), fill=7))
    np.testing.assert_array_equal(other, torchvision)  # whatever the fill is


def test_greyscale_images_take_everything_but_autoaugment():
    images = noise((3, 8, 8, 1))
    result = jitted(KEY, images, ("flip", "crop_reflect", "crop_zero", "cutout"), cutout_size=4)
    assert result.shape == images.shape and result.dtype == jnp.uint8
    with pytest.raises(ValueError, match="RGB"):
        augment(KEY, images, ("autoaugment_svhn",))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_examples_are_independent_and_keys_matter(name):
    images = np.stack([noise((16, 16, 3), 3)] * 32)
    result = np.array(jitted(KEY, images, (name,), cutout_size=6))
    assert result.dtype == np.uint8 and result.shape == images.shape
    others = images.copy()
    others[:3], others[4:] = 255 - others[:3], 7
    np.testing.assert_array_equal(jitted(KEY, others, (name,), cutout_size=6)[3], result[3])
    # Equal images are treated differently, and another key treats them differently again.
    assert len(np.unique(result, axis=0)) > 1
    assert np.any(jitted(jax.random.key(6), images, (name,), cutout_size=6) != result)


def test_the_number_of_examples_does_not_matter():
    images, names = noise((32, 8, 8, 3), 3), ("flip", "crop_zero", "cutout")
    np.testing.assert_array_equal(
        jitted(KEY, images[:5], names, cutout_size=3), jitted(KEY, images, names, cutout_size=3)[:5]
    )


def test_repeated_names_draw_anew():
    images = np.stack([np.arange(48, dtype=np.uint8).reshape(4, 4, 3)] * 64)
    twice = np.array(jitted(KEY, images, ("flip", "flip")))
    flipped = np.any(twice != images, axis=(1, 2, 3))
    assert 0 < flipped.sum() < 64


def test_the_order_is_the_one_given():
    images = noise((64, 8, 8, 3), 4) | 1
    cut_last = np.array(jitted(KEY, images, ("crop_zero", "cutout"), cutout_size=7, fill=9))
    cut_first = np.array(jitted(KEY, images, ("cutout", "crop_zero"), cutout_size=7, fill=9))

    def padded_wholly(images):
        """Whether what is zero makes whole rows and columns, into which no square was painted."""
        zero = (images == 0).all(-1)
        rows, columns = zero.all(2, keepdims=True), zero.all(1, keepdims=True)
        return (zero == (rows | columns)).all((1, 2))

    assert padded_wholly(cut_first).all() and not padded_wholly(cut_last).all()


@pytest.mark.parametrize("side", [7, 8])  # the centre of an odd square is a pixel
def test_a_cutout_as_large_as_the_image_hides_one_in_its_pixels(side):
    images = np.full((4000, side, side, 1), 7, np.uint8)
    result = np.array(jitted(KEY, images, ("cutout",), cutout_size=side, fill=0))
    share = (result == 0).all((1, 2, 3)).mean()
    expected = 1 / side**2  # the square has to lie on the image exactly
    assert abs(share - expected) < 5 * np.sqrt(expected / len(images))
    with pytest.raises(
        ValueError, match=f"{side + 1} is larger than the images, {side} x {side}.*to {side // 2},"
    ):
        augment(KEY, images, ("flip", "cutout"), cutout_size=side + 1)
    augment(KEY, images, ("flip",), cutout_size=side + 1)  # which is not used


def test_a_cutout_may_be_as_large_as_the_longer_side():
    images = np.zeros((2, 8, 4, 1), np.uint8)
    with pytest.raises(ValueError, match="9 is larger than .* 8 x 4 pixels.*data.cutout_size.* 2,"):
        augment(KEY, images, ("cutout",), cutout_size=9)
    assert augment(KEY, images, ("cutout",), cutout_size=8).shape == images.shape


def test_no_names_is_the_identity():
    images = noise((2, 8, 8, 3))
    np.testing.assert_array_equal(jitted(KEY, images, ()), images)


def test_scan_equals_single_calls_and_traces_once():
    images = noise((32, 16, 16, 3), 6)
    names = ("autoaugment_svhn", "flip", "crop_zero", "cutout")
    traces = []

    @jax.jit
    def epoch(key, images, fill):
        traces.append(1)

        def body(carry, step_key):
            return carry, augment(step_key, images, names, fill=fill)

        return jax.lax.scan(body, (), jax.random.split(key, 3))[1]

    fill = jnp.array([125, 123, 114], jnp.uint8)
    scanned = epoch(KEY, images, fill)
    epoch(jax.random.key(9), 255 - images, fill)
    assert len(traces) == 1
    for key, expected in zip(jax.random.split(KEY, 3), scanned, strict=True):
        np.testing.assert_array_equal(jitted(key, images, names, fill=fill), expected)


def test_a_fill_that_is_made_outside_may_be_closed_over_in_jit():
    images, fill = noise((2, 8, 8, 3)), jnp.array([1, 2, 3])
    augmented = jax.jit(lambda images: augment(KEY, images, ("cutout",), cutout_size=4, fill=fill))(
        images
    )
    np.testing.assert_array_equal(
        augmented, jitted(KEY, images, ("cutout",), cutout_size=4, fill=fill)
    )
    light = fill + 253
    with pytest.raises(ValueError, match="got .*256"):  # what is known is checked, inside jit too
        jax.jit(lambda images: augment(KEY, images, ("flip",), fill=light))(images)


@pytest.mark.devices
def test_shards_augment_their_own_examples():
    devices = jax.devices()
    images = noise((2 * len(devices), 8, 8, 3), 8)
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    data, replicated = jax.P("batch"), jax.P()
    names = ("autoaugment_svhn", "flip")

    def shard(key, images):
        key = jax.random.fold_in(key, jax.lax.axis_index("batch"))
        return augment(key, images, names)

    run = jax.shard_map(shard, mesh=mesh, in_specs=(replicated, data), out_specs=data)
    result = np.array(jax.jit(run)(KEY, images))
    for i, expected in enumerate(result.reshape(len(devices), 2, 8, 8, 3)):
        own = images[2 * i : 2 * i + 2]
        np.testing.assert_array_equal(jitted(jax.random.fold_in(KEY, i), own, names), expected)


def test_a_sources_augmentation_is_taken_where_nothing_is_given():
    source = data.SOURCES["cifar10"]
    own = augmentation_of(source)
    assert own == (("flip", "crop_reflect"), 4, 16, (125, 123, 114), 2, 9)
    assert augmentation_of(source, names=()).names == ()  # none is not the source's
    assert augmentation_of(source, ["cutout"], pad=0) == own._replace(names=("cutout",), pad=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ("flip", "mixup")}, r"\['mixup'\].*crop_reflect.*autoaugment_cifar10"),
        ({"names": ("crop_zeros",)}, r"\['crop_zeros'\].* Did you mean 'crop_zero'\?"),
        ({"names": "flip"}, "give a tuple"),
        ({"names": ("randaugment",)}, "data.randaugment_magnitude.*in 0 .. 0.*8 x 8 pixels"),
        (
            {"names": ("randaugment",), "randaugment_magnitude": -1},
            "must be in 0 .. 30, got -1",
        ),
        ({"names": ("randaugment",), "randaugment_layers": 0}, "layers must be at least 1, got 0"),
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "float32"),
        ({"images": np.zeros((8, 8, 3), np.uint8)}, r"\(8, 8, 3\)"),
        ({"pad": -1}, "got -1"),
        ({"names": ("crop_reflect",), "pad": 8}, "got 8"),
        ({"cutout_size": 0}, "got 0"),
        ({"fill": (1, 2)}, r"\(2,\)"),
        ({"fill": 256}, "256"),
    ],
)
def test_errors_say_what_was_given(arguments, message):
    defaults = {"images": np.zeros((2, 8, 8, 3), np.uint8), "names": ("flip",)}
    with pytest.raises(ValueError, match=message):
        augment(KEY, **(defaults | arguments))
