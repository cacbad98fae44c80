"""The crops of images whose sizes differ: their law, and their pixels against Pillow."""

import io
import math
from importlib.util import find_spec

import numpy as np
import pytest
import scipy.integrate
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin
from tiny_imagenet import decoded, photo

from sam_jax.data.crops import centre_box, cropped, random_box

DRAWS = 4000
# By Dvoretzky, Kiefer and Wolfowitz an empirical distribution is further off once in 10^6.
FARTHEST = math.sqrt(math.log(2e6) / (2 * DRAWS))


def boxes(height, width, draws=DRAWS):
    """Random boxes [n, 4], without those that are the centre."""
    found = [random_box(np.random.RandomState([5, i]), height, width) for i in range(draws)]
    return np.array([box for box in found if box is not None])


def sides(found):
    return found[:, 3] - found[:, 1], found[:, 2] - found[:, 0]


def distance(values, law):
    """The greatest distance of the empirical distribution of values from a law on the line."""
    values = np.sort(values)
    expected = np.array([law(x) for x in values])
    ranks = np.arange(len(values) + 1) / len(values)
    return max(np.max(np.abs(expected - ranks[1:])), np.max(np.abs(expected - ranks[:-1])))


def law_of_area(height, width):
    """Share of the image -> probability, in the limit of many pixels, by quadrature over a."""

    def below(share):
        def given_aspect(a):
            low = math.sqrt(0.08 * height * width / a)
            high = min(height, width / a)
            first = math.sqrt(0.1 * height * width / a)  # smaller ones are drawn again
            last = min(high, math.sqrt(share * height * width / a))
            return max(0.0, last - first) / (high - low)

        return scipy.integrate.quad(given_aspect, 3 / 4, 4 / 3, points=[width / height])[0]

    whole = below(1.0)
    shares = np.linspace(0.1, 1, 91)
    table = np.array([below(share) for share in shares]) / whole
    return lambda share: np.interp(share, shares, table)


@pytest.mark.parametrize(("height", "width"), [(3000, 4000), (4000, 3000), (2500, 9000)])
def test_areas_and_aspects_of_training_crops_follow_their_law(height, width):
    crop_height, crop_width = sides(boxes(height, width))
    area, aspect = crop_height * crop_width / (height * width), crop_width / crop_height
    assert len(area) == DRAWS
    # An area is off its limit by the rounding of two sides, which are 700 pixels or more.
    pixel = 2 / 700
    assert distance(area, law_of_area(height, width)) < FARTHEST + pixel
    assert 0.1 <= area.min() and 3 / 4 - pixel < aspect.min() and aspect.max() < 4 / 3 + pixel
    # Negative control: a uniform area, as torchvision draws it, is told apart.
    assert distance(area, lambda share: (share - 0.08) / 0.92) > FARTHEST + pixel
    if height == 3000:  # where almost nothing is drawn again for its area or cut for its aspect
        assert distance(aspect, lambda a: (a - 3 / 4) / (4 / 3 - 3 / 4)) < FARTHEST + 0.02


def test_places_of_training_crops_are_uniform():
    height, width = 300, 400
    found = boxes(height, width)
    for start, side, whole in zip(found[:, 1::-1].T, sides(found), (height, width), strict=True):
        room = whole - side
        assert np.all((start >= 0) & (start <= room))
        movable = room >= 20
        # One of k + 1 places: the middle of its share of [0, 1] is uniform but for half a place.
        place = (start[movable] + 0.5) / (room[movable] + 1)
        bound = math.sqrt(math.log(2e6) / (2 * movable.sum())) + 1 / 40
        assert distance(place, lambda x: x) < bound
        assert np.any(start == room) and np.any(start[movable] == 0)


@pytest.mark.e2e
@pytest.mark.skipif(not find_spec("tensorflow"), reason="compares with TensorFlow")
def test_training_crops_have_the_distribution_of_tensorflows():
    import scipy.stats
    import tensorflow as tf

    height, width = 300, 400

    def one(i):
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.constant([height, width, 3]),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed=1,
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
        )
        return tf.concat([begin[:2], size[:2]], 0)

    theirs = np.array(list(tf.data.Dataset.range(DRAWS).map(one).as_numpy_iterator()))
    ours = boxes(height, width)
    crop_height, crop_width = sides(ours)
    for mine, other in (
        (crop_height, theirs[:, 2]),
        (crop_width, theirs[:, 3]),
        (crop_height * crop_width, theirs[:, 2] * theirs[:, 3]),
        (crop_width / crop_height, theirs[:, 3] / theirs[:, 2]),
    ):
        assert scipy.stats.ks_2samp(mine, other).pvalue > 1e-5
    assert scipy.stats.ks_2samp(crop_height + 20, theirs[:, 2]).pvalue < 1e-5  # negative control


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32 - 1))
@example(1, 500, 0)
def test_a_training_crop_lies_in_the_image(height, width, seed):
    box = random_box(np.random.RandomState(seed), height, width)
    assert box == random_box(np.random.RandomState(seed), height, width)
    if box is not None:
        assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height
        assert (box.right - box.left) * (box.bottom - box.top) >= 0.1 * height * width
        assert box != (0, 0, width, height)


def test_an_image_that_is_too_narrow_has_no_training_crop():
    # The largest window of aspect 3/4 covers 1/75 of it, less than a tenth.
    assert random_box(np.random.RandomState(0), 1000, 10) is None


