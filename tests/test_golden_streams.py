"""Golden numbers of every random stream: other numbers here are other results for one seed.

JAX keeps the numbers of a threefry key over its versions, and NumPy those of `RandomState`. So a
number that changes says that the project draws otherwise than in the results of before. Where this
is meant, write the table anew with

    PYTHONPATH=. python tests/test_golden_streams.py

which prints it, put it in the place of GOLDEN below, and say in CHANGELOG.md which results change.
"""

import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_jax import data, metrics, models, optim
from sam_jax.data.augmentation import AUGMENTATIONS
from sam_jax.data.label_noise import label_noise
from sam_jax.data.synthetic import synthetic_images
from sam_jax.metrics.curvature import trace
from sam_jax.metrics.directions import normalisation, random
from sam_jax.metrics.sharpness import average, balls
from sam_jax.models import randomness
from sam_jax.runs.randomness import stream
from sam_jax.training.mixup import mixup
from sam_jax.training.step import epoch_order

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEY = jax.random.key(3)
PARAMS = {
    "bias": np.array([0.5, -1.5], np.float32),
    "kernel": np.array([[0.25, 2.5, -2.0], [3.0, -0.75, 1.25]], np.float32),
}
SLOPES = np.arange(1.0, 9.0, dtype=np.float32)  # tells every number of PARAMS from the others
HESSIAN = np.add.outer(SLOPES, SLOPES**2) % 5 - 2
HESSIAN = (HESSIAN + HESSIAN.T).astype(np.float32)
IMAGES = np.arange(2 * 9 * 9 * 3, dtype=np.uint8).reshape(2, 9, 9, 3)
NAMES = sorted(  # of all named streams of a run or a measurement
    set().union(
        *(
            re.findall(r'\bstream\([^"\n]*"([^"]+)"\)', path.read_text())
            for folder in ("sam_jax", "experiments")
            for path in (ROOT / folder).rglob("*.py")
        )
    )
)


def flat(tree):
    return ravel_pytree(tree)[0]


def slope_loss(params, batch=None):
    return flat(params) @ SLOPES


def curved_loss(params):
    w = flat(params)
    return w @ HESSIAN @ w / 2


def grad_fn(params, batch=None, term=None):
    """Return the gradient of the squared length of the parameters."""
    return jax.tree.map(lambda w: 2 * w, params)


def results(make):
    """Return a number of the update of a second sub-batch, and of each of six updates."""
    tx, found = make(KEY), []
    state = tx.init(PARAMS)
    given = {
        "grad_fn": grad_fn,
        "batch": np.arange(6.0),
        "losses_fn": lambda params, batch=None: jnp.cos(jnp.arange(6.0) + params["bias"][0]),
    }
    found.append(tx.update(grad_fn(PARAMS), state, PARAMS, sub_batch=1, **given)[0])
    for _ in range(6):
        gradient, state = tx.update(grad_fn(PARAMS), state, PARAMS, **given)
        found.append(gradient)
    return [flat(gradient)[-1] for gradient in found]


# Every method that draws.
METHODS = {
    "average_sam": lambda key: optim.average_sam(0.5, key),
    "average_sam, gaussian": lambda key: optim.average_sam(0.5, key, distribution="gaussian"),
    "smooth_out": lambda key: optim.smooth_out(0.5, key),
    "smooth_out, copies": lambda key: optim.smooth_out(0.5, key, copies=2, adaptive=True),
    "weight_noise": lambda key: optim.weight_noise(0.5, key, relative=0.5),
    "ss_sam": lambda key: optim.ss_sam(0.5, key=key),
    "esam": lambda key: optim.esam(0.5, key=key, gamma=1.0),
    "esam, tensor": lambda key: optim.esam(0.5, key=key, gamma=1.0, granularity="tensor"),
    "entropy_sgd": lambda key: optim.entropy_sgd(0.5, key, steps=2, noise=0.1, split_batch=False),
}


