"""What every field of a training's config may hold; the base config has each of them.

What one field says alone stands here. What several say together, or what depends on the data, is
checked where it is read. The attributes of a model are its own, and the group `instruments` is
`sam_jax.measuring.settings`'.
"""

import dataclasses
import math

import jax

from sam_jax import data, models
from sam_jax.data.augmentation import AUGMENTATIONS
from sam_jax.data.label_noise import KINDS
from sam_jax.runs import fields, writers
from sam_jax.runs.fields import (
    Field,
    ascending,
    flag,
    items,
    number,
    one_of,
    optional,
    path,
    positive,
    several,
    text,
    under,
    whole,
)
from sam_jax.training import example_losses, methods, optimiser, placement, schedules, weight_decay
from sam_jax.training.nonfinite import ON_NONFINITE

DTYPES = ("float32", "bfloat16", "float16")
MATMUL_PRECISIONS = (
    *("default", "high", "highest", "bfloat16", "tensorfloat32", "float32"),
    *(preset.name for preset in jax.lax.DotAlgorithmPreset if preset.name != "DEFAULT"),
)
APART = ("model", "instruments")  # groups with fields of their own
SEED = whole(0, 2**32 - 1)
SHARE = number(0, 1)  # both ends included
NOT_NEGATIVE = number(0)
ANY = number()

RUN: dict[str, Field] = {
    "seed": SEED,
    "epochs": whole(1),
    "batch_size": whole(1),
    "steps_per_call": whole(0),
    "on_nonfinite": one_of(ON_NONFINITE),
    "divergence_factor": NOT_NEGATIVE,
    "writers": several(one_of(writers.NAMES), distinct=True),
    "matmul_precision": one_of(MATMUL_PRECISIONS),
    "mesh": Field(
        'pairs of a name and a size, such as (("data", -1), ("model", 1))',
        several(items(text(), whole(-1)), least=1).holds,
    ),
    "split_parameters": several(text(), distinct=True),
    "step_form": one_of(placement.FORMS),
}

DATA: dict[str, Field] = {
    "name": text(),
    "data_dir": path(),
    "train_examples": whole(0),
    "validation_examples": whole(0),
    "train_split": text(),
    "image_size": whole(0),
    "label_noise": SHARE,
    "label_noise_kind": one_of(KINDS),
    "label_noise_seed": SEED,
    "synthetic_examples": whole(0),
    "streaming": one_of(data.STREAMING),
    "augmentation": optional(several(one_of(AUGMENTATIONS))),
    "pad": optional(whole(0)),
    "cutout_size": optional(whole(1)),
    "randaugment_layers": whole(1),
    "randaugment_magnitude": whole(0, 30),
    "mixup": NOT_NEGATIVE,
}

MODEL: dict[str, Field] = {
    "name": one_of(models.MODELS),
    "dtype": one_of(DTYPES),
    "use_fast_variance": dataclasses.replace(flag(), needed=False),
}

