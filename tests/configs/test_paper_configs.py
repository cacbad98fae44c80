"""Every variant of the papers' configs builds its net for its images, and can be trained."""

import jax
import jax.numpy as jnp
import pytest

from configs import imagenet_efficientnet, imagenet_vit
from configs.sam_paper import (
    fine_tune_efficientnet,
    imagenet_resnet,
    noisy_labels,
    pyramid_net,
    shake_shake,
    wide_resnet,
)
from sam_jax import models
from sam_jax.data import SOURCES
from sam_jax.training import build

CIFAR = [
    f"{data_set}-{augmentation}-{epochs}"
    for data_set in ("cifar10", "cifar100")
    for augmentation in ("basic", "cutout", "autoaugment")
    for epochs in (200, 1800)
]
VARIANTS = {
    wide_resnet: CIFAR,
    shake_shake: CIFAR[-1:],
    pyramid_net: CIFAR[-1:],
    noisy_labels: ["20", "40", "60", "80"],
    imagenet_resnet: ["50-100", "101-200", "152-400"],
    imagenet_efficientnet: list(imagenet_efficientnet.SIDES),
    imagenet_vit: [f"{net}-{method}" for net in imagenet_vit.NETS for method in ("sam", "gsam")],
    fine_tune_efficientnet: ["b0", "b7", "l2-475"],
}
CASES = [
    pytest.param(module, variant, id=f"{module.__name__.split('.')[-1]}:{variant}")
    for module, variants in VARIANTS.items()
    for variant in variants
]
# Parameters in millions, of the nets that are published under these names.
MILLIONS = {
    (wide_resnet, "cifar10-basic-200"): 36.2,
    (pyramid_net, CIFAR[-1]): 26.3,
    (imagenet_resnet, "50-100"): 25.6,
    (imagenet_resnet, "101-200"): 44.5,
    (imagenet_resnet, "152-400"): 60.2,
    (imagenet_efficientnet, "b0"): 5.3,
    (imagenet_efficientnet, "b7"): 66.3,
    (imagenet_efficientnet, "l2-475"): 480.3,
    (imagenet_vit, "S/32-gsam"): 22.9,
    (imagenet_vit, "B/16-sam"): 86.6,
}


@pytest.mark.parametrize("module, variant", CASES)
def test_a_variant_builds_its_net_and_can_be_trained(module, variant):
    config = module.get_config(variant)
    assert build.check(config) is None  # it raises otherwise
    source = SOURCES[config.data.name]
    side = config.data.image_size
    shape = (side, side, source.image_shape[-1]) if side else source.image_shape
    found = models.create(config.model.name, source.num_classes, **build.model_arguments(config))
    if (module, variant) in MILLIONS:  # the others differ in their training alone
        variables = jax.eval_shape(found.init, jax.random.key(0), jnp.zeros((1, *shape)))
        size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        assert size / 1e6 == pytest.approx(MILLIONS[module, variant], abs=0.06)


def test_radii_and_shares_are_those_of_the_paper():
    assert wide_resnet.get_config("cifar100-basic-200").method.rho == 0.1
    assert wide_resnet.get_config("cifar10-basic-1800").epochs == 1800
    assert noisy_labels.get_config("80").data.label_noise == 0.8
    gsam = imagenet_vit.get_config("B/32-gsam").method
    assert (gsam.rho, gsam.gsam.rho_min, gsam.gsam.alpha) == (0.6, 0.1, 0.6)


@pytest.mark.parametrize(
    "module, variant, learning_rate, weight_decay, rho",
    [  # the first paper's Table 6 and its appendix
        (wide_resnet, "cifar10-cutout-200", 0.1, 5e-4, 0.05),
        (wide_resnet, "cifar100-cutout-1800", 0.05, 1e-3, 0.1),
        (shake_shake, "cifar10-basic-1800", 0.02, 1e-3, 0.02),
        (shake_shake, "cifar100-basic-1800", 0.02, 1e-3, 0.05),
        (pyramid_net, "cifar10-basic-1800", 0.02, 5e-4, 0.05),
        (pyramid_net, "cifar100-basic-1800", 0.05, 5e-4, 0.05),
        (imagenet_resnet, "152-400", 1.0, 1e-4, 0.05),
        (fine_tune_efficientnet, "b7", 0.016, 1e-5, 0.05),
        (fine_tune_efficientnet, "l2-475", 0.008, 1e-5, 0.05),
    ],
)
def test_settings_of_the_first_paper(module, variant, learning_rate, weight_decay, rho):
    config = module.get_config(variant)
    assert config.optimiser.learning_rate == learning_rate
    assert config.optimiser.weight_decay == weight_decay
    assert config.optimiser.weight_decay_in == "loss"
    assert config.method.rho == rho


def test_efficientnets_are_fine_tuned_with_frozen_statistics_for_so_many_steps():
    for variant, steps in (("b7", 5_000), ("l2-475", 10_000)):
        config = fine_tune_efficientnet.get_config(variant)
        assert config.model.freeze_batch_norm
        taken = config.epochs * (50_000 // config.batch_size)
        assert taken == pytest.approx(steps, rel=0.01)


@pytest.mark.parametrize("module", VARIANTS, ids=lambda m: m.__name__)
def test_an_unknown_variant_names_the_known_ones(module):
    with pytest.raises(ValueError, match="variants are"):
        module.get_config("cifar10-basic-201")