def rngs_of_sub_batches():
    """Return the mean over the numbers that the passes of m_sam draw, at w and at w + epsilon."""

    def grad_fn(params, batch, rngs):
        return jax.tree.map(lambda w: jax.random.uniform(rngs, w.shape), params)

    tx = optim.m_sam(optim.sam(0.1), 2)
    given = {"grad_fn": grad_fn, "batch": np.arange(6.0), "rngs": KEY}
    return flat(tx.update(PARAMS, tx.init(PARAMS), PARAMS, **given)[0])[:2]


def average_sharpness(distribution):
    batches = np.zeros((1, 1), np.float32)
    given = {"rho": 1.0, "draws": 2, "distribution": distribution}
    found = metrics.average_sharpness(slope_loss, PARAMS, batches, key=KEY, **given)
    return found.per_draw_perturbed_loss


def adversarial_start(norm):
    return flat(balls.random_point(balls.Ball(rho=1.0, norm=norm), KEY, PARAMS))[:3]


def directions(distribution, normalisation):
    found = metrics.random_directions(KEY, PARAMS, 2, distribution, normalisation)
    return [*found["bias"][:, 1], *found["kernel"][:, 1, 2]]


def augmented(*names):
    """Return what tells the images that some operations make: their weighted sums."""
    small = {"pad": 2, "cutout_size": 3, "randaugment_magnitude": 0}
    augment = jax.jit(lambda key: data.augment(key, IMAGES, names, **small))
    return np.asarray(augment(KEY), np.int64).reshape(len(IMAGES), -1) @ np.arange(9 * 9 * 3)


SMALLEST = {
    "efficientnet": {"stages": ((1, 8, 1, 1, 3),)},
    "imagenet_resnet": {"width": 4, "blocks": (1,)},
    "preact_resnet": {"width": 4, "blocks": (1,)},
    "pyramid_net": {"depth": 11, "alpha": 3},
    "resnet": {"width": 4, "blocks": (1,)},
    "vision_transformer": {"variant": "Ti/4", "depth": 1},
    "wide_resnet": {"depth": 10, "width": 1},
    "wide_resnet_shake_shake": {"depth": 8, "width": 1},
}


