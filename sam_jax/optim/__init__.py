"""From gradients to sharpness-aware gradients, as composable optax transformations."""

from sam_jax.optim.accumulation import accumulated as accumulated
from sam_jax.optim.adapters import apply_gradients as apply_gradients
from sam_jax.optim.adapters import nnx_value_and_grad as nnx_value_and_grad
from sam_jax.optim.adapters import value_and_grad as value_and_grad
from sam_jax.optim.assembly import Schedule as Schedule
from sam_jax.optim.assembly import ScheduledState as ScheduledState
from sam_jax.optim.assembly import sharpness_aware as sharpness_aware
from sam_jax.optim.averages import AverageState as AverageState
from sam_jax.optim.averages import averaged_params as averaged_params
from sam_jax.optim.averages import swa as swa
from sam_jax.optim.averages import weight_ema as weight_ema
from sam_jax.optim.between import between as between
from sam_jax.optim.methods import ae_sam as ae_sam
from sam_jax.optim.methods import amp as amp
from sam_jax.optim.methods import asam as asam
from sam_jax.optim.methods import average_sam as average_sam
from sam_jax.optim.methods import awp as awp
from sam_jax.optim.methods import decoupled_wsam as decoupled_wsam
from sam_jax.optim.methods import entropy_sgd as entropy_sgd
from sam_jax.optim.methods import esam as esam
from sam_jax.optim.methods import extrap_sgd as extrap_sgd
from sam_jax.optim.methods import fisher_sam as fisher_sam
from sam_jax.optim.methods import friendly_sam as friendly_sam
from sam_jax.optim.methods import gsam as gsam
from sam_jax.optim.methods import gsam_rho as gsam_rho
from sam_jax.optim.methods import interval_sam as interval_sam
from sam_jax.optim.methods import late_phase_sam as late_phase_sam
from sam_jax.optim.methods import layer_sam as layer_sam
from sam_jax.optim.methods import looksam as looksam
from sam_jax.optim.methods import mesa as mesa
from sam_jax.optim.methods import momentum_sam as momentum_sam
from sam_jax.optim.methods import multi_step_sam as multi_step_sam
from sam_jax.optim.methods import previous_batch_sam as previous_batch_sam
from sam_jax.optim.methods import saf as saf
from sam_jax.optim.methods import sam as sam
from sam_jax.optim.methods import sam_on as sam_on
from sam_jax.optim.methods import smooth_out as smooth_out
from sam_jax.optim.methods import ss_sam as ss_sam
from sam_jax.optim.methods import stable_sam as stable_sam
from sam_jax.optim.methods import unified_sam as unified_sam
from sam_jax.optim.methods import usam as usam
from sam_jax.optim.methods import vasso as vasso
from sam_jax.optim.methods import weight_noise as weight_noise
from sam_jax.optim.methods import wsam as wsam
from sam_jax.optim.perturbations import leaves_where as leaves_where
from sam_jax.optim.perturbations import norm_layers as norm_layers
from sam_jax.optim.replicas import assert_replicas_agree as assert_replicas_agree
from sam_jax.optim.sub_batches import m_sam as m_sam
from sam_jax.optim.transformation import SharpnessAwareGradient as SharpnessAwareGradient
from sam_jax.optim.transformation import (
    SharpnessAwareTransformation as SharpnessAwareTransformation,
)
