"""Logits and gradients of the references' own code, with the weights of carried_weights.py.

The numbers were made outside the suite, in float64, with the weights carried over by the names of
the layers:
* google-research/sam, its models as they stand, on a layer of JAX that offers the functions of the
  old Flax. Where an image has an even side, its strided 3x3 convolutions were padded symmetrically,
  which is how the models here differ from it;
* tml-epfl/understanding-sam, deep_nets/models.py, and torchvision 0.29.1, with PyTorch 2.14.1;
* google-research/vision_transformer, vit_jax/models_vit.py.
"""

import carried_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carried_weights import outcome

from sam_jax import models

STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5))
CASES = {  # model, attributes, shape of the images, train; logits, gradient's norm and projection
    "preact_resnet, group norm": (
        ("preact_resnet", {"width": 8, "norm": "group"}, (2, 32, 32, 3), True),
        [[0.67837973, -0.79400291, -0.33053408], [0.85314014, -0.69106693, -0.33288773]],
        (7.61144958, -7.46437664),
    ),
    "preact_resnet": (
        ("preact_resnet", {"width": 4}, (4, 32, 32, 3), True),
        [
            [0.77595015, 0.1302443, -0.75248002],
            [0.12702018, 0.6304228, -0.31901917],
            [1.15194482, 0.18300063, -0.99618543],
            [0.61721719, 0.33257989, -0.83055744],
        ],
        (4.80420312, -1.94927453),
    ),
    "resnet, understanding-sam's ResNet34": (
        ("resnet", {"width": 4, "blocks": (3, 4, 6, 3)}, (4, 32, 32, 3), True),
        [
            [1.57418527, 1.83389731, -1.49062193],
            [0.95063672, 1.31982838, -1.23036934],
            [0.76088667, 1.74481839, -1.96675227],
            [1.03745411, 1.23767126, -1.32397503],
        ],
        (32.6390372, 56.4400075),
    ),
    "imagenet_resnet, torchvision": (
        ("imagenet_resnet", {"blocks": (1, 1, 1, 1)}, (4, 64, 64, 3), True),
        [
            [-0.46315273, -0.42092525, -0.91141306],
            [0.42442158, 0.10072201, -0.58867249],
            [0.37290264, -0.44682959, -0.76753172],
            [-1.57327086, 0.26700672, -1.79050108],
        ],
        (49.9001292, 59.20574),
    ),
    "imagenet_resnet, SAM": (
        (
            "imagenet_resnet",
            {"width": 8, "blocks": (1, 2), "stem_relu": False},
            (2, 33, 33, 3),
            True,
        ),
        [[1.12205397, 1.60280878, -1.2534703], [1.17477752, 1.73902351, -0.76947503]],
        (7.7703655, 2.25193905),
    ),
    "wide_resnet": (
        ("wide_resnet", {"depth": 16, "width": 2, "shortcut": "padding"}, (2, 8, 8, 3), True),
        [[0.62331926, 1.16549186, -0.83711332], [1.30033799, 0.76335231, 0.11540368]],
        (31.0450569, 31.5128633),
    ),
    "wide_resnet, additional skips": (
        (
            "wide_resnet",
            {"depth": 16, "width": 2, "shortcut": "padding", "additional_skips": True},
            (2, 8, 8, 3),
            True,
        ),
        [[0.80781666, 1.1641859, -0.94793488], [0.98108224, 0.59834738, 0.09677133]],
        (18.9686283, -2.11844398),
    ),
    "wide_resnet_shake_shake": (
        ("wide_resnet_shake_shake", {"depth": 14, "width": 1}, (2, 8, 8, 3), False),
        [[2.92248991, 6.03106685, -0.93563862], [4.32503418, 4.75495311, -0.67838122]],
        (67.3160864, 54.2301719),
    ),
    "pyramid_net": (
        ("pyramid_net", {"depth": 20, "alpha": 30}, (2, 32, 32, 3), False),
        [[-4.13651236, 3.04966803, 14.89826321], [-4.35367122, 4.04646545, 15.34578967]],
        (311.299841, -388.423733),
    ),
    "efficientnet": (
        (
            "efficientnet",
            {"variant": "b2", "stages": STAGES, "dropout": 0.0, "stochastic_depth": 0.0},
            (2, 33, 33, 3),
            True,
        ),
        [[0.43553103, 0.23533342, -0.10103679], [0.26094109, 0.11824554, -0.30812602]],
        (5.03731949, 13.2851198),
    ),
    "vision_transformer": (
        ("vision_transformer", {"variant": "Ti/4", "depth": 2}, (2, 8, 12, 3), False),
        [[0.07048709, 1.04513794, 1.59513231], [0.24135669, 1.06102129, 1.33374686]],
        (34.733179, 16.8548107),
    ),
}
# In training mode, with the draws below in the place of random ones; gradients without and with
# `true_gradient`.
MIXED = {
    "wide_resnet_shake_shake": (
        ({"depth": 14, "width": 1}, (2, 8, 8, 3)),
        [[1.10989089, 2.70537706, -0.32489638], [0.52904684, 0.99430926, -0.41344025]],
        {False: (20.6371742, 9.36866818), True: (21.1370542, 2.99036207)},
    ),
    "pyramid_net": (
        ({"depth": 20, "alpha": 30}, (2, 32, 32, 3)),
        [[0.8668515, 1.4565038, -0.06880479], [0.44933765, 0.78076388, -0.28212051]],
        {False: (6.71325642, 0.722428635), True: (5.48326153, 2.72316065)},
    ),
}


