"""Type aliases shared by the whole package."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

PyTree: TypeAlias = Any  # nested containers with arrays as leaves
Params: TypeAlias = PyTree  # trainable parameters
Gradients: TypeAlias = PyTree  # same structure as the parameters
Batch: TypeAlias = PyTree  # leaves share their leading (example) axis
Mask: TypeAlias = PyTree | Callable[[Params], PyTree] | None  # booleans like params; None: all
Key: TypeAlias = jax.Array  # a typed key from jax.random.key
Scalar: TypeAlias = float | jax.Array
AnyArray: TypeAlias = jax.Array | np.ndarray
ScalarOrSchedule: TypeAlias = Scalar | Callable[[jax.Array], Any]  # schedule: step -> scalar


# grad_fn(params), with m-SAM grad_fn(params, batch): the gradient, with the structure of params.
GradFn: TypeAlias = Callable[..., Gradients]
# loss_fn(params) or loss_fn(params, batch): the mean loss over the whole set or over the batch.
LossFn: TypeAlias = Callable[..., jax.Array]
# The same for several losses at once: a pytree of scalars, such as loss and accuracy.
LossesFn: TypeAlias = Callable[..., PyTree]
