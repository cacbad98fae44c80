"""Which variance the norms of every model take, in training and where it is measured."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from narrow_models import narrow

from sam_jax import models
from sam_jax.training.program import full_precision

NORMED = {name: {} for name in models.MODELS} | {
    f"{name}, group norm": {"norm": "group"} for name in ("resnet", "preact_resnet")
}


def variances_of_norms(model):
    """Whether each norm of a model takes the fast variance, by the norm's path."""
    found = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm | nn.GroupNorm | nn.LayerNorm):
            found[context.module.path] = context.module.use_fast_variance
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
    return found


@pytest.mark.parametrize("kind", NORMED)
def test_every_norm_takes_the_variance_that_is_asked_for(kind):
    name = kind.partition(",")[0]
    model = narrow(name, **NORMED[kind])
    fast = variances_of_norms(model)
    assert len(fast) > 1 and all(fast.values())  # Flax's default, in training
    exact = variances_of_norms(model.clone(use_fast_variance=False))
    assert exact == dict.fromkeys(fast, False)
    # What is measured, however it was trained.
    assert variances_of_norms(full_precision(model)) == exact