def initial(name):
    """Return two numbers of the first and of the last kernel of a model."""
    model = models.create(name, 3, **SMALLEST.get(name, {}))

    @jax.jit  # the other leaves are then not drawn
    def some(key):
        params = model.init(key, jnp.zeros((1, 8, 8, 3)), train=False)["params"]
        kernels = [leaf.ravel() for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        return [kernel[place] for kernel in (kernels[0], kernels[-1]) for place in (0, -1)]

    return some(KEY)


MIXINGS = {
    "shake_shake": lambda x: randomness.shake_shake(x, jnp.zeros_like(x), KEY),
    "shake_drop": lambda x: randomness.shake_drop(x, 0.2, KEY),
    "stochastic_depth": lambda x: randomness.stochastic_depth(x, 0.5, KEY),
}


def mixed(mix):
    """Return the factors of four examples in the value and in the derivative of a mixing."""
    return jnp.stack(jax.jvp(mix, (jnp.ones((4, 1)),), (jnp.ones((4, 1)),))).ravel()


STREAMS = {
    **{f"key {name}": lambda name=name: jax.random.key_data(stream(KEY, name)) for name in NAMES},
    **{f"method {name}": lambda make=make: results(make) for name, make in METHODS.items()},
    "rngs of sub-batches": rngs_of_sub_batches,
    **{
        f"average sharpness {law}": lambda law=law: average_sharpness(law)
        for law in average.DISTRIBUTIONS
    },
    **{f"start in {norm}": lambda norm=norm: adversarial_start(norm) for norm in ("l2", "linf")},
    **{
        f"directions {law}, unit": lambda law=law: directions(law, "unit")
        for law in random.DISTRIBUTIONS
    },
    **{
        f"directions gaussian, {how}": lambda how=how: directions("gaussian", how)
        for how in normalisation.NORMALISATIONS
    },
    **{
        f"trace {law}": lambda law=law: (
            metrics.hessian_trace(curved_loss, PARAMS, key=KEY, draws=4, distribution=law).per_draw
        )
        for law in trace.DISTRIBUTIONS
    },
    # One step of Lanczos gives v'Hv of its start v.
    "eigenvalues": lambda: metrics.hessian_eigenvalues(curved_loss, PARAMS, key=KEY, steps=1).top,
    "spectral density": lambda: metrics.spectral_density(
        curved_loss, PARAMS, key=KEY, draws=2, steps=1, grid=jnp.arange(2.0), width=1.0
    ).ritz_values.ravel(),
    "order of an epoch": lambda: epoch_order(KEY, 1, 20, 8).ravel(),
    **{f"augmentation {name}": lambda name=name: augmented(name) for name in AUGMENTATIONS},
    "augmentation second": lambda: augmented("flip", "crop_zero"),
    **{f"parameters {name}": lambda name=name: initial(name) for name in models.MODELS},
    **{f"mixing by {name}": lambda mix=mix: mixed(mix) for name, mix in MIXINGS.items()},
    "mixup": lambda: mixup(KEY, jnp.eye(2).reshape(2, 2, 1, 1), jnp.arange(2), 1.0, 2)[1],
    "label noise": lambda: label_noise(data.SOURCES["digits"], 9, 0.5, "symmetric", 3)(
        np.arange(9), np.zeros(9, int)
    ),
    "synthetic images": lambda: synthetic_images((4, 4, 1), 3, 5, seed=1)[0].ravel()[:6],
    "synthetic labels": lambda: synthetic_images((4, 4, 1), 3, 5, seed=1)[1],
    "split of the digits": lambda: data.load("digits").train.labels[:12],
}


def numbers(name):
    """Return the numbers of a stream: whole ones, or with five digits."""
    found = np.asarray(STREAMS[name]())
    if np.issubdtype(found.dtype, np.integer):
        return found.tolist()
    return [float(f"{x:.5g}") for x in found.ravel()]


GOLDEN = {
    "key augmentation": [3624001592, 4191995536],
    "key average sharpness": [3331677476, 2199096573],
    "key crops": [1413348588, 1601455866],
    "key curve": [3141866012, 505806142],
    "key directions": [624680175, 1128027368],
    "key eigenvalues": [2706582108, 13695887],
    "key examples": [2160646685, 1624435680],
    "key hessian": [1539083346, 30772035],
    "key mixup": [1522268932, 1742627756],
    "key model": [3869947790, 423164439],
    "key order": [2830403953, 833608930],
    "key parameters": [2218926490, 152251473],
    "key perturbation": [3553878580, 989214315],
    "key plane": [1084726161, 647188271],
    "key spectral density": [2909119568, 3187717009],
    "key top eigenvalues": [1664288619, 2500700056],
    "key trace": [4198113414, 2130435331],
    "key worst-case sharpness": [2682190688, 1188268951],
    "method average_sam": [2.0621, 1.9282, 3.0653, 2.0482, 2.3706, 2.6774, 2.8376],
    "method average_sam, gaussian": [1.329, 0.42028, 3.5951, 1.8896, 2.0859, 2.8418, 3.6248],
    "method smooth_out": [1.7416, 1.5376, 3.2265, 2.0416, 2.1788, 2.7675, 3.2393],
    "method smooth_out, copies": [3.8743, 0.50342, 2.8196, 0.44067, 0.27854, 4.0019, 4.2012],
    "method weight_noise": [2.1154, 1.1915, 4.6454, 1.4982, 3.5675, 0.43403, 3.3361],
    "method ss_sam": [2.7555, 2.7555, 2.7555, 2.7555, 2.7555, 2.5, 2.7555],
    "method esam": [2.9258, 2.9258, 2.5, 2.9258, 2.9258, 2.5, 2.5],
    "method esam, tensor": [2.9258, 2.9258, 2.9258, 2.9258, 2.5, 2.5, 2.5],
    "method entropy_sgd": [0.083916, 0.068936, 0.075468, 0.071298, 0.084942, 0.079027, 0.080647],
    "rngs of sub-batches": [0.10434, 0.19759],
    "average sharpness sphere": [17.207, 13.323],
    "average sharpness gaussian": [5.7794, 1.9962],
    "average sharpness adaptive_gaussian": [9.3387, -9.3178],
    "start in l2": [-0.37561, -0.26946, -0.077606],
    "start in linf": [-0.85189, 0.87629, 0.29791],
    "directions gaussian, unit": [0.0098648, -0.0026733, -0.57181, -0.43793],
    "directions uniform, unit": [0.32617, 0.34419, 0.50708, 0.25572],
    "directions rademacher, unit": [-0.35355, 0.35355, -0.35355, -0.35355],
    "directions gaussian, filter": [0.0, 0.0, -2.2104, -2.0301],
    "directions gaussian, layer": [0.073148, -0.037429, -2.7099, -2.0407],
    "directions gaussian, relative": [0.048264, -0.01308, -2.7977, -2.1426],
    "directions gaussian, adaptive": [0.014797, -0.00401, -0.71477, -0.54741],
    "trace rademacher": [-10.0, -10.0, -22.0, -10.0],
    "trace gaussian": [-2.2671, -6.8652, -18.817, -12.266],
    "eigenvalues": [-0.14083],
    "spectral density": [-0.71177, 2.2942],
    "order of an epoch": [10, 16, 6, 11, 2, 15, 4, 0, 7, 1, 13, 8, 3, 19, 18, 9],
    "augmentation flip": [4753485, 4408134],
    "augmentation crop_zero": [4222080, 3661020],
    "augmentation crop_reflect": [4682934, 4831245],
    "augmentation cutout": [4802388, 4443078],
    "augmentation randaugment": [4753485, 4330959],
    "augmentation autoaugment_cifar10": [3909537, 2666034],
    "augmentation autoaugment_svhn": [4582490, 2855245],
    "augmentation autoaugment_cifar10_torchvision": [3160242, 2505186],
    "augmentation autoaugment_svhn_torchvision": [4269530, 2987988],
    "augmentation second": [2848384, 2189222],
    "parameters efficientnet": [-0.52726, 0.57672, -0.057019, -0.040253],
    "parameters imagenet_resnet": [-0.43222, -0.26854, -0.056434, 0.071042],
    "parameters mobilenet_v2": [-0.025526, 0.02792, -0.091282, -0.066352],
    "parameters preact_resnet": [-0.45662, -0.062878, -0.14958, 0.14743],
    "parameters pyramid_net": [-0.52726, -0.18875, -0.074789, 0.036097],
    "parameters resnet": [-0.45662, -0.062878, -0.091282, 0.090136],
    "parameters small_conv_net": [-0.16144, 0.17088, -0.018093, 0.024454],
    "parameters vision_transformer": [0.017329, -0.097247, 0.02266, -0.016601],
    "parameters wide_resnet": [-0.52726, -0.34558, -0.074789, 0.036097],
    "parameters wide_resnet_shake_shake": [-0.52726, -0.34558, -0.074789, 0.036097],
    "mixing by shake_shake": [
        0.0086954,
        0.043988,
        0.31157,
        0.16774,
        0.025995,
        0.54174,
        0.48102,
        0.6202,
    ],
    "mixing by shake_drop": [1.0, 1.0, -0.037957, 1.0, 1.0, 1.0, 0.91839, 1.0],
    "mixing by stochastic_depth": [2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0],
    "mixup": [0.93011, 0.069888, 0.069888, 0.93011],
    "label noise": [0, 0, 8, 0, 1, 0, 8, 9, 0],
    "synthetic images": [68, 0, 162, 102, 195, 123],
    "synthetic labels": [2, 1, 1, 0, 0],
    "split of the digits": [2, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8, 6],
}


def test_every_stream_has_golden_numbers():
    drawing = {
        name
        for name, thing in vars(optim).items()
        if inspect.isfunction(thing) and "key" in inspect.signature(thing).parameters
    }
    assert drawing == {name.split(",")[0] for name in METHODS}
    assert list(GOLDEN) == list(STREAMS)


@pytest.mark.parametrize("name", STREAMS)
def test_golden_numbers(name):
    # Whole numbers are exact; the others are written with five digits.
    np.testing.assert_allclose(numbers(name), GOLDEN[name], rtol=3e-5, atol=1e-7)


if __name__ == "__main__":
    print("GOLDEN = {")
    for name in STREAMS:
        print(f'    "{name}": {numbers(name)},')
    print("}")
