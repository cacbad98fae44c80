"""Artificial images in the format of a real set, to try a program without its data."""

import numpy as np

BLOCKS = 4  # a class is a pattern of 4 x 4 blocks
CONTRAST = 48.0
NOISE = 32.0


def synthetic_images(
    image_shape: tuple[int, int, int], num_classes: int, examples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy copies of one random pattern of blocks per class.

    An image of class c is `128 + 48 * pattern[c] + 32 * noise`, both Gaussian, clipped to 0..255.
    The patterns do not depend on `seed`: a model fitted to one seed generalises to another.

    Args:
      image_shape: height, width and channels.
      num_classes: number of classes; they are as evenly filled as `examples` allows.
      examples: number of images n.
      seed: of the noise and the order of the labels.

    Returns:
      The images, uint8 [n, height, width, channels], and the labels, int32 [n].

    >>> images, labels = synthetic_images((8, 8, 1), 10, 20, seed=1)
    >>> images.shape, images.dtype, np.bincount(labels).tolist()
    ((20, 8, 8, 1), dtype('uint8'), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    height, width, channels = image_shape
    blocks = np.random.RandomState(0).standard_normal((num_classes, BLOCKS, BLOCKS, channels))
    rows, columns = np.arange(height) * BLOCKS // height, np.arange(width) * BLOCKS // width
    patterns = blocks[:, rows][:, :, columns]
    random = np.random.RandomState(seed)
    labels = random.permutation(np.arange(examples) % num_classes)
    images = np.empty((examples, *image_shape), np.uint8)
    for i, label in enumerate(labels):  # one by one, as the noise takes eight times their memory
        noisy = 128 + CONTRAST * patterns[label] + NOISE * random.standard_normal(image_shape)
        images[i] = np.clip(np.rint(noisy), 0, 255)
    return images, labels.astype(np.int32)
