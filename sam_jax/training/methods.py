"""The methods by the names that configs give them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections
import optax

from sam_jax import optim
from sam_jax.typing import Key, Params, PyTree, Scalar


class Run(NamedTuple):
    """The facts about a run that a method may need."""

    learning_rate: Callable[[Any], Any]  # schedule by step
    lowest_learning_rate: float  # after the warm-up; 0 where it does not fall
    highest_learning_rate: float
    total_steps: int
    steps_per_epoch: int
    optimiser: optax.GradientTransformation
    examples: int  # of the training set
    classes: int
    axis_name: str | None  # of the devices


class _Arguments(NamedTuple):
    """The fields of `config.method`, the run, and the key."""

    rho: Scalar
    eta: Scalar
    norm_order: float
    options: ml_collections.ConfigDict  # the method's own fields, config.method.NAME
    key: Key
    run: Run


def make_method(
    config: ml_collections.ConfigDict, traced: Mapping[str, Scalar], key: Key, run: Run
) -> tuple[optim.SharpnessAwareTransformation, optax.GradientTransformation]:
    """Return a method and the optimiser that takes its gradient.

    Args:
      config: `config.method`.
      traced: "rho" and "eta", concrete or traced.
      key: for the methods that draw at random.
      run: the run that the method is part of.

    Returns:
      The method, and `run.optimiser` or, where the method wraps it, the identity.
    """
    arguments = _Arguments(
        rho=traced["rho"],
        eta=traced["eta"],
        norm_order=config.norm_order,
        options=config.get(config.name, ml_collections.ConfigDict()),
        key=key,
        run=run,
    )
    wraps = config.name in WRAPPERS
    method = _in_its_part(config, METHODS[config.name](arguments), run)
    return method, optax.identity() if wraps else run.optimiser


def _in_its_part(
    config: ml_collections.ConfigDict, method: optim.SharpnessAwareTransformation, run: Run
) -> optim.SharpnessAwareTransformation:
    """Return the method between two shares of the training; outside is the plain gradient."""
    if (config.from_share, config.until_share) == (0, 1):
        return method
    return optim.between(method, *_part(config, run))


def _part(config: ml_collections.ConfigDict, run: Run) -> tuple[int, int]:
    """Return the first step of the method's part of the training, and the first one after it."""
    return round(config.from_share * run.total_steps), round(config.until_share * run.total_steps)


def radius(config: ml_collections.ConfigDict, rho: Scalar, run: Run, step: Any) -> Any:
    """Return the radius rho of a step: the method's own, by its schedule where it has one.

    Args:
      config: `config.method`.
      rho: `config.method.rho`, concrete or traced.
      run: the run that the method is part of.
      step: counted from zero, concrete or traced.

    Returns:
      A float32 scalar: zero for the plain gradient and outside the method's part of the training,
      NaN for a method that has no rho. What the steps that a method leaves out are perturbed by is
      told by the norm of epsilon.
    """
    if config.name == "none":
        return jnp.float32(0)
    own = _gsam_rho(config.gsam, rho, run)(step) if config.name == "gsam" else rho
    first, end = _part(config, run)
    own = jnp.float32(jnp.nan if config.name in WITHOUT_RHO else own)
    return jnp.where((first <= step) & (step < end), own, jnp.float32(0))


def no_perturbation() -> optim.SharpnessAwareTransformation:
    """Return the plain gradient in the form of a method; its one pass is the clean one."""

    def gradient(
        grad_fn: Callable[..., Any], params: Params, state: PyTree, **_: Any
    ) -> tuple[optim.SharpnessAwareGradient, PyTree]:
        plain_gradient, outputs = grad_fn(params)
        return optim.SharpnessAwareGradient(plain_gradient, outputs, outputs), state

    return optim.SharpnessAwareTransformation(lambda params: optax.EmptyState(), gradient)


def _gsam(a: _Arguments) -> optim.SharpnessAwareTransformation:
    return optim.gsam(_gsam_rho(a.options, a.rho, a.run), a.options.alpha)


def _gsam_rho(options: ml_collections.ConfigDict, rho: Scalar, run: Run) -> Callable[[Any], Any]:
    return optim.gsam_rho(
        run.learning_rate,
        options.rho_min,
        rho,
        run.lowest_learning_rate,
        run.highest_learning_rate,
    )


