"""Wrong arguments of the functions of data sets: each error names the argument and what it got."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import data

KEY = jax.random.key(0)
IMAGES = np.zeros((2, 8, 8, 3), np.uint8)
DIGITS = data.SOURCES["digits"]
SPLIT = data.Split(IMAGES, np.zeros(2, np.int32))
NOISE = data.label_noise(DIGITS, 2, 0.5, "symmetric", 0)

augment = functools.partial(data.augment, names=("flip",))
cutout = functools.partial(data.augment, KEY, IMAGES, ("cutout",), cutout_size=2)
of_digits = functools.partial(data.augmentation_of, DIGITS)
noise = functools.partial(data.label_noise, share=0.2, kind="symmetric", seed=0)
digits = functools.partial(data.load, "digits")
three = (0.5,) * 3


def blocks(order, **changes):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return next(data.training_blocks(None, order, **{"steps": 1, "sharding": sharding} | changes))


CASES = {
    "a number for a key": (lambda: augment(0, IMAGES), "key must be one typed key.* got 0"),
    "a raw key": (lambda: augment(jax.random.PRNGKey(0), IMAGES), "typed key"),
    "several keys": (lambda: augment(jax.random.split(KEY), IMAGES), "one typed key"),
    "a list of images": (lambda: augment(KEY, [[1]]), "uint8 images .* got a list"),
    "no names": (lambda: augment(KEY, IMAGES, names=None), "augmentation None.* a tuple of names"),
    "a name that is none": (lambda: augment(KEY, IMAGES, names=(3,)), r"augmentation \[3\]"),
    "half a pixel of pad": (lambda: augment(KEY, IMAGES, pad=1.5), "pad .* whole number, got 1.5"),
    "half a cutout": (lambda: cutout(cutout_size=1.5), "cutout_size .* whole number, got 1.5"),
    "half a layer": (lambda: cutout(randaugment_layers=1.5), "layers .* whole number, got 1.5"),
    "a magnitude": (lambda: cutout(randaugment_magnitude=31), "magnitude .* 0 .. 30, got 31"),
    "a colour's name": (lambda: cutout(fill="red"), "fill must be grey levels .* got 'red'"),
    "no grey level": (lambda: cutout(fill=float("nan")), "0 .. 255, got nan"),
    "a set's name": (lambda: data.augmentation_of("digits"), r"SOURCES\['digits'\].* got 'digits'"),
    "a source's text": (lambda: of_digits("flip"), "augmentation 'flip': give a tuple"),
    "a source's name": (lambda: of_digits(("flop",)), "'flop'.* Did you mean 'flip'?"),
    "a source's pad": (lambda: of_digits(pad=-2), "pad must be 0 or positive, got -2"),
    "a source's cutout": (lambda: of_digits(cutout_size=0), "cutout_size .* at least 1, got 0"),
    "a source's layers": (lambda: of_digits(randaugment_layers=0), "layers .* at least 1, got 0"),
    "noise of a name": (lambda: noise("cifar10", 10), r"source .* SOURCES\['cifar10'\]"),
    "noise of none": (lambda: noise(DIGITS, -1), "examples must be 0 or positive, got -1"),
    "noise of a half": (lambda: noise(DIGITS, 2.5), "examples must be a whole number, got 2.5"),
    "a noisy seed": (lambda: noise(DIGITS, 9, seed=-1), r"seed must be in 0 .. \d+, got -1"),
    "half a seed": (lambda: noise(DIGITS, 9, seed=0.5), "seed must be a whole number, got 0.5"),
    "a share": (lambda: noise(DIGITS, 9, share="a"), r"label_noise .* in \[0, 1\], got 'a'"),
    "a kind": (lambda: noise(DIGITS, 9, kind="sym"), "label_noise_kind .* got 'sym'"),
    "a share as noise": (lambda: data.with_label_noise(SPLIT, 0.1), "noise .* got a float"),
    "labels as a split": (
        lambda: data.with_label_noise(SPLIT.labels, NOISE),
        r"split .* load\(NAME\).train, got int32 \(2,\)",
    ),
    "noise of fewer": (
        lambda: data.with_label_noise(data.Split(IMAGES[:1], SPLIT.labels[:1]), NOISE),
        "noise is of 2 examples, and the split has 1: .* examples=1",
    ),
    "a set's number": (lambda: data.load(3), "data.name must be a text.* got 3"),
    "a split's number": (lambda: digits(train_split=1), "data.train_split must be a text"),
    "a folder's number": (lambda: data.load("mnist", 3), "data_dir must be the path .* got 3"),
    "half an example": (lambda: digits(train_examples=1.5), "train_examples .* whole .* got 1.5"),
    "a truth for a number": (lambda: digits(image_size=True), "image_size .* whole .* got True"),
    "a way to stream": (lambda: digits(streaming="alway"), "streaming .* Did you mean 'always'?"),
    "half held out": (
        lambda: data.load_with_validation("digits", validation_examples=2.5),
        "validation_examples must be a whole number, got 2.5",
    ),
    "one image's number": (lambda: data.normalise(7, three, three), r"images .* got 7"),
    "one mean": (lambda: data.normalise(IMAGES, (0.5,), three), "mean .* each of 3 channels"),
    "a number as deviation": (lambda: data.normalise(IMAGES, three, 0.5), "std .* got 0.5"),
    "no deviation": (lambda: data.normalise(IMAGES, three, (0.0,) * 3), "std must be positive"),
    "no mean": (lambda: data.normalise(IMAGES, (np.nan,) * 3, three), "mean must be finite"),
    "one step's order": (lambda: blocks(jnp.arange(3)), r"order .* \[1 \+ n, batch\].* \(3,\)"),
    "half a step": (lambda: blocks(jnp.zeros((2, 1)), steps=0.5), "steps .* whole .* got 0.5"),
    "a raw key of crops": (
        lambda: blocks(jnp.zeros((2, 1)), key=jax.random.PRNGKey(0)),
        "one typed key",
    ),
    "columns": (lambda: data.mean_over_blocks(None, [], 1, None), "columns .* got 0 of them"),
    "no batch": (lambda: data.mean_over_blocks(None, [1, 2], 0, None), "batch_size .* got 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_argument_is_named(case):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        call()
