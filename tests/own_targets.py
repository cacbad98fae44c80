"""Functions for `--target`: of a model of sam_jax as another program has it, and mistaken ones."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from measured_models import make_settings, make_trained

from sam_jax.measuring.target import Target


def linen():
    """The model of `make_trained(0)`, whose loss and accuracy are written by hand."""
    trained = make_trained(0)
    mean, std = (
        jnp.array(x).reshape(1, 1, 1, -1) for x in (trained.source.mean, trained.source.std)
    )

    def logits_of(variables, batch):
        images, _ = batch
        return trained.program.model.apply(
            variables, (jnp.asarray(images, jnp.float32) / 255 - mean) / std, train=False
        )

    def loss(variables, batch):
        return optax.softmax_cross_entropy_with_integer_labels(
            logits_of(variables, batch), batch[1]
        )

    settings = make_settings()
    settings.loss_line.update({"num_directions": 1, "points": 3})
    return Target(
        loss=loss,
        variables={"params": trained.state.params, "batch_stats": trained.state.batch_stats},
        train=(trained.data.train_images, trained.data.train_labels),
        test=(trained.data.test_images, trained.data.test_labels),
        correct=lambda variables, batch: jnp.argmax(logits_of(variables, batch), -1) == batch[1],
        settings=settings.to_dict(),
    )


def without_a_test_set():
    return dataclasses.replace(linen(), test=None, correct=None)


def small():
    """A linear model, for what is refused before anything is measured."""
    x, y = jnp.ones((4, 2)), jnp.zeros(4, int)
    shapes = {"params": {"dense": {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}}}

    def loss(variables, batch):
        logits = batch[0] @ variables["params"]["dense"]["kernel"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])

    return Target(loss=loss, variables=shapes, train=(x, y))


def linear():
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def nnx_model(pure=False):
    """A linear model of NNX, whose variables are its state or plain dicts."""
    graph, params = nnx.split(linear())

    def loss(variables, batch):
        state = variables["params"]
        if pure:
            nnx.replace_by_pure_dict(copy := jax.tree.map(lambda x: x, params), state)
            state = copy
        logits = nnx.merge(graph, state)(batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])

    x = jax.random.normal(jax.random.key(1), (16, 2))
    settings = {
        "adversarial": {"m": (8,), "rho": (0.1,), "batches": 1},
        "asymmetry_index": {"num_directions": 2},
    }
    return Target(
        loss=loss,
        variables={"params": nnx.to_pure_dict(params) if pure else params},
        train=(x, jnp.arange(16) % 3),
        settings=settings,
    )


plain = functools.partial(nnx_model, pure=True)


def changed(**fields):
    return lambda: dataclasses.replace(small(), **fields)


def fails():
    raise KeyError("no data")


dictionary = dict
no_params = changed(variables={"weights": {}})
unequal_sets = changed(train=(jnp.ones((4, 2)), jnp.zeros(3, int)))
empty_set = changed(test=(jnp.ones((0, 2)), jnp.zeros(0, int)))
other_test_set = changed(test=(jnp.ones((4, 5)), jnp.zeros(4, int)))
mean_loss = changed(loss=lambda variables, batch: jnp.mean(small().loss(variables, batch)))
two_outputs = changed(loss=lambda variables, batch: (small().loss(variables, batch), 0))
wrong_place = changed(places={"parms": "model"})
wrong_setting = changed(settings={"hesian": {"steps": 3}})
wrong_value = changed(settings={"hessian": {"steps": 0}})
