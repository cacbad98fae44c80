"""ImageNet in the format of TensorFlow Datasets, with a few photographs that are made here.

Among the files, which are all called JPEG, one is grey, one is in CMYK and one is a PNG, as in the
real set.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

CLASSES = (7, 130, 517, 999)  # of the thousand
COLOURS = ((200, 60, 60), (60, 190, 60), (60, 60, 200), (190, 180, 50))
SPLITS = {"train": 48, "validation": 14, "test": 3}  # the test split has no labels
SPECIAL = {3: ("L", "JPEG"), 10: ("CMYK", "JPEG"), 17: ("RGB", "PNG")}


class Photo(NamedTuple):
    """A file, its label and its pixels in RGB as Pillow decodes them, uint8 [H, W, 3]."""

    encoded: bytes
    label: int
    pixels: np.ndarray


def photo(random, kind, mode="RGB", file_format="JPEG"):
    """A smooth picture of random size whose colour tells its class."""
    height, width = random.randint(36, 90, 2)
    coarse = Image.fromarray(random.randint(0, 256, (4, 5, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    pixels = 0.6 * np.array(COLOURS[kind]) + 0.4 * smooth
    file = io.BytesIO()
    image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    image.save(file, file_format, **({"quality": 92} if file_format == "JPEG" else {}))
    return Photo(file.getvalue(), CLASSES[kind], decoded(file.getvalue()))


def decoded(encoded):
    """A file's pixels in RGB."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def photos(split):
    """The photographs of a split."""
    random = np.random.RandomState(list(SPLITS).index(split))
    special = SPECIAL if split == "train" else {}
    found = [photo(random, i % 4, *special.get(i, ())) for i in range(SPLITS[split])]
    return [x._replace(label=-1) for x in found] if split == "test" else found


def prepare(data_dir):
    """Write them by the builder of the real set, which alone decides features and layout."""
    import tensorflow_datasets as tfds

    def examples(split):
        for i, x in enumerate(photos(split)):
            name = f"{split}_{i:08}.JPEG"
            yield name, {"file_name": name, "image": io.BytesIO(x.encoded), "label": x.label}

    builder = tfds.builder("imagenet2012", data_dir=str(data_dir), file_format="array_record")
    builder._split_generators = lambda dl_manager: {split: examples(split) for split in SPLITS}
    builder.download_and_prepare()
