"""Type aliases shared by the whole package, with shapes where they are known.

jaxtyping writes the shapes and the tests check them. Without it, for the package does not need it,
`Float[Array, " n"]` is `Array`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jax import Array as Array

if TYPE_CHECKING:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Int as Int
    from jaxtyping import Key as TypedKey
    from jaxtyping import Num as Num

    Number: TypeAlias = float
    WholeNumber: TypeAlias = int
else:
    try:
        from jaxtyping import Bool, Float, Int, Num
        from jaxtyping import Key as TypedKey
    except ModuleNotFoundError:

        class Num:
            """Stands for a dtype; gives the type of the array without dtype and shape."""

            def __class_getitem__(cls, array_and_shape: tuple[Any, str]) -> Any:
                return array_and_shape[0]

        Bool = Float = Int = TypedKey = Num

    # A NumPy number may stand where a number may.
    Number = float | np.generic | Num[np.ndarray, ""]
    WholeNumber = int | np.integer | Int[np.ndarray, ""]

PyTree: TypeAlias = Any  # nested containers with arrays as leaves
Params: TypeAlias = PyTree  # trainable parameters
Gradients: TypeAlias = PyTree  # same structure as the parameters
Batch: TypeAlias = PyTree  # leaves share their leading (example) axis
Mask: TypeAlias = PyTree | Callable[[Params], PyTree] | None  # booleans like params; None: all
AnyArray: TypeAlias = jax.Array | np.ndarray
Key: TypeAlias = TypedKey[Array, ""]  # from jax.random.key
Scalar: TypeAlias = Number | Num[Array, ""]
Integer: TypeAlias = WholeNumber | Int[Array, ""]
ScalarOrSchedule: TypeAlias = Scalar | Callable[[jax.Array], Any]  # schedule: step -> scalar
# grad_fn(params), with m-SAM grad_fn(params, batch): the gradient, with the structure of params.
GradFn: TypeAlias = Callable[..., Gradients]
# loss_fn(params) or loss_fn(params, batch): the mean loss over the whole set or over the batch.
LossFn: TypeAlias = Callable[..., jax.Array]
# The same for several losses at once: a pytree of scalars, such as loss and accuracy.
LossesFn: TypeAlias = Callable[..., PyTree]
