"""Sharpness-aware minimisation in JAX: optimisers, instruments and experiments."""

from sam_jax import metrics as metrics
from sam_jax.optim import SharpnessAwareGradient as SharpnessAwareGradient
from sam_jax.optim import SharpnessAwareTransformation as SharpnessAwareTransformation
from sam_jax.optim import asam as asam
from sam_jax.optim import average_sam as average_sam
from sam_jax.optim import m_sam as m_sam
from sam_jax.optim import sam as sam
from sam_jax.optim import sharpness_aware as sharpness_aware
from sam_jax.version import __version__ as __version__
