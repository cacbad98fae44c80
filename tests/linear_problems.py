"""Linear models in the place of networks: every step of their training has a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
from training_problems import Linear, tiny_config

from sam_jax.training import build
from sam_jax.training.step import TrainState
from sam_jax.training.trained import Trained


def linear_models():
    """Return two linear models of the 64 digits of the tiny config."""
    config = tiny_config()
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    program = program._replace(model=Linear(source.num_classes))
    models = []
    for seed in (3, 4):
        rng = np.random.default_rng(seed)
        kernel = rng.normal(size=(64, source.num_classes)) / 8
        params = {"dense": {"kernel": kernel, "bias": rng.normal(size=source.num_classes)}}
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
        state = TrainState(jnp.zeros((), jnp.int32), params, {}, None, None)
        models.append(Trained(state, program, data, source, epoch=1))
    return models
