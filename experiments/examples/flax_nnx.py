"""SAM for a Flax NNX model with BatchNorm and dropout: the other variables go in unchanged.

Run `python -m experiments.examples.flax_nnx`. It prints

    pure function: test accuracy 0.983
    nnx.Optimizer: test accuracy 0.983
    largest difference in the running statistics 0.0
    m_sam: test accuracy 0.986

nnx.split separates the parameters from the rest: running statistics and the counts of the random
streams. Both passes merge the same rest, hence draw the same dropout mask, and the rest that the
clean pass leaves is kept: statistics and counts advance once a step. With nnx.Optimizer an adapter
does the same on the model itself. For m_sam the keys of the streams are split off too, and handed
over as `rngs`: every sub-batch gets them with its index folded in, and drops otherwise. Of the rest
it averages the statistics and keeps the last counts.
"""

import functools

import jax
import optax
from flax import nnx

import sam_jax
from experiments.examples import digits
from sam_jax.typing import Batch, Params, PyTree

EPOCHS = 10
method = sam_jax.sam(rho=0.1)
m_sam = sam_jax.m_sam(method, m=32)
optimiser = optax.sgd(0.1, momentum=0.9)


class Net(nnx.Module):
    """A convolution with BatchNorm, dropout and a dense layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 16, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.dense = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits; model.train() and model.eval() choose the statistics and dropout."""
        x = nnx.relu(self.norm(self.conv(images)))
        return self.dense(self.dropout(x.reshape(len(x), -1)))


@functools.partial(jax.grad, has_aux=True)
def gradient_and_rest(
    params: Params, graph: nnx.GraphDef, rest: PyTree, batch: Batch
) -> tuple[jax.Array, PyTree]:
    """Return the loss, which the decorator differentiates, and the new other variables."""
    model = nnx.merge(graph, params, rest, copy=True)  # the pass changes the copy alone
    loss = digits.cross_entropy(model(batch["image"]), batch)
    return loss, nnx.state(model, nnx.Not(nnx.Param))


@functools.partial(jax.jit, static_argnums=0)
def step(
    graph: nnx.GraphDef, params: Params, rest: PyTree, states: PyTree, batch: Batch
) -> tuple[Params, PyTree, PyTree]:
    """Take one step with pure functions; the auxiliary output of the clean pass is kept."""
    grad_fn = functools.partial(gradient_and_rest, graph=graph, rest=rest, batch=batch)
    result, method_state = method.gradient(grad_fn, params, states[0])
    updates, optimiser_state = optimiser.update(result.gradient, states[1], params)
    params = optax.apply_updates(params, updates)
    return params, result.clean_aux, (method_state, optimiser_state)


@functools.partial(jax.jit, static_argnums=0)
def step_with_sub_batches(
    graph: nnx.GraphDef, params: Params, keys: PyTree, rest: PyTree, states: PyTree, batch: Batch
) -> tuple[Params, PyTree, PyTree]:
    """Take one step of m_sam; graph to rest are `nnx.split(model, nnx.Param, nnx.RngKey, ...)`."""

    @functools.partial(jax.grad, has_aux=True)
    def grad_fn(params: Params, batch: Batch, rngs: PyTree) -> tuple[jax.Array, PyTree]:
        model = nnx.merge(graph, params, rngs, rest, copy=True)
        loss = digits.cross_entropy(model(batch["image"]), batch)
        return loss, nnx.state(model, nnx.Not(nnx.Any(nnx.Param, nnx.RngKey)))

    result, method_state = m_sam.gradient(grad_fn, params, states[0], batch=batch, rngs=keys)
    updates, optimiser_state = optimiser.update(result.gradient, states[1], params)
    params = optax.apply_updates(params, updates)
    return params, result.clean_aux, (method_state, optimiser_state)


@nnx.jit
def step_in_place(model: Net, optimizer: nnx.Optimizer, batch: Batch) -> None:
    """Take one step with `nnx.Optimizer(model, optax.chain(method, optimiser), wrt=nnx.Param)`."""

    def loss_fn(model: Net, batch: Batch) -> jax.Array:
        return digits.cross_entropy(model(batch["image"]), batch)

    _, grads, grad_fn = sam_jax.nnx_value_and_grad(loss_fn, model, batch)
    optimizer.update(model, grads, grad_fn=grad_fn)


def main() -> None:
    """Train both ways and compare."""
    train_set, test_set = digits.load()
    model = Net(nnx.Rngs(0))
    graph, params, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)
    states = (method.init(params), optimiser.init(params))
    optimizer = nnx.Optimizer(model, optax.chain(method, optimiser), wrt=nnx.Param)
    graph_with_keys, *third = nnx.split(Net(nnx.Rngs(0)), nnx.Param, nnx.RngKey, ...)
    third_params, keys, third_rest = third
    third_states = states
    for batch in digits.batches(train_set, EPOCHS):
        params, rest, states = step(graph, params, rest, states, batch)
        step_in_place(model, optimizer, batch)
        third_params, third_rest, third_states = step_with_sub_batches(
            graph_with_keys, third_params, keys, third_rest, third_states, batch
        )
    pure_model = nnx.merge(graph, params, rest)

    def report(name: str, trained: Net) -> None:
        trained.eval()
        print(f"{name}: test accuracy {digits.accuracy(trained(test_set['image']), test_set):.3f}")

    report("pure function", pure_model)
    report("nnx.Optimizer", model)
    statistics = (nnx.state(net, nnx.BatchStat) for net in (pure_model, model))
    difference = digits.largest_difference(*statistics)
    print(f"largest difference in the running statistics {difference}")
    report("m_sam", nnx.merge(graph_with_keys, third_params, keys, third_rest))


if __name__ == "__main__":
    main()