def assert_is_reference(found, logits, gradient):
    """Equal to the nine digits of the table; the projection relative to the gradient's length."""
    np.testing.assert_allclose(found[0], logits, rtol=1e-7, atol=2e-8)
    np.testing.assert_allclose(found[1], gradient[0], rtol=1e-8)
    np.testing.assert_allclose(found[2], gradient[1], rtol=1e-8, atol=1e-8 * gradient[0])


@pytest.mark.parametrize("case", CASES)
def test_carried_weights_give_the_reference_s_logits_and_gradients(case):
    (name, attributes, shape, train), logits, gradient = CASES[case]
    found = outcome(models.create(name, 3, **attributes), shape, train)
    assert_is_reference(found, logits, gradient)


def scripted(monkeypatch, backward_draws):
    """Have every draw for an example be a number of its place and of whether it goes backwards.

    A draw from U(-1, 1) is ShakeDrop's forwards. Of those from U(0, 1) every other one is
    Shake-Shake's backwards, where it draws one, and all are ShakeDrop's.
    """
    uniform, calls = jax.random.uniform, []

    def draw(key, shape=(), dtype=jnp.float32, minval=0.0, maxval=1.0):
        if tuple(shape[1:]) != (1, 1, 1):  # of an initialisation
            return uniform(key, shape, dtype, minval, maxval)
        backward = minval == 0 and backward_draws(len(calls))
        calls.append(shape)
        place = (np.arange(shape[0]) + (1.6 if backward else 1.0)) / (shape[0] + 1.3)
        return jnp.asarray(minval + (maxval - minval) * place).reshape(shape)

    def kept(key, p=0.5, shape=()):
        return (jnp.arange(shape[0]) % 2 == 0).reshape(shape)

    monkeypatch.setattr(jax.random, "uniform", draw)
    monkeypatch.setattr(jax.random, "bernoulli", kept)


@pytest.mark.parametrize("true_gradient", [False, True])
@pytest.mark.parametrize("name", MIXED)
def test_carried_draws_give_the_reference_s_mixing(monkeypatch, name, true_gradient):
    (attributes, shape), logits, gradients = MIXED[name]
    if name == "pyramid_net":
        scripted(monkeypatch, lambda call: True)
    else:
        scripted(monkeypatch, lambda call: not true_gradient and call % 2 == 1)
    model = models.create(name, 3, **attributes)
    found = outcome(model, shape, True, true_gradient=true_gradient)
    assert_is_reference(found, logits, gradients[true_gradient])
    # Negative control: the other gradient is another one.
    assert abs(found[1] / gradients[not true_gradient][0] - 1) > 0.01


def test_a_swap_of_two_kernels_of_one_shape_is_seen(monkeypatch):
    names = ("params/group0_block1/conv1/kernel", "params/group0_block1/conv2/kernel")
    swapped, numbers = dict(zip(names, names[::-1], strict=True)), carried_weights.numbers
    monkeypatch.setattr(
        carried_weights, "numbers", lambda name, shape: numbers(swapped.get(name, name), shape)
    )
    (name, attributes, shape, train), logits, gradient = CASES["wide_resnet"]
    found = outcome(models.create(name, 3, **attributes), shape, train)
    assert np.abs(found[0] - logits).max() > 0.01
    assert abs(found[1] / gradient[0] - 1) > 0.01
