"""The optimisers that descend along the (sharpness-aware) gradient, by their names in a config."""

from collections.abc import Callable

import ml_collections
import optax

from sam_jax.training.weight_decay import WeightDecay, weight_decay_of

Links = list[optax.GradientTransformation]  # of an `optax.chain`


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: WeightDecay,
    *,
    momentum: float,
    nesterov: bool,
) -> Links:
    r"""Return the links of stochastic gradient descent with momentum.

    .. math::
      v \leftarrow \mu v + g + \lambda w, \qquad w \leftarrow w - \eta v

    or, with Nesterov's look ahead, :math:`w \leftarrow w - \eta (g + \lambda w + \mu v)`.

    Args:
      learning_rate: eta, or a schedule of it by step.
      weight_decay: lambda, where it acts in the update.
      momentum: mu; the buffer v starts at the first gradient.
      nesterov: whether the step looks ahead along the buffer.

    Source: PyTorch's SGD, in the study.
    """
    step = optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
    return [*weight_decay.links(), step]


def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: WeightDecay,
    *,
    momentum: float,
    decay: float,
    epsilon: float,
    initial: float,
) -> Links:
    r"""Return the links of RMSProp as TensorFlow 1 has it, with which EfficientNets are trained.

    .. math::
      s \leftarrow \beta s + (1 - \beta) g^2, \qquad
      v \leftarrow \mu v + \frac{g}{\sqrt{s + \epsilon}}, \qquad w \leftarrow w - \eta v

    with lambda w added to g before, where weight decay acts in the update.

    Args:
      learning_rate: eta, or a schedule of it by step.
      weight_decay: lambda, where it acts in the update.
      momentum: mu; v starts at zero.
      decay: beta, 0.9 for EfficientNet.
      epsilon: *inside* the square root, 0.001 for EfficientNet; other libraries have it outside.
      initial: s before the first step: 1 in TensorFlow 1, 0 in other libraries.

    Source: google-research/sam, whose learning rate multiplies v. TensorFlow multiplies what enters
    v, which differs only as far as the rate changes within the memory of v.
    """
    return [
        *weight_decay.links(),
        optax.scale_by_rms(decay, epsilon, initial_scale=initial, eps_in_sqrt=True),
        optax.trace(momentum),
        optax.scale_by_learning_rate(learning_rate),
    ]


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: WeightDecay,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> Links:
    r"""Return the links of Adam with decoupled weight decay.

    .. math::
      w \leftarrow w - \eta \left(\frac{\hat m}{\sqrt{\hat s} + \epsilon} + \lambda w\right)

    with m and s the running means of g and g^2, both without their bias towards zero.

    Args:
      learning_rate: eta, or a schedule of it by step.
      weight_decay: lambda, where it acts in the update; it bypasses m and s, and eta multiplies it.
      beta1: of m.
      beta2: of s.
      epsilon: outside the square root.

    Source: Loshchilov and Hutter 2019, as PyTorch and optax have it; Chen et al. 2022 and Zhuang et
    al. 2022 train vision transformers so.
    """
    return [
        optax.scale_by_adam(beta1, beta2, epsilon),
        *weight_decay.links(),
        optax.scale_by_learning_rate(learning_rate),
    ]


# name -> (the group `optimiser`, learning rate, weight decay) -> links
OPTIMISERS: dict[
    str, Callable[[ml_collections.ConfigDict, optax.ScalarOrSchedule, WeightDecay], Links]
] = {
    "sgd": lambda c, *common: sgd(*common, momentum=c.momentum, nesterov=c.nesterov),
    "rmsprop": lambda c, *common: rmsprop(*common, momentum=c.momentum, **c.rmsprop),
    "adamw": lambda c, *common: adamw(*common, **c.adamw),
}


def make_optimiser(
    c: ml_collections.ConfigDict, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """Return the optimiser of a config, after clipping by the global norm.

    Args:
      c: the group `optimiser` of a config.
      learning_rate: a number, or a schedule by step.

    Returns:
      An optax transformation that takes the (sharpness-aware) gradient.
    """
    clipping = [optax.clip_by_global_norm(c.clip_norm)] if c.clip_norm else []
    return optax.chain(*clipping, *OPTIMISERS[c.name](c, learning_rate, weight_decay_of(c)))
