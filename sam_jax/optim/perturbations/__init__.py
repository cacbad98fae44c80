"""Perturbations: optax transformations from a gradient to an epsilon that is added to params.

Each receives the gradient as `updates` and returns epsilon, in float32 or wider, with a positive
sign (ascent). Norms run over all selected leaves together. A perturbation keeps values between
steps in its state. Among the extra arguments, `grad_fn: params -> gradients` is the gradient of
the step, and `sub_batch` tells apart the sub-batches of one step.
"""

from sam_jax.optim.perturbations.adaptive import Rescaled as Rescaled
from sam_jax.optim.perturbations.adaptive import Rescaling as Rescaling
from sam_jax.optim.perturbations.adaptive import adaptive_ascent as adaptive_ascent
from sam_jax.optim.perturbations.ascent import ascent as ascent
from sam_jax.optim.perturbations.common import Mask as Mask
from sam_jax.optim.perturbations.common import RandomState as RandomState
from sam_jax.optim.perturbations.common import ScheduleState as ScheduleState
from sam_jax.optim.perturbations.fisher import fisher_ascent as fisher_ascent
from sam_jax.optim.perturbations.layers import layerwise_ascent as layerwise_ascent
from sam_jax.optim.perturbations.masks import leaves_where as leaves_where
from sam_jax.optim.perturbations.masks import norm_layers as norm_layers
from sam_jax.optim.perturbations.masks import not_biases as not_biases
from sam_jax.optim.perturbations.memory import MOVING_AVERAGE as MOVING_AVERAGE
from sam_jax.optim.perturbations.memory import MemoryState as MemoryState
from sam_jax.optim.perturbations.memory import Order as Order
from sam_jax.optim.perturbations.memory import averaged_ascent as averaged_ascent
from sam_jax.optim.perturbations.memory import friendly_ascent as friendly_ascent
from sam_jax.optim.perturbations.multi_step import multi_step_ascent as multi_step_ascent
from sam_jax.optim.perturbations.noise import uniform_noise as uniform_noise
from sam_jax.optim.perturbations.per_tensor import projected_ascent as projected_ascent
from sam_jax.optim.perturbations.random import random_gaussian as random_gaussian
from sam_jax.optim.perturbations.random import random_on_sphere as random_on_sphere
from sam_jax.optim.perturbations.random import random_relative as random_relative
from sam_jax.optim.perturbations.stochastic import Granularity as Granularity
from sam_jax.optim.perturbations.stochastic import stochastic_ascent as stochastic_ascent
from sam_jax.optim.perturbations.unified import unified_ascent as unified_ascent
