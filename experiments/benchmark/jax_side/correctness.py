"""Task: convolutions, augmentation, precisions and methods on this device, against other routes.

Every call returns a list of (error, words, bound).
"""

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.jax_side import closed_forms, networks
from experiments.benchmark.jax_side.steps import make_step
from experiments.benchmark.worker import Prepared
from sam_jax.data.autoaugment import CIFAR10_POLICY, compile_policy, draw_operations
from sam_jax.data.drawn_operations import apply_operations
from sam_jax.models.layers import convolution, depthwise_convolution

Checks = list[tuple[float, str, float]]
# Half a unit in the last place of each type: TF32 keeps 10 bits of the fraction, bfloat16 7.
ROUNDING = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}
# Dozens of layers, norms that divide by small deviations, and ReLUs that a rounding switches grow
# an error by some thousands; a wrong layer gives an error of about one.
GRADIENT_BOUNDS = {"float32": 1e-3, "tf32": 0.2, "bfloat16": 0.7}
SHAPES = ((3, 1, 8, 16), (1, 1, 16, 8), (3, 2, 8, 16))  # size, stride, channels, features


def prepare(case: dict[str, Any]) -> Prepared:
    """Return the checks, each a call."""
    checks = {
        "convolutions": convolutions,
        "augmentation": functools.partial(augmentation, case["images"]),
        "precisions": functools.partial(precisions, case["net"], case["batch"]),
        "methods": closed_forms.methods,
    }
    calls = {name: (lambda repeats, check=check: check()) for name, check in checks.items()}
    return Prepared(networks.about(), calls)


def convolutions() -> Checks:
    """Check native and shifted convolutions, forwards and backwards, against NumPy in float64."""
    cases = [(*shape, depthwise) for shape in SHAPES for depthwise in (False, True)]
    data = [_convolution_data(*case) for case in cases]
    found = []
    for precision in ("float32", "tf32", "bfloat16"):
        # Rounded numbers, and a sum over nine windows that may be rounded after each.
        bound = 16 * ROUNDING[precision]
        for name in ("native", "shifted"):
            results = _convolved(name, precision, cases, [inputs for inputs, _ in data])
            worst = max(
                relative_error(got, right)
                for (_, rights), result in zip(data, results, strict=True)
                for got, right in zip(result, rights, strict=True)
            )
            words = f"{name} convolutions and their gradients in {precision}, against float64"
            found.append((worst, words, bound))
    return found


