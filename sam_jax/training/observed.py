"""A step that is watched: every quantity of it is told of in the order of computation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import pytree
from sam_jax.training.losses import BatchFunctions, PassOutputs
from sam_jax.training.perturbation_norms import difference
from sam_jax.typing import Gradients, Params, PyTree

Observe = Callable[[str, PyTree], None]  # the name of a quantity, and its arrays


def unobserved(name: str, tree: PyTree) -> None:
    """Look at nothing."""


class Quantity(NamedTuple):
    """What was seen of one quantity, over all devices and sub-batches."""

    name: str
    nonfinite: tuple[str, ...]  # paths of the arrays with numbers that are not finite
    largest: float  # absolute value of its finite numbers


class Observations:
    """An `Observe` that keeps what the steps of a compiled call compute."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._names: list[str] = []  # in the order in which they are traced, which is computed in
        self._paths: list[tuple[str, ...]] = []
        self._seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, name: str, tree: PyTree) -> None:
        """Keep, when the call runs, where a quantity is not finite and how large it is."""
        leaves = [
            (jax.tree_util.keystr(path, simple=True, separator="/"), pytree.widen(leaf))
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if pytree.is_parameter(leaf)
        ]
        if not leaves:
            return
        number = len(self._names)
        self._names.append(name)
        self._paths.append(tuple(path for path, _ in leaves))
        bad = jnp.stack([~jnp.isfinite(leaf).all() for _, leaf in leaves])
        sizes = [jnp.max(jnp.where(jnp.isfinite(x), jnp.abs(x), 0), initial=0) for _, x in leaves]

        def see(bad: np.ndarray, largest: np.ndarray) -> None:
            before = self._seen.get(number, (np.zeros_like(bad), np.zeros_like(largest)))
            self._seen[number] = before[0] | bad, np.maximum(before[1], largest)

        jax.debug.callback(see, bad, jnp.stack([x.astype(jnp.float32) for x in sizes]))

    def take(self) -> tuple[Quantity, ...]:
        """Return what was seen since the last time, in the order of computation."""
        jax.effects_barrier()
        found = []
        for number, (bad, largest) in sorted(self._seen.items()):
            paths = tuple(p for p, is_bad in zip(self._paths[number], bad, strict=True) if is_bad)
            found.append(Quantity(self._names[number], paths, float(largest.max())))
        self._seen.clear()
        return tuple(found)


def observed_functions(
    functions: BatchFunctions, params: Params, observe: Observe
) -> BatchFunctions:
    """Return functions that tell of the perturbation, logits, loss and gradient of every pass.

    Args:
      functions: of a training step.
      params: the parameters before the step: epsilon is the distance from them.
      observe: what is told.
    """
    if observe is unobserved:
        return functions
    passes = 0

    def watched(
        gradient: Callable[..., tuple[Gradients, PassOutputs]],
    ) -> Callable[..., tuple[Gradients, PassOutputs]]:
        def grad_fn(at: Params, *args: Any, **kwargs: Any) -> tuple[Gradients, PassOutputs]:
            nonlocal passes
            passes += 1
            name = f"of pass {passes}"
            observe(f"perturbation epsilon {name}", difference(at, params))
            gradients, outputs = gradient(at, *args, **kwargs)
            observe(f"logits {name}", outputs.logits)
            observe(f"loss {name}", outputs.loss)
            observe(f"gradient {name}", gradients)
            return gradients, outputs

        return grad_fn

    ascent = functions.ascent_grad_fn
    return functions._replace(
        grad_fn=watched(functions.grad_fn),
        ascent_grad_fn=None if ascent is None else watched(ascent),
    )
