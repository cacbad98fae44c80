"""Instruments: pure functions that measure a minimum, given only a loss function."""

from sam_jax.metrics.adversarial import AdversarialSharpness as AdversarialSharpness
from sam_jax.metrics.adversarial import adversarial_sharpness as adversarial_sharpness
from sam_jax.metrics.asymmetry import AsymmetryFactor as AsymmetryFactor
from sam_jax.metrics.asymmetry import asymmetry_factor as asymmetry_factor
from sam_jax.metrics.average import AverageSharpness as AverageSharpness
from sam_jax.metrics.average import average_sharpness as average_sharpness
from sam_jax.metrics.curve import loss_curve as loss_curve
from sam_jax.metrics.directions import random_directions as random_directions
from sam_jax.metrics.presets import PRESETS as PRESETS
from sam_jax.metrics.presets import PUBLISHED as PUBLISHED
from sam_jax.metrics.presets import SOUND as SOUND
from sam_jax.metrics.presets import Conditions as Conditions
from sam_jax.metrics.presets import Preset as Preset
