"""The meaning of a level of an AutoAugment operation, in the authors' code and in torchvision.

The third meaning is that of a magnitude of RandAugment. All give a pair of strengths, for the sign
+ and for the sign -: the operations that draw no sign have twice the same. Where the tables of
AutoAugment differ, for images of 32 x 32 pixels:

| operation | authors, level 0 .. 10 | torchvision, level 0 .. 9 |
|---|---|---|
| ShearX, ShearY | slope +- 0.03 level | slope +- level / 30 |
| TranslateX, TranslateY | +- level pixels | +- int(150 / 331 * 32 level / 9): 14 pixels at 9 |
| Rotate | +- 3 level degrees | +- 10 level / 3 degrees |
| Brightness, Color, Contrast, Sharpness | factor 0.1 + 0.18 level, no sign | 1 +- 0.1 level |
| Posterize | keeps 4 - int(0.4 level) bits: 2 at 7 | keeps 8 - round(4 level / 9): 5 at 7 |
| Solarize | from 256 - int(25.6 level) upwards | from 255 - 255 level / 9 upwards |
| AutoContrast, Equalize, Invert | none | none |

A magnitude of RandAugment, 0 .. 30, means what a level means to the authors, but for

| operation | magnitude |
|---|---|
| TranslateX, TranslateY | +- 10 magnitude pixels |
| Posterize | keeps int(0.4 magnitude) bits, at most 8: all from 20 on |
| Solarize | from int(25.6 magnitude) upwards: nothing from 10 on |
| SolarizeAdd | adds int(11 magnitude) |
| Cutout | a square of 2 int(4 magnitude) pixels |

Sources: tensorflow/models, research/autoaugment, whose CIFAR code has ten levels for a range and
takes them from 0 to 10; google-research/sam, `distort_image_with_randaugment`; torchvision,
`transforms.AutoAugment`, which spreads the levels 0 to 9 over a range. This is torchvision since
0.12: earlier ones shear about the centre, by an angle in place of a slope, and solarise from
256 - 256 level / 9.
"""

from typing import Literal

import numpy as np

Levels = Literal["authors", "torchvision", "randaugment"]
Strengths = tuple[float, float]  # for the sign +, for the sign -

ENHANCEMENTS = ("Brightness", "Color", "Contrast", "Sharpness")


def strengths_of(levels: Levels, name: str, level: int, height: int, width: int) -> Strengths:
    """Return the strengths that a level of an operation stands for, in images of one size.

    Args:
      levels: whose table.
      name: of the operation; one without a strength has (0, 0).
      level: 0 .. 10, or 0 .. 9 for torchvision's and 0 .. 30 for RandAugment's.
      height: image height in pixels.
      width: image width in pixels.

    Returns:
      The strength for the sign + and for the sign -. Its unit depends on the operation: slope,
      pixels, degrees, factor, bits or threshold.

    Raises:
      ValueError: the table or the level is unknown.

    >>> strengths_of("authors", "Posterize", 7, 32, 32), strengths_of("authors", "Color", 4, 32, 32)
    ((2.0, 2.0), (0.82, 0.82))
    >>> strengths_of("torchvision", "Posterize", 7, 32, 32)
    (5.0, 5.0)
    >>> plus, minus = strengths_of("torchvision", "Color", 4, 32, 32)
    >>> print(f"{plus:.6f}, {minus:.6f}")
    1.400000, 0.600000
    """
    highest = {"authors": 10, "torchvision": 9, "randaugment": 30}
    if levels not in highest:
        raise ValueError(f"levels must be one of {sorted(highest)}, got {levels!r}.")
    if not 0 <= level <= highest[levels]:
        raise ValueError(
            f"the levels of {levels!r} are 0 .. {highest[levels]}, got {level} for {name}."
        )
    if levels == "authors":
        return _authors(name, level)
    if levels == "randaugment":
        return _randaugment(name, level)
    return _torchvision(name, level, height, width)


def _authors(name: str, level: int) -> Strengths:
    if name.startswith("Shear"):
        return _signed(level * 0.3 / 10)
    if name.startswith("Translate"):
        return _signed(level)
    if name == "Rotate":
        return _signed(3 * level)
    if name == "Posterize":
        return _unsigned(4 - level * 4 // 10)
    if name == "Solarize":
        return _unsigned(256 - level * 256 // 10)
    if name in ENHANCEMENTS:
        return _unsigned(level * 1.8 / 10 + 0.1)
    return _unsigned(0)


def _randaugment(name: str, magnitude: int) -> Strengths:
    if name.startswith("Translate"):
        return _signed(10 * magnitude)
    share = magnitude / 10  # in floating point as in the code: at 23 SolarizeAdd is 252, not 253
    if name == "Posterize":
        return _unsigned(min(8, int(share * 4)))
    if name == "Solarize":
        return _unsigned(min(256, int(share * 256)))
    if name == "SolarizeAdd":
        return _unsigned(int(share * 110))
    if name == "Cutout":
        return _unsigned(int(share * 40))
    return _authors(name, magnitude)


def _torchvision(name: str, level: int, height: int, width: int) -> Strengths:
    if name.startswith("Shear"):
        return _signed(level * 0.3 / 9)
    if name.startswith("Translate"):
        size = width if name == "TranslateX" else height
        return _signed(150 * size * level // (331 * 9))
    if name == "Rotate":
        return _signed(level * 30 / 9)
    if name == "Posterize":
        return _unsigned(8 - round(level * 4 / 9))
    if name == "Solarize":
        return _unsigned(255 * (9 - level) / 9)
    if name in ENHANCEMENTS:
        # In float32 from the nearer end, as torch.linspace(0, 0.9, 10): the last bit of the
        # factor moves grey levels.
        end, step = np.float32(0.9), np.float32(0.9) / np.float32(9)
        change = float(step * level if level < 5 else end - step * (9 - level))
        return 1 + change, 1 - change
    return _unsigned(0)


def _signed(strength: float) -> Strengths:
    return float(strength), -float(strength)


def _unsigned(strength: float) -> Strengths:
    return float(strength), float(strength)
