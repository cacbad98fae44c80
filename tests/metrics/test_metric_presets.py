from sam_jax import metrics


def test_published_conditions_differ_between_sharpness_and_asymmetry():
    published = metrics.PRESETS["published"]
    assert published is metrics.PUBLISHED
    for sharpness in (published.adversarial, published.average):
        assert sharpness == metrics.Conditions(
            batch_norm="batch", normalise_images=False, examples="first", same_examples=False
        )
    for landscape in (published.asymmetry, published.curve):
        assert landscape == metrics.Conditions(
            batch_norm="running", normalise_images=True, examples="all", same_examples=True
        )
    assert published.average_distribution == "gaussian"
    assert published.asymmetry_distribution == "uniform"


def test_sound_conditions_are_one_function_of_the_weights():
    sound = metrics.PRESETS["sound"]
    conditions = (sound.adversarial, sound.average, sound.asymmetry, sound.curve)
    assert {(c.batch_norm, c.normalise_images) for c in conditions} == {("running", True)}
    assert all(c.same_examples for c in conditions)
    assert sound.average_distribution == "sphere"
    assert sound.asymmetry_distribution == "gaussian"


def test_presets_are_found_by_their_names():
    assert {name: preset.name for name, preset in metrics.PRESETS.items()} == {
        "published": "published",
        "sound": "sound",
    }
