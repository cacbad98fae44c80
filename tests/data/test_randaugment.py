"""RandAugment against Pillow with the released code's magnitudes, and the law of its draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from autoaugment_reference import ENHANCERS, FILL, noise
from PIL import Image, ImageOps

from sam_jax import data
from sam_jax.data import randaugment as ra
from sam_jax.data.autoaugment_levels import strengths_of
from sam_jax.data.drawn_operations import apply_operations, compile_operations

HEIGHT, WIDTH = 120, 130  # not moved out of sight at magnitude 11


def released(name, magnitude):
    """The argument that the released code computes from a magnitude, with the sign +."""
    level = float(magnitude)
    if name in ENHANCERS:
        return level / 10 * 1.8 + 0.1
    return {
        "Rotate": level / 10 * 30.0,
        "Posterize": int(level / 10 * 4),
        "Solarize": int(level / 10 * 256),
        "SolarizeAdd": int(level / 10 * 110),
        "Cutout": int(level / 10 * 40),
        "ShearX": level / 10 * 0.3,
        "ShearY": level / 10 * 0.3,
        "TranslateX": level / 10 * 100.0,
        "TranslateY": level / 10 * 100.0,
    }.get(name, 0)


def expected(name, image, value, centre):
    """The image by Pillow, or by NumPy where Pillow has no such operation."""
    picture = Image.fromarray(image)
    if name in ENHANCERS:
        return np.array(ENHANCERS[name](picture).enhance(value))
    if name == "SolarizeAdd":
        return np.where(image < 128, np.minimum(image.astype(int) + value, 255), image)
    if name == "Cutout":
        cut = image.copy()
        rows, columns = (slice(max(0, c - value), c + value) for c in centre)
        cut[rows, columns] = FILL
        return cut
    if name == "Rotate":
        return np.array(picture.rotate(value, fillcolor=FILL))
    if name in ("AutoContrast", "Equalize", "Invert"):
        return np.array(getattr(ImageOps, name.lower())(picture))
    if name == "Solarize":
        return np.array(ImageOps.solarize(picture, value))
    if name == "Posterize":
        return np.array(ImageOps.posterize(picture, min(value, 8)))
    matrix = {
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
        "TranslateX": (1, 0, value, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, value),
    }[name]
    return np.array(picture.transform(picture.size, Image.AFFINE, matrix, fillcolor=FILL))


def compiled(magnitude):
    entries = tuple((name, magnitude) for name in ra.OPERATIONS)
    return compile_operations(entries, HEIGHT, WIDTH, "randaugment")


def draws(magnitude, count, layers=2):
    def one(key):
        return ra.draw_layers(key, compiled(magnitude), layers, HEIGHT, WIDTH)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), count))


def photograph(seed=0):
    image = noise((HEIGHT, WIDTH, 3), seed)
    image[0, 0], image[0, 1] = 0, 255  # so that AutoContrast is Pillow's to the bit
    return image


@functools.partial(jax.jit, static_argnames=("magnitude", "layers"))
def applied(key, image, magnitude, layers):
    draw = ra.draw_layers(key, compiled(magnitude), layers, HEIGHT, WIDTH)
    return apply_operations(image, draw, jnp.array(FILL, jnp.uint8)), draw


def names_of(draw, magnitude):
    """The names, whether the signs are negative, and the centres of what was drawn."""
    tables = compiled(magnitude)
    found = []
    for branch, strength, coefficients in zip(*map(np.asarray, draw), strict=True):
        for i, name in enumerate(ra.OPERATIONS):
            for sign in (0, 1):
                same = (branch, strength) == (tables.branch[i], tables.strength[i, sign])
                if same and (
                    name == "Cutout" or np.array_equal(coefficients, tables.coefficients[i, sign])
                ):
                    found.append((name, sign, coefficients[:2]))
                    break
            else:
                continue
            break
    return found


@pytest.mark.parametrize("magnitude", [3, 9, 11])
def test_operations_are_those_of_the_released_code(magnitude):
    seen = set()
    image = photograph()
    for i in range(120):
        result, draw = applied(jax.random.key(i), image, magnitude, 1)
        ((name, negative, centre),) = names_of(draw, magnitude)
        value = released(name, magnitude)
        value = -value if negative else value
        np.testing.assert_array_equal(result, expected(name, image, value, centre), name)
        seen.add((name, negative))
    signed = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
    assert seen == {(name, sign) for name in ra.OPERATIONS for sign in range(1 + (name in signed))}


def test_layers_are_applied_one_after_the_other():
    for i in range(8):
        image = photograph(i)
        image[noise(image.shape, 50 + i) < 13] = 0  # both extremes stay, for AutoContrast
        image[noise(image.shape, 90 + i) < 13] = 255
        result, draw = applied(jax.random.key(i), image, 9, 3)
        chosen = names_of(draw, 9)
        assert len(chosen) == 3
        for name, negative, centre in chosen:
            value = released(name, 9)
            image = expected(name, image, -value if negative else value, centre).astype(np.uint8)
        np.testing.assert_array_equal(result, image)


def test_every_magnitude_means_what_the_released_code_says():
    for name in ra.OPERATIONS:
        for magnitude in range(31):
            value = released(name, magnitude)
            value = min(value, {"Posterize": 8, "Solarize": 256}.get(name, value))
            plus, minus = strengths_of("randaugment", name, magnitude, HEIGHT, WIDTH)
            assert plus == pytest.approx(value, rel=1e-12)
            signed = name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
            assert minus == (-plus if signed else plus)


def test_operations_are_chosen_uniformly_and_independently():
    count = 16 * 400
    drawn = draws(9, count)
    tables = compiled(9)
    # Operations are told apart by their branch and the size of their strength, but for four pairs
    # of affine ones, which their coefficients tell.
    kinds = np.unique(np.asarray(drawn.branch))
    assert set(kinds) == set(tables.branch)
    observed = np.stack([(drawn.branch == kind).sum(0) for kind in kinds])
    weights = np.array([(tables.branch == kind).sum() for kind in kinds]) / 16
    bound = scipy.stats.chi2.isf(1e-5, len(kinds) - 1)
    for layer in range(2):
        assert np.sum((observed[:, layer] - count * weights) ** 2 / (count * weights)) < bound
    twice = np.mean(drawn.branch[:, 0] == drawn.branch[:, 1])
    chance = np.sum(weights**2)
    assert abs(twice - chance) < 5 * np.sqrt(chance * (1 - chance) / count)


def test_signs_are_fair_and_cutouts_anywhere():
    drawn = jax.tree.map(lambda x: np.asarray(x)[:, 0], draws(9, 16 * 400))
    moved = drawn.coefficients[drawn.branch == 1]
    across = moved[:, 2][np.abs(moved[:, 2]) > 80 * 65536]  # TranslateX
    assert abs(np.mean(across < 0) - 0.5) < 5 * np.sqrt(0.25 / len(across))
    cut = drawn.branch == ra.CUTOUT
    for column, side in ((0, HEIGHT), (1, WIDTH)):
        counts = np.bincount(drawn.coefficients[cut, column] * 10 // side, minlength=10)
        assert counts.sum() == cut.sum() and counts.shape == (10,)
        assert np.sum((counts - cut.sum() / 10) ** 2 / (cut.sum() / 10)) < scipy.stats.chi2.isf(
            1e-5, 9
        )


def test_loop_and_vectorised_forms_agree():
    batch = jnp.stack([jnp.asarray(photograph(i)) for i in range(24)])
    keys = jax.random.split(jax.random.key(2), 24)
    fill = jnp.array(FILL, jnp.uint8)
    looped = ra.randaugment(keys, batch, fill, 2, 9)

    def one(key, image):
        draw = ra.draw_layers(key, compiled(9), 2, HEIGHT, WIDTH)
        return apply_operations(image, draw, fill)

    np.testing.assert_array_equal(looped, jax.jit(jax.vmap(one))(keys, batch))


def test_augment_takes_the_numbers():
    images = jnp.stack([jnp.asarray(photograph(i)) for i in range(4)])

    def run(**numbers):
        return data.augment(jax.random.key(0), images, ("randaugment",), fill=FILL, **numbers)

    default = run()
    np.testing.assert_array_equal(default, run(randaugment_layers=2, randaugment_magnitude=9))
    assert np.any(default != run(randaugment_layers=3))
    assert np.any(default != run(randaugment_magnitude=5))


def test_an_image_stays_in_sight():
    small = jnp.zeros((1, 91, 100, 3), jnp.uint8)
    arguments = jax.random.split(jax.random.key(0), 1), small, jnp.zeros(3, jnp.uint8)
    ra.randaugment(*arguments, magnitude=9)
    with pytest.raises(ValueError, match="magnitude = 10 .* integer in 0 .. 9. .* 91 x 100 pixels"):
        ra.randaugment(*arguments, magnitude=10)
