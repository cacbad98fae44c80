"""What the levels of AutoAugment mean in the authors' code and in torchvision."""

import numpy as np
import pytest
from autoaugment_reference import HIGHEST, OPERATIONS, draws, images, ours

from sam_jax.data import autoaugment as aa
from sam_jax.data.autoaugment_levels import strengths_of


def test_the_levels_of_both_codes_are_told_apart():
    image = images()["noise"]
    for name in OPERATIONS:
        same = np.array_equal(
            ours(name, 7, image, -1, "authors"), ours(name, 7, image, -1, "torchvision")
        )
        assert same == (name in ("AutoContrast", "Equalize", "Invert")), name
    # The values at which the two are most often confused.
    assert strengths_of("authors", "Posterize", 7, 32, 32) == (2, 2)
    assert strengths_of("torchvision", "Posterize", 7, 32, 32) == (5, 5)
    assert strengths_of("authors", "TranslateX", 9, 32, 32) == (9, -9)
    assert strengths_of("torchvision", "TranslateX", 9, 32, 32) == (14, -14)


def test_translation_in_torchvision_goes_by_the_side_it_runs_along():
    assert strengths_of("torchvision", "TranslateX", 9, 20, 331)[0] == 150
    assert strengths_of("torchvision", "TranslateY", 9, 331, 20)[0] == 150


def test_levels_that_do_not_exist():
    with pytest.raises(ValueError, match="must be one of.*authors.*randaugment.*torchvision"):
        strengths_of("paper", "Rotate", 3, 32, 32)
    for levels, highest in HIGHEST.items():
        strengths_of(levels, "Rotate", highest, 32, 32)
        with pytest.raises(ValueError, match=f"0 .. {highest}, got {highest + 1} for Rotate"):
            strengths_of(levels, "Rotate", highest + 1, 32, 32)


def test_the_sign_of_a_colour_is_drawn_in_torchvision_only():
    policy = ((("Color", 1.0, 3), ("Rotate", 1.0, 3)),)
    count = 4000
    drawn = draws(aa.compile_policy(policy, 32, 32, "torchvision"), count)
    brighter = np.array(drawn.strength[:, 0]) > 1
    np.testing.assert_allclose(np.abs(drawn.strength[:, 0] - 1), 0.3, rtol=1e-6)
    assert abs(brighter.mean() - 0.5) < 5 * np.sqrt(0.25 / count)
    left = np.array(drawn.strength[:, 1]) > 0  # independent of the other operation's sign
    assert abs(np.mean(brighter == left) - 0.5) < 5 * np.sqrt(0.25 / count)
    authors = draws(aa.compile_policy(policy, 32, 32), 100)
    np.testing.assert_allclose(authors.strength[:, 0], 0.64, rtol=1e-6)
