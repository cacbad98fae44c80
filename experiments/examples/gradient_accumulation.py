"""Gradient accumulation: SAM on a batch that does not fit into memory.

Run `python -m experiments.examples.gradient_accumulation`. It prints

    trained with m_sam, strategy="scan": test accuracy 0.972
    one perturbation for each micro-batch: distance to the mean of four SAM gradients
      m_sam, strategy="scan": 0.0000
      chain(sam, MultiSteps(sgd, 4)): 0.0000
    one perturbation for the whole batch: distance to SAM on all of it
      sam with a grad_fn that accumulates: 0.0000
      MultiSteps(chain(sam, sgd), 4): 1.2697

Distances are relative. MultiSteps around the chain is neither of the two: it ascends along the
accumulated gradient, then descends along the gradient of the last micro-batch alone.
"""

import functools

import jax
import jax.numpy as jnp
import optax

import sam_jax
from experiments.examples import digits
from sam_jax.typing import Batch, GradFn, Gradients, Params

EPOCHS, BATCH_SIZE, M = 60, 512, 128
K = BATCH_SIZE // M
sam = sam_jax.sam(rho=0.1)
m_sam = sam_jax.m_sam(sam, m=M, strategy="scan")
grad_fn = jax.grad(digits.mlp_loss)


def split(batch: Batch) -> Batch:
    """Return the micro-batches, along a new first axis."""
    return jax.tree.map(lambda x: jnp.reshape(x, (K, M) + x.shape[1:]), batch)


def accumulated_grad_fn(params: Params, batch: Batch) -> Gradients:
    """Return the gradient of the mean loss of a batch, one micro-batch after the other."""

    def add(total: Gradients, micro: Batch) -> tuple[Gradients, None]:
        return jax.tree.map(jnp.add, total, grad_fn(params, micro)), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), split(batch))
    return jax.tree.map(lambda x: x / K, total)


@jax.jit
def m_sam_gradient(params: Params, batch: Batch) -> Gradients:
    """Return the mean of the SAM gradients of the micro-batches, with the memory of one."""
    grads = grad_fn(params, batch)  # m_sam does not read it; under jit it is never computed
    return m_sam.update(grads, m_sam.init(params), params, grad_fn=grad_fn, batch=batch)[0]


@functools.partial(jax.jit, static_argnums=2)
def sam_gradient(params: Params, batch: Batch, grad_fn: GradFn = grad_fn) -> Gradients:
    """Return the SAM gradient with one perturbation for the whole batch."""
    bound = functools.partial(grad_fn, batch=batch)
    return sam.update(bound(params), sam.init(params), params, grad_fn=bound)[0]


@functools.partial(jax.jit, static_argnums=0)
def multi_steps(
    tx: optax.GradientTransformationExtraArgs, params: Params, batch: Batch
) -> Gradients:
    """Return the gradient along which tx steps once it has had each micro-batch in turn."""

    def step(state: optax.OptState, micro: Batch) -> tuple[optax.OptState, Params]:
        bound = functools.partial(grad_fn, batch=micro)
        updates, state = tx.update(bound(params), state, params, grad_fn=bound)
        return state, updates

    _, updates = jax.lax.scan(step, tx.init(params), split(batch))
    return jax.tree.map(lambda x: -x[-1], updates)  # of SGD with learning rate 1


def main() -> None:
    """Train, and compare the ways to accumulate at the end."""
    train_set, test_set = digits.load()
    params = digits.init_mlp(jax.random.key(0))
    for batch in digits.batches(train_set, EPOCHS, BATCH_SIZE):
        gradient = m_sam_gradient(params, batch)
        params = jax.tree.map(lambda w, g: w - 0.5 * g, params, gradient)
    accuracy = digits.accuracy(digits.apply_mlp(params, test_set["image"]), test_set)
    print(f'trained with m_sam, strategy="scan": test accuracy {accuracy:.3f}')

    inside = optax.chain(sam, optax.MultiSteps(optax.sgd(1.0), K).gradient_transformation())
    outside = optax.MultiSteps(optax.chain(sam, optax.sgd(1.0)), K)
    each = jax.vmap(sam_gradient, (None, 0))(params, split(batch))
    mean = jax.tree.map(lambda g: g.mean(0), each)
    whole = sam_gradient(params, batch)
    print("one perturbation for each micro-batch: distance to the mean of four SAM gradients")
    print(f'  m_sam, strategy="scan": {digits.distance(m_sam_gradient(params, batch), mean):.4f}')
    distance = digits.distance(multi_steps(inside, params, batch), mean)
    print(f"  chain(sam, MultiSteps(sgd, 4)): {distance:.4f}")
    print("one perturbation for the whole batch: distance to SAM on all of it")
    distance = digits.distance(sam_gradient(params, batch, accumulated_grad_fn), whole)
    print(f"  sam with a grad_fn that accumulates: {distance:.4f}")
    distance = digits.distance(multi_steps(outside, params, batch), whole)
    print(f"  MultiSteps(chain(sam, sgd), 4): {distance:.4f}")


if __name__ == "__main__":
    main()
