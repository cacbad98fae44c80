"""Blocks that the backward pass computes anew: the same gradients, and less that is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from narrow_models import images_of, initialise, moved, narrow, train_mode

from sam_jax import models


@pytest.mark.parametrize("name", sorted(set(models.MODELS) - {"small_conv_net"}))
def test_checkpointed_blocks_have_the_same_parameters_and_gradients(name):
    images = images_of((4, 8, 8, 1))
    model, checkpointed = narrow(name), narrow(name, checkpoint_blocks=True)
    variables = moved(initialise(model, images))
    shapes = jax.eval_shape(checkpointed.init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)

    def gradients(model):
        def loss(params):
            logits, new = train_mode(model, {**variables, "params": params}, images)
            return jnp.sum(jnp.tanh(logits)), new

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    for a, b in zip(*map(jax.tree.leaves, map(gradients, (checkpointed, model))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(1.0, jnp.abs(b).max()))


def test_what_the_backward_pass_keeps():
    """By checkpoints little but the inputs of blocks; in bfloat16 half of all activations."""
    images = images_of((32, 16, 16, 3))

    def kept(**attributes):
        model = narrow("resnet", width=16, blocks=(4, 4), **attributes)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)

        def logits(params, stats):
            return train_mode(model, {"params": params, "batch_stats": stats}, images)[0]

        def pull_back(params, stats):
            return jax.vjp(lambda p: logits(p, stats), params)[1]

        residuals = jax.eval_shape(pull_back, variables["params"], variables["batch_stats"])
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))

    assert kept(checkpoint_blocks=True) < 0.2 * kept()
    assert 0.4 * kept() < kept(dtype=jnp.bfloat16) < 0.7 * kept()