@settings(deadline=None)
@given(st.integers(2, 3000), st.integers(2, 3000), st.sampled_from([32, 224, 300, 380, 475, 600]))
def test_the_evaluation_crop_is_the_published_formula(height, width, size):
    # As google-research/sam computes it: in float32, and cut off.
    side = int(np.float32(size / (size + 32)) * np.float32(min(height, width)))
    left, top = ((whole - side) + 1 >> 1 for whole in (width, height))
    box = centre_box(height, width, size)
    if side:
        assert box == (left, top, left + side, top + side)
    assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height


def pillow(pixels, box, size):
    """The crop by Pillow on decoded pixels."""
    cut = pixels[box[1] : box[3], box[0] : box[2]]
    return np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BICUBIC))


def bicubic(pixels, size):
    """The filter from its formula, in float64: a = -1/2, widened to the pixels that become one."""

    def weights(length):
        scale = length / size
        centre = (np.arange(size)[:, None] + 0.5) * scale
        x = np.abs(np.arange(length) + 0.5 - centre) / max(scale, 1.0)
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * (x**3 - 5 * x**2 + 8 * x - 4)
        found = np.where(x < 1, near, np.where(x < 2, far, 0))
        return found / found.sum(1, keepdims=True)

    rows, columns = (weights(length) for length in pixels.shape[:2])
    return np.clip(np.einsum("ih,hwc,jw->ijc", rows, pixels.astype(float), columns), 0, 255)


@pytest.mark.parametrize(
    ("mode", "file_format"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG")]
)
@pytest.mark.parametrize("size", [24, 64])
def test_crops_are_those_of_the_decoded_image(mode, file_format, size):
    found = photo(np.random.RandomState(1), 0, mode, file_format)
    height, width = found.pixels.shape[:2]
    centre = cropped(found.encoded, (size, size, 3))
    box = centre_box(height, width, size)
    np.testing.assert_array_equal(centre, pillow(found.pixels, box, size))
    # Pillow rounds between rows and columns, and its weights to 22 bits.
    cut = found.pixels[box.top : box.bottom, box.left : box.right]
    assert np.abs(centre - bicubic(cut, size)).max() < 2
    seed = np.array([1, 2, 3], np.uint32)
    drawn = random_box(np.random.RandomState(seed), height, width)
    at_random = cropped(found.encoded, (size, size, 3), seed)
    np.testing.assert_array_equal(at_random, pillow(found.pixels, drawn, size))
    assert drawn != box and np.abs(at_random.astype(int) - centre).max() > 2
    if mode == "L":
        grey = cropped(found.encoded, (size, size, 1))
        np.testing.assert_array_equal(np.repeat(grey, 3, -1), centre)


def large_jpeg():
    random = np.random.RandomState(0)
    coarse = Image.fromarray(random.randint(0, 256, (12, 16, 3)).astype(np.uint8))
    file = io.BytesIO()
    coarse.resize((801, 603), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize(("size", "reduced"), [(16, True), (300, False)])
def test_a_large_jpeg_is_decoded_as_far_as_a_training_crop_needs(size, reduced, monkeypatch):
    encoded, seed = large_jpeg(), np.array([4], np.uint32)
    pixels = decoded(encoded)
    box = random_box(np.random.RandomState(seed), *pixels.shape[:2])
    full = pillow(pixels, box, size).astype(int)
    original = JpegImagePlugin.JpegImageFile.draft
    sizes = []

    def watched(image, mode, wanted):
        result = original(image, mode, wanted)
        sizes.append(image.size)
        return result

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", watched)
    found = cropped(encoded, (size, size, 3), seed).astype(int)
    shorter = min(box.right - box.left, box.bottom - box.top)
    if reduced:
        assert shorter >= 4 * size and len(sizes) == 1
        factor = math.ceil(801 / sizes[0][0])
        assert factor > 1 and shorter / factor >= 2 * size
        # The picture is smooth over many pixels: the two filters differ by less than a grey level.
        assert np.abs(found - full).mean() < 1
        shifted = pillow(pixels, np.array(box) + [8, 0, 8, 0], size)  # negative control
        assert np.abs(found - shifted).mean() > 5
    else:
        assert not sizes
        np.testing.assert_array_equal(found, full)
    # The centre is taken from the whole image, bit for bit.
    centre = cropped(encoded, (size, size, 3))
    np.testing.assert_array_equal(centre, pillow(pixels, centre_box(603, 801, size), size))
    assert len(sizes) == reduced


def test_a_png_called_jpeg_is_told_by_its_content():
    found = photo(np.random.RandomState(2), 1, "RGB", "PNG")
    height, width = found.pixels.shape[:2]
    assert found.encoded.startswith(b"\x89PNG")
    for seed in (None, np.array([3], np.uint32)):
        box = centre_box(height, width, 4)
        if seed is not None:
            box = random_box(np.random.RandomState(seed), height, width)
        np.testing.assert_array_equal(
            cropped(found.encoded, (4, 4, 3), seed), pillow(found.pixels, box, 4)
        )


def test_what_is_no_image_is_an_error():
    for encoded in (b"no image", large_jpeg()[:2000]):
        with pytest.raises(OSError, match="cannot identify|truncated"):
            cropped(encoded, (8, 8, 3))
