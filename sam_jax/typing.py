"""Type aliases and protocols shared by the whole package."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import jax

PyTree: TypeAlias = Any  # nested containers with arrays as leaves
Params: TypeAlias = PyTree  # trainable parameters
Gradients: TypeAlias = PyTree  # same structure as the parameters
Batch: TypeAlias = PyTree  # leaves share their leading (example) axis
Mask: TypeAlias = PyTree | Callable[[Params], PyTree] | None  # booleans like params; None: all
Key: TypeAlias = jax.Array  # a typed key from jax.random.key
Scalar: TypeAlias = float | jax.Array
ScalarOrSchedule: TypeAlias = Scalar | Callable[[jax.Array], jax.Array]  # schedule: step -> value


class GradFn(Protocol):
    """The gradient of the loss at `params`; with m-SAM, of one sub-batch."""

    def __call__(self, params: Params, *batch: Batch) -> Gradients:
        """Return gradients with the structure of `params`."""


class LossFn(Protocol):
    """The mean loss at `params` over the whole set, or over the one batch that is given."""

    def __call__(self, params: Params, *batch: Batch) -> jax.Array:
        """Return a scalar."""