def _ae_sam(a: _Arguments) -> optim.SharpnessAwareTransformation:
    # c_t runs linearly from lambda2 at the first step to lambda1 at the last.
    threshold = optax.linear_schedule(a.options.lambda2, a.options.lambda1, a.run.total_steps)
    return optim.ae_sam(a.rho, threshold, a.options.decay)


def _late_phase_sam(a: _Arguments) -> optim.SharpnessAwareTransformation:
    start = round((1 - a.options.tail) * a.run.total_steps)
    return optim.late_phase_sam(a.rho, start=start)


# The losses and the logits at w come out of the pass that gives the gradient.
def _esam(a: _Arguments) -> optim.SharpnessAwareTransformation:
    return optim.esam(a.rho, key=a.key, losses_from=lambda outputs: outputs.losses, **a.options)


def _saf(a: _Arguments) -> optim.SharpnessAwareTransformation:
    return optim.saf(
        a.run.examples,
        a.run.classes,
        axis_name=a.run.axis_name,
        logits_from=lambda outputs: outputs.logits,
        **a.options,
    )


def _mesa(a: _Arguments) -> optim.SharpnessAwareTransformation:
    options = dict(a.options)
    start = options.pop("start_epoch") * a.run.steps_per_epoch
    return optim.mesa(start=start, **options)


METHODS: dict[str, Callable[[_Arguments], optim.SharpnessAwareTransformation]] = {
    "none": lambda a: no_perturbation(),
    "sam": lambda a: optim.sam(a.rho, a.norm_order),
    "usam": lambda a: optim.usam(a.rho, **a.options),
    "unified_sam": lambda a: optim.unified_sam(a.rho, **a.options),
    "average_sam": lambda a: optim.average_sam(a.rho, a.key, **a.options),
    "multi_step_sam": lambda a: optim.multi_step_sam(a.rho, **a.options),
    "previous_batch_sam": lambda a: optim.previous_batch_sam(a.rho, a.norm_order),
    "asam": lambda a: optim.asam(a.rho, a.eta, norm_order=a.norm_order, **a.options),
    "gsam": _gsam,
    "fisher_sam": lambda a: optim.fisher_sam(a.rho, **a.options),
    "esam": _esam,
    "ss_sam": lambda a: optim.ss_sam(a.rho, key=a.key, **a.options),
    "looksam": lambda a: optim.looksam(a.rho, **a.options),
    "saf": _saf,
    "mesa": _mesa,
    "friendly_sam": lambda a: optim.friendly_sam(a.rho, **a.options),
    "vasso": lambda a: optim.vasso(a.rho, **a.options),
    "wsam": lambda a: optim.wsam(a.rho, **a.options),
    "decoupled_wsam": lambda a: optim.decoupled_wsam(
        a.run.optimiser, a.run.learning_rate, a.rho, **a.options
    ),
    "momentum_sam": lambda a: optim.momentum_sam(a.run.optimiser, a.rho),
    "sam_on": lambda a: optim.sam_on(a.rho),
    "layer_sam": lambda a: optim.layer_sam(a.rho),
    "interval_sam": lambda a: optim.interval_sam(a.rho, **a.options),
    "late_phase_sam": _late_phase_sam,
    "ae_sam": _ae_sam,
    "stable_sam": lambda a: optim.stable_sam(a.rho),
    "smooth_out": lambda a: optim.smooth_out(key=a.key, **a.options),
    "weight_noise": lambda a: optim.weight_noise(a.rho, a.key, **a.options),
    "awp": lambda a: optim.awp(**a.options),
    "amp": lambda a: optim.amp(**a.options),
    "entropy_sgd": lambda a: optim.entropy_sgd(key=a.key, **a.options),
    "extrap_sgd": lambda a: optim.extrap_sgd(**a.options),
}
# What these take in its place is in their own options.
WITHOUT_RHO = ("saf", "mesa", "smooth_out", "awp", "amp", "entropy_sgd", "extrap_sgd")
# These take the optimiser's place in the chain: they return the update.
WRAPPERS = ("decoupled_wsam", "momentum_sam")
