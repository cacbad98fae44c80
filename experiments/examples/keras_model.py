"""SAM for a Keras model on the JAX backend: `fit` as it is, with a training step of its own.

Run `python -m experiments.examples.keras_model`. It prints

    Keras with SAM: test accuracy 0.967
    rho = 0 and the plain model, largest difference 0.0
    updates that the method counted 96

Keras hands its optimiser gradients alone, so the method stands before it, in `train_step`. Both
passes get the same variables that are not trained, hence draw the same dropout mask, and those that
the clean pass leaves are kept. The method's state is among them, so that Keras saves it.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported

import functools
from typing import Any

import jax
import keras

import sam_jax
from experiments.examples import digits
from sam_jax.typing import Batch, PyTree

EPOCHS = 8
QUIET: Any = 0  # which Keras takes, though it is annotated as text


class SharpnessAware(keras.Model):
    """A Keras model and the method along whose gradient `fit` descends."""

    def __init__(self, model: keras.Model, method: sam_jax.SharpnessAwareTransformation) -> None:
        super().__init__()
        self.model = model
        self.value_and_grad = functools.partial(sam_jax.value_and_grad, method)
        state = method.init([variable.value for variable in model.trainable_variables])
        self.method_variables = [keras.Variable(x, trainable=False) for x in jax.tree.leaves(state)]
        self.structure = jax.tree.structure(state)

    def call(self, images: jax.Array, training: bool = False) -> jax.Array:
        """Return logits."""
        return self.model(images, training=training)

    def train_step(self, state: PyTree, data: PyTree) -> tuple[dict[str, Any], PyTree]:
        """Take one step; this is what Keras compiles."""
        trainable, others, optimizer_variables, metrics = state
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        passes = functools.partial(
            jax.value_and_grad(self.compute_loss_and_updates, has_aux=True),
            non_trainable_variables=others,
            metrics_variables=metrics,
            x=x,
            y=y,
            sample_weight=weight,
            training=True,
            optimizer_variables=optimizer_variables,
        )
        ids = [id(variable) for variable in self.non_trainable_variables]
        places = [ids.index(id(variable)) for variable in self.method_variables]
        method_state = self.structure.unflatten(others[i] for i in places)
        (value, gradient), method_state = self.value_and_grad(passes)(trainable, method_state)
        loss, logits, others, _ = value[1]
        for place, leaf in zip(places, jax.tree.leaves(method_state), strict=True):
            others[place] = leaf
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, gradient, trainable
        )
        logs, metrics = self.updated_metrics(metrics, loss, y, logits)
        return logs, (trainable, others, optimizer_variables, metrics)

    def updated_metrics(
        self, variables: PyTree, loss: jax.Array, y: Any, logits: jax.Array
    ) -> tuple[dict[str, Any], PyTree]:
        """Return the results of all metrics and their variables after a batch."""
        logs, new = {}, []
        for metric in self.metrics:
            own = variables[len(new) : len(new) + len(metric.variables)]
            arguments = (loss,) if metric.name == "loss" else (y, logits)
            own = metric.stateless_update_state(own, *arguments)
            result = metric.stateless_result(own)
            logs |= result if isinstance(result, dict) else {metric.name: result}
            new += own
        return logs, new


def network() -> keras.Model:
    """Return a small convolutional network, always with the same weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10),
        ]
    )


def train(model: keras.Model, train_set: Batch) -> keras.Model:
    """Return the model after `compile` and `fit`."""
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    keras.utils.set_random_seed(1)  # the order of the batches
    images, labels = train_set["image"], train_set["label"]
    model.fit(images, labels, batch_size=128, epochs=EPOCHS, verbose=QUIET)
    return model


def main() -> None:
    """Train with SAM, and with rho = 0 against Keras's own step."""
    train_set, test_set = digits.load()
    trained = train(SharpnessAware(network(), sam_jax.sam(rho=0.1)), train_set)
    accuracy = digits.accuracy(trained.predict(test_set["image"], verbose=QUIET), test_set)
    print(f"Keras with SAM: test accuracy {accuracy:.3f}")
    zero = train(SharpnessAware(network(), sam_jax.sam(rho=0.0)), train_set)
    plain = train(network(), train_set)
    difference = digits.largest_difference(zero.model.get_weights(), plain.get_weights())
    print(f"rho = 0 and the plain model, largest difference {difference}")
    print(f"updates that the method counted {int(trained.method_variables[0])}")


if __name__ == "__main__":
    main()
