"""The common part of the instruments along random directions of the weights.

All models that are measured with the same settings see the same directions. The asymmetry factor
and the curve follow directions of unit norm under the law of the preset, as in the study; the
asymmetry index and the widths follow Gaussian ones as long as the weights, filter by filter.
"""

import jax
import ml_collections

from sam_jax.runs.randomness import stream
from sam_jax.typing import Key

RELATIVE = {"distribution": "gaussian", "normalisation": "filter"}


def directions_key(settings: ml_collections.ConfigDict) -> Key:
    """Return the key of the directions: it derives from `settings.seed` alone."""
    return stream(jax.random.key(settings.seed), "directions")
