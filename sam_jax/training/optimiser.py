"""The optimiser that descends along the (sharpness-aware) gradient, and its learning rate."""

import optax


def make_schedule(highest: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Return the learning rate by step: linear from zero, then along a cosine to zero.

    Args:
      highest: at the end of the warm-up.
      warmup_steps: steps of the linear part; zero for none.
      total_steps: steps of the whole training.
    """
    if warmup_steps:
        return optax.warmup_cosine_decay_schedule(0.0, highest, warmup_steps, total_steps)
    return optax.cosine_decay_schedule(highest, total_steps)


def make_optimiser(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float,
    nesterov: bool,
    clip_norm: float,
    weight_decay: float,
) -> optax.GradientTransformation:
    """Return SGD with momentum, after clipping by the global norm and then weight decay.

    Args:
      learning_rate: a number, or a schedule by step.
      momentum: decay of the momentum buffer; the buffer starts at the first gradient.
      nesterov: whether the step looks ahead along the buffer.
      clip_norm: largest global norm of the gradient; zero for no clipping.
      weight_decay: added to the clipped gradient as weight_decay * params, as PyTorch's SGD does;
        zero where weight decay lives in the loss.

    Returns:
      An optax transformation that takes the (sharpness-aware) gradient.
    """
    links = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    links += [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(*links, optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov))