def _convolution_data(
    size: int, stride: int, channels: int, features: int, depthwise: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return images, a kernel and a cotangent; and the output and both gradients in float64."""
    random = np.random.default_rng(0)
    x = random.normal(size=(4, 12, 12, channels))
    out = channels if depthwise else features
    kernel = random.normal(size=(size, size, 1 if depthwise else channels, out))
    y, transpose = _float64_convolution(x, kernel, stride, depthwise)
    cotangent = random.normal(size=y.shape)
    return [x, kernel, cotangent], [y, *transpose(cotangent)]


def _convolved(
    implementation: str,
    precision: str,
    cases: Sequence[tuple[int, int, int, int, bool]],
    inputs: Sequence[Sequence[np.ndarray]],
) -> list[list[jax.Array]]:
    """Return the outputs and both gradients of all cases, by one program."""
    products, dtype = networks.PRECISIONS[precision]

    def one(case: Any, x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> list[jax.Array]:
        _, stride, _, _, depthwise = case
        function = depthwise_convolution if depthwise else convolution

        def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return function(x.astype(dtype), kernel.astype(dtype), stride, implementation)

        y, pullback = jax.vjp(convolve, x, kernel)
        return [y, *pullback(cotangent.astype(y.dtype))]

    @jax.jit
    def all_of(inputs: Any) -> list[list[jax.Array]]:
        return [one(case, *arrays) for case, arrays in zip(cases, inputs, strict=True)]

    with jax.default_matmul_precision(products):
        return all_of(jax.tree.map(jnp.float32, list(inputs)))


def relative_error(found: Any, right: np.ndarray) -> float:
    """Return ||found - right|| / ||right||, in float64; infinite where that is NaN."""
    difference = np.asarray(found, np.float64) - right
    error = np.linalg.norm(difference) / np.linalg.norm(right)
    return float(error) if np.isfinite(error) else math.inf


def _float64_convolution(
    x: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool
) -> tuple[np.ndarray, Any]:
    """Return the sum over windows as it is defined, and its gradients by a cotangent."""
    height, width = kernel.shape[:2]
    p, (rows, columns) = height // 2, x.shape[1:3]
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    forward, back_x, back_kernel = (
        ("nijc,c->nijc", "nijc,c->nijc", "nijc,nijc->c")
        if depthwise
        else ("nijc,co->nijo", "nijo,co->nijc", "nijc,nijo->co")
    )

    def window(array: np.ndarray, a: int, b: int) -> np.ndarray:
        return array[:, a : a + rows : stride, b : b + columns : stride]

    entries = [(a, b) for a in range(height) for b in range(width)]
    entry = {(a, b): kernel[a, b, 0] if depthwise else kernel[a, b] for a, b in entries}
    y = sum(np.einsum(forward, window(padded, *at), entry[at]) for at in entries)

    def transpose(cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dx, dkernel = np.zeros_like(padded), np.zeros_like(kernel)
        for a, b in entries:
            window(dx, a, b)[...] += np.einsum(back_x, cotangent, entry[a, b])
            part = np.einsum(back_kernel, window(padded, a, b), cotangent)
            dkernel[a, b] = part[None] if depthwise else part
        return dx[:, p : p + rows, p : p + columns], dkernel

    return np.asarray(y), transpose


def augmentation(count: int) -> Checks:
    """Check AutoAugment of a whole batch at once against a loop over images on the CPU."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    keys, fill = jax.random.split(networks.KEY, count), jnp.zeros(3, jnp.uint8)
    policy = compile_policy(CIFAR10_POLICY, 32, 32, "authors")

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        return apply_operations(image, draw_operations(key, policy), fill)

    at_once = jax.jit(jax.vmap(one))(keys, images)
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        # The draws are integers and uniform numbers, equal on every device.
        data = jax.device_put((keys, jnp.asarray(images)), cpu)
        looped = jax.jit(lambda keys, images: jax.lax.map(lambda a: one(*a), (keys, images)))(*data)
    levels = np.abs(np.asarray(at_once, np.int32) - np.asarray(looped, np.int32))
    return [
        (float(levels.max()), "AutoAugment of a batch at once: levels off the CPU's loop", 1.0),
        (float((levels > 0).mean()), "the share of pixels that differ at all", 0.001),
    ]


def precisions(net: str, batch: int) -> Checks:
    """Check the gradient of a network in each precision against float32 on the CPU."""

    def updated(precision: str) -> np.ndarray:
        network, data = networks.network(net, precision), networks.random_batch(net, batch)
        made = make_step(network, "sgd")
        with jax.default_matmul_precision(networks.PRECISIONS[precision][0]):
            after = jax.jit(made.step)(made.state, data)
        trace = jax.tree.leaves(after.optimiser_state)  # the momentum: the first gradient
        return np.concatenate([np.asarray(x, np.float64).ravel() for x in trace])

    def on_cpu() -> np.ndarray:
        with jax.default_device(jax.devices("cpu")[0]):
            return updated("float32")

    with ThreadPoolExecutor() as pool:  # they compile at the same time
        right = pool.submit(on_cpu)
        found = dict(zip(GRADIENT_BOUNDS, pool.map(updated, GRADIENT_BOUNDS), strict=True))
    return [
        (
            relative_error(found[precision], right.result()),
            f"the gradient of {net} in {precision}, against float32 on the CPU",
            bound,
        )
        for precision, bound in GRADIENT_BOUNDS.items()
    ]
