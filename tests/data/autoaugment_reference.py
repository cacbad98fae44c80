"""AutoAugment's operations by Pillow, as the released codes ask for them, and by this package."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from sam_jax.data import autoaugment as aa
from sam_jax.data.drawn_operations import BRANCHES

FILL = (125, 123, 114)
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ENHANCERS = {
    "Brightness": ImageEnhance.Brightness,
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Sharpness": ImageEnhance.Sharpness,
}
OPERATIONS = (*GEOMETRIC, *ENHANCERS, "AutoContrast", "Equalize", "Invert", "Solarize", "Posterize")


# What torchvision's levels 0 ... 9 mean, as torch.linspace gives them in float32.
TORCHVISION = {
    "enhance": (
        0.0,
        0.09999999403953552,
        0.19999998807907104,
        0.29999998211860657,
        0.3999999761581421,
        0.5,
        0.6000000238418579,
        0.699999988079071,
        0.7999999523162842,
        0.8999999761581421,
    ),
    "shear": (0.0, 1 / 30, 2 / 30, 0.1, 4 / 30, 5 / 30, 0.2, 7 / 30, 8 / 30, 0.3),
    "degrees": (0.0, 10 / 3, 20 / 3, 10.0, 40 / 3, 50 / 3, 20.0, 70 / 3, 80 / 3, 30.0),
    "bits": (8, 8, 7, 7, 6, 6, 5, 5, 4, 4),
    "threshold": (
        255,
        226.66667,
        198.33333,
        170,
        141.66666,
        113.333336,
        85,
        56.666668,
        28.333334,
        0,
    ),
}
HIGHEST = {"authors": 10, "torchvision": 9}


def strengths(levels, name, level, size):
    """The strength that a code asks of Pillow with the sign +, and the one with the sign -."""
    if levels == "torchvision":
        if name in ENHANCERS:
            change = TORCHVISION["enhance"][level]
            return 1.0 + change, 1.0 - change
        if name.startswith("Translate"):
            pixels = int(150 / 331 * size[name == "TranslateY"] * level / 9)
            return pixels, -pixels
        column = {"S": "shear", "R": "degrees", "P": "bits"}.get(name[0])
        column = "threshold" if name == "Solarize" else column
        value = TORCHVISION[column][level] if column else 0
    elif name in ENHANCERS:
        return (float(level) * 1.8 / 10 + 0.1,) * 2
    else:
        value = {
            "Shear": float(level) * 0.3 / 10,
            "Trans": int(level * 10 / 10),
            "Rotat": int(level * 30 / 10),
            "Solar": 256 - int(level * 256 / 10),
            "Poste": 4 - int(level * 4 / 10),
        }.get(name[:5], 0)
    return (value, -value) if name in GEOMETRIC else (value, value)


def pillow(name, level, image, sign=1, levels="authors"):
    """What the released code asks of Pillow, with the fill colour given at once."""
    picture = Image.fromarray(np.asarray(image))
    value = strengths(levels, name, level, picture.size)[0 if sign == 1 else 1]

    def transform(*matrix):
        return picture.transform(picture.size, Image.AFFINE, matrix, fillcolor=FILL)

    if name in ENHANCERS:
        result = ENHANCERS[name](picture).enhance(value)
    else:
        result = {
            "ShearX": lambda: transform(1, value, 0, 0, 1, 0),
            "ShearY": lambda: transform(1, 0, 0, value, 1, 0),
            "TranslateX": lambda: transform(1, 0, value, 0, 1, 0),
            "TranslateY": lambda: transform(1, 0, 0, 0, 1, value),
            "Rotate": lambda: picture.rotate(value, fillcolor=FILL),
            "AutoContrast": lambda: ImageOps.autocontrast(picture),
            "Equalize": lambda: ImageOps.equalize(picture),
            "Invert": lambda: ImageOps.invert(picture),
            "Solarize": lambda: ImageOps.solarize(picture, value),
            "Posterize": lambda: ImageOps.posterize(picture, value),
        }[name]()
    return np.array(result)


@functools.partial(jax.jit, static_argnames="branch")
def run_branch(branch, image, strength, coefficients):
    function = list(BRANCHES.values())[branch]
    return function(image, strength, coefficients, jnp.array(FILL, jnp.uint8))


def ours(name, level, image, sign=1, levels="authors"):
    """The same through the compiled tables; the operation first, a neutral one second."""
    compiled = aa.compile_policy(
        (((name, 1.0, level), ("Invert", 1.0, 0)),), image.shape[0], image.shape[1], levels
    )
    signed = (0, 0, 0 if sign == 1 else 1)
    branch = int(compiled.branch[0, 0])
    return np.array(
        run_branch(branch, image, compiled.strength[signed], compiled.coefficients[signed])
    )


def noise(shape, seed=0, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def images():
    """Noise over all values and over few, smooth, constant and two-valued; square and not."""
    y, x = np.mgrid[:32, :32]
    two = np.where(noise((32, 32, 3), 5) < 80, 40, 200).astype(np.uint8)
    return {
        "noise": noise((32, 32, 3)),
        "oblong": noise((19, 26, 3), 1),
        "low_contrast": noise((32, 32, 3), 2, 100, 117),
        "dark": noise((32, 32, 3), 3, 0, 3),
        "smooth": np.stack([4 * x + 3 * y, 8 * y, 255 - 5 * x], -1).astype(np.uint8),
        "constant": np.full((32, 32, 3), (0, 77, 255), np.uint8),
        "two_valued": two,
        # 384 pixels of nearly equal counts: the step is 1 and the table overshoots 255.
        "small": np.arange(384 * 3, dtype=np.int64).reshape(16, 24, 3).astype(np.uint8),
        "tiny": noise((5, 7, 3), 4),
    }


def draws(compiled, count):
    keys = jax.random.split(jax.random.key(3), count)
    return jax.jit(jax.vmap(lambda key: aa.draw_operations(key, compiled)))(keys)
