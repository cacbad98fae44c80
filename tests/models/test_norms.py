"""Which variance the norms of every model take, in training and where it is measured."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from narrow_models import narrow

from sam_jax import models
from sam_jax.models import norms
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


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("fast", [False, True])
def test_batch_norm_is_that_of_flax(train, fast):
    """Outputs, running statistics and gradients, from the same variables."""
    random = np.random.default_rng(0)
    x = jnp.asarray(1 + 2 * random.normal(size=(6, 5, 4, 3)), jnp.float32)
    weights = jnp.asarray(random.normal(size=x.shape), jnp.float32)
    variables = {
        "params": {"scale": jnp.array([0.5, 1.0, -2.0]), "bias": jnp.array([0.1, -3.0, 1.0])},
        "batch_stats": {"mean": jnp.array([0.5, 1.0, 2.0]), "var": jnp.array([1.0, 3.0, 5.0])},
    }
    settings = {"momentum": norms.MOMENTUM, "epsilon": norms.EPSILON, "use_fast_variance": fast}
    modules = (
        norms.batch_norm(train, jnp.float32, use_fast_variance=fast),
        nn.BatchNorm(use_running_average=not train, dtype=jnp.float32, **settings),
    )

    def outcome(norm):
        def loss(params, x):
            y, new = norm.apply(variables | {"params": params}, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y) * weights), (y, new)

        return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)

    got, expected = map(outcome, modules)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    changed = got[1][1]["batch_stats"]["mean"] != variables["batch_stats"]["mean"]
    assert bool(jnp.any(changed)) == train
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert jnp.abs(b).max() > 0.1
        # Sums of 120 terms, and gradients in which they cancel: some tens of 2^-24.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