METHOD: dict[str, Field] = {
    "name": one_of(methods.METHODS),
    "rho": NOT_NEGATIVE,
    "norm_order": Field(
        "a number in (1, inf]", lambda x: number(1, open_low=True).holds(x) or x == math.inf
    ),
    "eta": NOT_NEGATIVE,
    "m": whole(0),
    "synchronise": Field(
        "'local', 'all' or a number of devices such as '4'",
        lambda x: x in ("local", "all") or (isinstance(x, str) and x.isdecimal() and int(x) > 0),
        ("local", "all"),
    ),
    "from_share": number(0, 1, open_high=True),
    "until_share": number(0, 1, open_low=True),
    "strategy": one_of(("scan", "vmap")),
    "statistics_from": one_of(("clean", "perturbed")),
    "usam.project": flag(),
    "unified_sam.lmbda": SHARE,
    "average_sam.distribution": one_of(("sphere", "gaussian")),
    "multi_step_sam.steps": whole(1),
    "multi_step_sam.normalised": flag(),
    "asam.rescaling": one_of(("element", "filter", "layer")),
    "asam.rescaled": one_of(("not_biases", "all")),
    "gsam.alpha": NOT_NEGATIVE,
    "gsam.rho_min": NOT_NEGATIVE,
    "fisher_sam.eta": NOT_NEGATIVE,
    "esam.beta": number(0, 1, open_low=True),
    "esam.gamma": number(0, 1, open_low=True),
    "esam.granularity": one_of(("parameter", "tensor")),
    "ss_sam.probability": SHARE,
    "looksam.k": whole(1),
    "looksam.alpha": NOT_NEGATIVE,
    "saf.lmbda": NOT_NEGATIVE,
    "saf.tau": positive(),
    "saf.epochs_back": whole(1),
    "saf.start_epoch": whole(0),
    "mesa.lmbda": NOT_NEGATIVE,
    "mesa.tau": positive(),
    "mesa.decay": number(0, 1, open_high=True),
    "mesa.start_epoch": whole(0),
    "friendly_sam.sigma": NOT_NEGATIVE,
    "friendly_sam.lmbda": SHARE,
    "friendly_sam.order": one_of(("paper", "code")),
    "vasso.theta": SHARE,
    "wsam.gamma": number(0, 1, open_high=True),
    "decoupled_wsam.gamma": number(0, 1, open_high=True),
    "interval_sam.k": whole(1),
    "late_phase_sam.tail": SHARE,
    "ae_sam.lambda1": ANY,
    "ae_sam.lambda2": ANY,
    "ae_sam.decay": SHARE,
    "smooth_out.radius": NOT_NEGATIVE,
    "smooth_out.copies": whole(1),
    "smooth_out.adaptive": flag(),
    "weight_noise.relative": NOT_NEGATIVE,
    "awp.gamma": NOT_NEGATIVE,
    "amp.epsilon": NOT_NEGATIVE,
    "amp.inner_learning_rate": NOT_NEGATIVE,
    "amp.inner_steps": whole(1),
    "entropy_sgd.gamma": NOT_NEGATIVE,
    "entropy_sgd.steps": whole(1),
    "entropy_sgd.step_size": NOT_NEGATIVE,
    "entropy_sgd.noise": NOT_NEGATIVE,
    "entropy_sgd.alpha": SHARE,
    "entropy_sgd.split_batch": flag(),
    "extrap_sgd.extrapolation": NOT_NEGATIVE,
}

OPTIMISER: dict[str, Field] = {
    "name": one_of(optimiser.OPTIMISERS),
    "learning_rate": NOT_NEGATIVE,
    "warmup_epochs": NOT_NEGATIVE,
    "schedule": one_of(schedules.SCHEDULES),
    "exponential.end": number(0, 1, open_low=True),
    "linear.end": SHARE,
    "piecewise.boundaries": ascending(number(0, 1, open_low=True, open_high=True)),
    "piecewise.factors": several(NOT_NEGATIVE),
    "momentum": number(0, 1, open_high=True),
    "nesterov": flag(),
    "rmsprop.decay": number(0, 1, open_high=True),
    "rmsprop.epsilon": positive(),
    "rmsprop.initial": NOT_NEGATIVE,
    "adamw.beta1": number(0, 1, open_high=True),
    "adamw.beta2": number(0, 1, open_high=True),
    "adamw.epsilon": positive(),
    "clip_norm": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "weight_decay_on": one_of(weight_decay.ON),
    "weight_decay_in": one_of(weight_decay.PLACES),
}

WEIGHT_AVERAGE: dict[str, Field] = {
    "name": one_of(("none", "swa", "ema")),
    "decay": SHARE,
    "ema_warm_up": flag(),
    "ema_start_epochs": NOT_NEGATIVE,
    "start": SHARE,
    "every_epochs": positive(),
}

LOSS: dict[str, Field] = {
    "name": one_of(example_losses.LOSSES),
    "label_smoothing": number(0, 1, open_high=True),
    "offset_cross_entropy.offset": ANY,
    "generalised_cross_entropy.q": number(0, 1, open_low=True),
    "smallest_cross_entropy.removed": number(0, 1, open_high=True),
}

TRAINING: dict[str, Field] = {
    **RUN,
    **under("data.", DATA),
    **under("model.", MODEL),
    **under("method.", METHOD),
    **under("optimiser.", OPTIMISER),
    **under("weight_average.", WEIGHT_AVERAGE),
    **under("loss.", LOSS),
    "fine_tune.workdir": path(),
    "fine_tune.epoch": whole(0),
    "evaluation.batch_size": whole(1),
    "evaluation.test_every_epochs": whole(0),
    "evaluation.top_k": several(whole(2), distinct=True),
    "evaluation.train_every_epochs": whole(0),
    "evaluation.sharpness_every_epochs": whole(0),
    "checkpoint.every_epochs": whole(0),
    "checkpoint.keep": whole(1),
}


def check(config: fields.Config, prefix: str = "") -> None:
    """Raise a ValueError that names the first field of a training's config with a wrong value.

    Args:
      config: the whole config.
      prefix: before the names, such as "training." of a study's config.
    """
    fields.check(config, TRAINING, apart=APART, prefix=prefix)
