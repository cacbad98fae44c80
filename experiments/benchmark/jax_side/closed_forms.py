"""Methods on a quadratic, where the sharpness-aware gradient can be written by hand.

For L(w) = w'Hw / 2 the gradient is H w, and at w + epsilon it is H w + H epsilon.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import optim

RHO, SIZE = 0.3, 24
BOUND = 2e-5  # a hundred roundings of float32: products of 24 numbers, norms and a quotient


def methods() -> list[tuple[float, str, float]]:
    """Check every method of the table, jitted on this device, against float64 in NumPy."""
    random = np.random.default_rng(0)
    root = random.normal(size=(SIZE, SIZE))
    hessian, w = root @ root.T / SIZE + np.eye(SIZE), random.normal(size=SIZE)
    g = hessian @ w
    length = np.linalg.norm(g)

    def at(epsilon: np.ndarray) -> np.ndarray:
        return hessian @ (w + epsilon)

    ascent = RHO * g / length
    scale = np.abs(w) + 0.01
    adaptive = RHO * scale**2 * g / np.linalg.norm(scale * g)
    layers = np.concatenate(
        [
            RHO * np.linalg.norm(part) * along / np.linalg.norm(along)
            for part, along in zip(_split(w), _split(g), strict=True)
        ]
    )
    slope = at(ascent)
    second = ascent + RHO * slope / np.linalg.norm(slope)
    second *= min(1.0, RHO / np.linalg.norm(second))
    table: dict[str, tuple[Callable[[float], Any], np.ndarray]] = {
        "sam": (optim.sam, at(ascent)),
        "sam of the 3-norm": (lambda rho: optim.sam(rho, 3.0), at(_dual(g, 3.0))),
        "usam": (optim.usam, at(RHO * g)),
        "asam": (optim.asam, at(adaptive)),
        "layer_sam": (optim.layer_sam, at(layers)),
        "multi_step_sam": (lambda rho: optim.multi_step_sam(rho, 2), at(second)),
        "looksam, its first step": (lambda rho: optim.looksam(rho, 5), at(ascent)),
        "gsam with alpha = 0": (lambda rho: optim.gsam(rho, 0.0), at(ascent)),
        "interval_sam, its first step": (lambda rho: optim.interval_sam(rho, 2), at(ascent)),
    }
    zeros = np.zeros_like(hessian)
    found = _results(
        {
            **{("own", name): (make(RHO), hessian) for name, (make, _) in table.items()},
            **{("plain", name): (make(0.0), hessian) for name, (make, _) in table.items()},
            **{("still", name): (make(RHO), zeros) for name, (make, _) in table.items()},
            ("average", ""): (optim.average_sam(RHO, jax.random.key(0)), hessian),
        },
        w,
    )
    results = {name: (found["own", name], right) for name, (_, right) in table.items()}
    plain = {name: (found["plain", name], g) for name in table}
    still = {name: (found["still", name], np.zeros(SIZE)) for name in table}
    rise = found["average", ""] - g
    drawn = np.linalg.norm(np.linalg.solve(hessian, rise))
    return [
        _worst(results, "on a quadratic, against their closed forms"),
        _worst(plain, "with rho = 0, against the plain gradient"),
        _worst(still, "at a zero gradient, against zero"),
        (
            float(abs(drawn / RHO - 1)),
            "average_sam: how far the length of its epsilon is from rho",
            BOUND,
        ),
    ]


def _worst(pairs: dict[str, tuple[np.ndarray, np.ndarray]], words: str) -> tuple[float, str, float]:
    """Return the largest error of several methods, infinite for NaN, and whose it is."""
    errors = {name: _error(*pair) for name, pair in pairs.items()}
    errors = {name: np.nan_to_num(error, nan=np.inf) for name, error in errors.items()}
    name = max(errors, key=lambda name: errors[name])
    return float(errors[name]), f"{len(pairs)} methods {words}; the worst: {name}", BOUND


def _split(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return vector[: SIZE // 3], vector[SIZE // 3 :]


def _dual(g: np.ndarray, p: float) -> np.ndarray:
    """Return the epsilon of p-norm rho with the largest product with g."""
    q = p / (p - 1)
    return RHO * np.sign(g) * np.abs(g) ** (q - 1) / np.linalg.norm(g, q) ** (q - 1)


def _results(
    problems: Mapping[Any, tuple[Any, np.ndarray]], w: np.ndarray
) -> dict[Any, np.ndarray]:
    """Return the gradients of methods on quadratics at w, by one program for all."""
    names, hessians = list(problems), [jnp.float32(hessian) for _, hessian in problems.values()]

    def gradient(tx: Any, hessian: jax.Array, params: dict[str, jax.Array]) -> Any:
        def grad_fn(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
            slope = hessian @ jnp.concatenate([params["a"], params["b"]])
            return dict(zip("ab", jnp.split(slope, [SIZE // 3]), strict=True))

        return tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]

    @jax.jit
    @jax.default_matmul_precision("highest")
    def gradients(hessians: list[jax.Array], params: dict[str, jax.Array]) -> list[Any]:
        methods = [tx for tx, _ in problems.values()]
        return [gradient(*pair, params) for pair in zip(methods, hessians, strict=True)]

    params = dict(zip("ab", map(jnp.float32, _split(w)), strict=True))
    found = gradients(hessians, params)
    return {
        name: np.concatenate([np.asarray(result[part], np.float64) for part in "ab"])
        for name, result in zip(names, found, strict=True)
    }


def _error(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.linalg.norm(found - right) / (np.linalg.norm(right) or 1.0))
