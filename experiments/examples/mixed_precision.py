"""Mixed precision: float32 parameters, and a computation in bfloat16.

Run `python -m experiments.examples.mixed_precision`. It prints

    computation in float32: test accuracy 0.975
    computation in bfloat16: test accuracy 0.975
    what the bfloat16 network sees of perturbations: length along them / rho, norm / rho
      rho 0.5: float32 parameters 1.00, 1.00; bfloat16 parameters 1.00, 1.00
      rho 0.05: float32 parameters 1.01, 1.15; bfloat16 parameters 0.97, 1.03
      rho 0.005: float32 parameters 1.08, 3.02; bfloat16 parameters 0.29, 0.63

The gradients of float32 parameters are float32, and SAM's norms are so for any parameters. A small
perturbation is finer than the spacing of bfloat16 numbers. With float32 parameters rounding adds
noise to the perturbation that the network sees, but keeps it on average; bfloat16 parameters lose
much of it, as they lose small updates.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

import sam_jax
from experiments.examples import digits
from sam_jax import pytree
from sam_jax.typing import Batch, Params, PyTree

EPOCHS = 20
tx = optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.1, momentum=0.9))


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """Return a pytree in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def loss_fn(params: Params, batch: Batch, dtype: DTypeLike) -> jax.Array:
    """Return the mean loss with the network computed in `dtype` and the loss in float32."""
    logits = digits.apply_mlp(cast(params, dtype), batch["image"])
    return digits.cross_entropy(logits.astype(jnp.float32), batch)


@functools.partial(jax.jit, static_argnums=3)
def step(params: Params, state: PyTree, batch: Batch, dtype: DTypeLike) -> tuple[Params, PyTree]:
    """Take one step; parameters, perturbation, gradients and momentum are float32."""
    grad_fn = functools.partial(jax.grad(loss_fn), batch=batch, dtype=dtype)
    updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state


@jax.jit
def seen(params: Params, batch: Batch, rho: float) -> tuple[jax.Array, jax.Array]:
    """Return how far the network's bfloat16 weights move along a perturbation, and in all."""
    direction = pytree.normalise(jax.grad(loss_fn)(params, batch, jnp.bfloat16))
    moved = jax.tree.map(
        lambda after, before: pytree.widen(after) - pytree.widen(before),
        cast(pytree.add(params, direction, rho), jnp.bfloat16),
        cast(params, jnp.bfloat16),
    )
    return pytree.vdot(moved, direction) / rho, pytree.norm(moved) / rho


def main() -> None:
    """Train in both precisions, then look at the perturbation."""
    train_set, test_set = digits.load()
    batches = list(digits.batches(train_set, EPOCHS))
    for dtype in ("float32", "bfloat16"):
        params = digits.init_mlp(jax.random.key(0))
        state = tx.init(params)
        for batch in batches:
            params, state = step(params, state, batch, dtype)
        accuracy = digits.accuracy(digits.apply_mlp(params, test_set["image"]), test_set)
        print(f"computation in {dtype}: test accuracy {accuracy:.3f}")

    print("what the bfloat16 network sees of perturbations: length along them / rho, norm / rho")
    for rho in (0.5, 0.05, 0.005):
        line = f"  rho {rho}:"
        for dtype in ("float32", "bfloat16"):
            moves = [seen(cast(params, dtype), batch, rho) for batch in batches[:50]]
            along, norm = np.mean(moves, axis=0)
            line += f" {dtype} parameters {along:.2f}, {norm:.2f};"
        print(line.removesuffix(";"))


if __name__ == "__main__":
    main()
