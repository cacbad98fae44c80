"""Task: whole trainings by the command's loop, and the same steps alone on ready batches."""

import itertools
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import optax

from configs import cifar10, digits
from experiments.benchmark.jax_side import networks
from experiments.benchmark.jax_side.networks import Network
from experiments.benchmark.jax_side.steps import State, make_step
from experiments.benchmark.worker import Prepared
from sam_jax.training import build
from sam_jax.training.train_and_evaluate import train_and_evaluate

CONFIGS = {"digits": digits.get_config, "cifar10": cifar10.get_config}


def prepare(case: dict[str, Any]) -> Prepared:
    """Make the two calls: `whole` trains anew for all epochs, `bare` takes as many steps.

    Args:
      case: "config" and "variant" of a config with SAM; "epochs"; "overrides" of its fields by
        dotted names; "folder" for the trainings.
    """
    config = CONFIGS[case["config"]](case["variant"])
    config.epochs = case["epochs"]
    config.update_from_flattened_dict(case["overrides"])
    source, data, program = build.data_and_program(config)
    state = program.init(jax.random.key(0))
    net = Network(program.model, state.params, state.batch_stats, source.image_shape)
    c = config.optimiser
    made = make_step(
        net,
        "sam",
        optimiser=optax.chain(
            optax.clip_by_global_norm(c.clip_norm),
            optax.add_decayed_weights(c.weight_decay),
            optax.sgd(c.learning_rate, c.momentum, nesterov=True),
        ),
    )
    step = jax.jit(made.step, donate_argnums=0)
    batches = [
        (
            program.inputs(jnp.asarray(data.train_images[i : i + config.batch_size])),
            data.train_labels[i : i + config.batch_size],
        )
        for i in range(0, program.steps_per_epoch * config.batch_size, config.batch_size)
    ]
    bare_state: State = jax.tree.map(jnp.copy, made.state)

    def bare(repeats: int) -> None:
        nonlocal bare_state
        for _ in range(repeats * config.epochs):
            for batch in batches:
                bare_state = step(bare_state, batch)
        jax.block_until_ready(bare_state)

    seeds = itertools.count()

    def whole(repeats: int) -> None:
        for _ in range(repeats):
            folder = pathlib.Path(case["folder"])
            shutil.rmtree(folder, ignore_errors=True)
            config.seed = next(seeds)  # another seed has the same compiled program
            train_and_evaluate(config, folder)

    about = {
        "title": f"{config.model.name} on {config.data.name}, batch {config.batch_size}",
        "steps": program.steps_per_epoch,
        "test_examples": len(data.test_labels),
    }
    return Prepared(networks.about() | about, {"whole": whole, "bare": bare})
