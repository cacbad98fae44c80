"""Crops that bring encoded images of any size to one: at random for training, else of the centre.

The two crops of google-research/sam's ImageNet models, which are those of TensorFlow's ResNet and
EfficientNet. Departures from that code:

- Images are resized by Pillow's bicubic filter, which takes the mean over the pixels that become
  one. TensorFlow's reads four by four pixels however many become one, which aliases.
- A random crop may touch the lower and the right border. TensorFlow draws its place one pixel
  short of them.
- A JPEG whose random crop is twice as large as the result or more is decoded at a half, a quarter
  or an eighth of its size, never to less than twice the result.
"""

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

SHARES = (0.08, 1.0)  # of the image's area, between which the heights of random crops are drawn
COVERED = 0.1  # the least share of the image that a random crop covers
ASPECTS = (3 / 4, 4 / 3)  # width over height of a random crop
ATTEMPTS = 10  # at a random crop, before the centre is taken
PADDING = 32  # pixels that the centre crop leaves away at the size of the result
MODES = {1: "L", 3: "RGB"}  # Pillow's name of the images of so many channels
REDUCTIONS = (8, 4, 2)  # by which Pillow can decode a JPEG to a smaller size


class Box(NamedTuple):
    """A rectangle of pixels; `right` and `bottom` lie outside."""

    left: int
    top: int
    right: int
    bottom: int


def random_box(random: np.random.RandomState, height: int, width: int) -> Box | None:
    r"""Draw the training crop of an image.

    Up to ten times, an aspect ratio a is uniform in [3/4, 4/3], and a height h is uniform among the
    integers of

    .. math::
      \sqrt{0.08\,HW / a} \le h \le \min(H, W / a)

    with the width a h, rounded. The crop is taken at a uniform place where it covers a tenth of the
    image or more. So its height is uniform and not its area, and 0.08 is the bound of the draws
    alone: google-research/sam asks that a tenth of the whole image, its only object, be covered.

    Args:
      random: what draws.
      height: H, in pixels.
      width: W.

    Returns:
      The box; None where no attempt succeeds, or the box is the whole image.

    >>> random_box(np.random.RandomState(0), 300, 400)
    Box(left=67, top=64, right=294, bottom=276)
    """
    for _ in range(ATTEMPTS):
        aspect = random.uniform(*ASPECTS)
        highest = min(height, math.ceil((width + 0.5) / aspect) - 1)  # rounded, it is not too wide
        lowest = min(highest, round(math.sqrt(SHARES[0] * height * width / aspect)))
        crop_height = random.randint(lowest, highest + 1)
        crop_width = round(crop_height * aspect)
        if crop_width > width or crop_height * crop_width < COVERED * height * width:
            continue
        if (crop_height, crop_width) == (height, width):
            return None
        top = random.randint(0, height - crop_height + 1)
        left = random.randint(0, width - crop_width + 1)
        return Box(left, top, left + crop_width, top + crop_height)
    return None


def centre_box(height: int, width: int, image_size: int) -> Box:
    """Return the evaluation crop: a square in the centre of an image.

    Its side is the share image_size / (image_size + 32) of the image's shorter one, rounded down.

    Args:
      height: in pixels.
      width: likewise.
      image_size: side of the square that it is resized to.

    >>> centre_box(256, 301, 224)
    Box(left=39, top=16, right=263, bottom=240)
    """
    side = max(1, image_size * min(height, width) // (image_size + PADDING))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    return Box(left, top, left + side, top + side)


def cropped(
    encoded: bytes, image_shape: tuple[int, int, int], seed: np.ndarray | None = None
) -> np.ndarray:
    """Return a crop of an encoded image.

    Args:
      encoded: a file in any format that Pillow reads, such as JPEG or PNG; a grey image, one in
        CMYK and one with a palette become what `image_shape` asks for.
      image_shape: (size, size, channels) of the result, with 1 or 3 channels.
      seed: [k] uint32, of `random_box`; None for `centre_box`.

    Returns:
      uint8 [size, size, channels].

    Raises:
      OSError, SyntaxError: Pillow cannot decode the image.
    """
    size, _, channels = image_shape
    with Image.open(io.BytesIO(encoded)) as image:
        width, height = image.size
        box = None if seed is None else random_box(np.random.RandomState(seed), height, width)
        reduction = 1 if box is None else _reduction(box, size)
        # Formats other than JPEG decode to their own size alone, and say so.
        if reduction == 1 or image.draft(None, (width // reduction, height // reduction)) is None:
            reduction = 1
        # What lies outside the crop must not shine into it, so it is cut out before it is resized.
        left, top, right, bottom = (
            edge / reduction for edge in box or centre_box(height, width, size)
        )
        x, y = math.floor(left), math.floor(top)
        cut = image.crop((x, y, math.ceil(right), math.ceil(bottom))).convert(MODES[channels])
        inner = (left - x, top - y, right - x, bottom - y)
        resized = cut.resize((size, size), Image.Resampling.BICUBIC, box=inner)
    return np.asarray(resized).reshape(image_shape)


def _reduction(box: Box, size: int) -> int:
    """Return by how much a JPEG may be reduced, so that the box keeps twice the size it gets."""
    shorter = min(box.right - box.left, box.bottom - box.top)
    return next((r for r in REDUCTIONS if shorter >= 2 * r * size), 1)
