"""Sets of TensorFlow Datasets that no source file names; importing this registers them."""

import numpy as np
import tensorflow_datasets as tfds

CLASSES = ("dark", "middle", "light")
LEVELS = np.array([40, 120, 200])
UNLABELLED = -1


def shapes_split(split):
    """Images of `tiny_shapes`, uint8 [n, 12, 10, 3], whose light tells their class, and labels."""
    seed, examples = {"train": (0, 72), "validation": (1, 21), "test": (2, 5)}[split]
    random = np.random.RandomState(seed)
    labels = random.permutation(np.arange(examples) % len(CLASSES))
    images = LEVELS[labels][:, None, None, None] + random.randint(-40, 56, (examples, 12, 10, 3))
    return images.astype(np.uint8), np.full(examples, UNLABELLED) if split == "test" else labels


class Tiny(tfds.core.GeneratorBasedBuilder):
    """What the sets here share."""

    VERSION = tfds.core.Version("1.2.0")
    SHAPE = (12, 10, 3)

    def info_of(self, features, keys):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=keys
        )

    def _info(self):
        image = tfds.features.Image(shape=self.SHAPE)
        kind = tfds.features.ClassLabel(names=CLASSES)
        return self.info_of({"picture": image, "kind": kind}, ("picture", "kind"))


class TinyShapes(Tiny):
    """RGB images that are higher than wide; its test split has no labels."""

    def _split_generators(self, dl_manager):
        return {x: self._generate_examples(x) for x in ("train", "validation", "test")}

    def _generate_examples(self, split):
        for i, (image, label) in enumerate(zip(*shapes_split(split), strict=True)):
            yield i, {"picture": image, "kind": int(label)}


class TinyVariants(Tiny):
    """Four variants whose images are special in one way each."""

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name)
        for name in ("grey", "unsaid_size", "sizes", "constant", "train_only")
    ]

    def _info(self):
        channels = 1 if self.builder_config.name == "grey" else 3
        image = tfds.features.Image(shape=(None, None, channels))
        kind = tfds.features.ClassLabel(num_classes=2)
        return self.info_of({"image": image, "label": kind}, None)

    def _split_generators(self, dl_manager):
        splits = ("train",) if self.builder_config.name == "train_only" else ("train", "test")
        return {split: self._generate_examples() for split in splits}

    def _generate_examples(self):
        name, random = self.builder_config.name, np.random.RandomState(0)
        for i in range(6):
            width = 5 + (name == "sizes") * (i % 2)
            image = random.randint(0, 256, (6, width, 1 if name == "grey" else 3)).astype(np.uint8)
            if name == "constant":
                image[..., 2] = 255
            yield i, {"image": image, "label": i % 2}


class TinyManual(Tiny):
    """Takes its one file from the folder of what was downloaded by hand."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Fetch images.npy."

    def _split_generators(self, dl_manager):
        images = np.load(dl_manager.manual_dir / "images.npy")
        return {split: self._generate_examples(images) for split in ("train", "test")}

    def _generate_examples(self, images):
        for i, image in enumerate(images):
            yield i, {"picture": image, "kind": 0}


class TinyWords(Tiny):
    """No images."""

    def _info(self):
        kind = tfds.features.ClassLabel(names=CLASSES)
        return self.info_of({"word": tfds.features.Text(), "kind": kind}, ("word", "kind"))

    def _split_generators(self, dl_manager):
        raise AssertionError("a set that cannot be read is not downloaded")

    def _generate_examples(self):
        yield 0, {"word": "a", "kind": 0}
