"""The training of all networks, as one compiled scan."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.understanding.diagonal_nets.data import Data
from sam_jax.typing import AnyArray


class Method(NamedTuple):
    """A method with its settings; leaves may have a leading axis of networks.

    Attributes:
      per_example: 1-SAM, where every example has its own perturbation; otherwise n-SAM, where all
        share one. GD is n-SAM with rho = 0.
      loss_derivative_only: of the perturbed gradient keep only the loss's derivative perturbed, and
        take the network's at the unperturbed weights.
      rho: factor of the gradient in the perturbation, which is not normalised.
      learning_rate: the step size.
    """

    per_example: bool | AnyArray
    loss_derivative_only: bool | AnyArray
    rho: float | AnyArray
    learning_rate: float | AnyArray


class Weights(NamedTuple):
    """The two layers of f(x) = <x, u * v>."""

    u: AnyArray  # [d]
    v: AnyArray  # [d]


class Histories(NamedTuple):
    """What the training of all networks left."""

    train_losses: np.ndarray  # [phases, iterations, networks], NaN where they were not logged
    test_losses: np.ndarray  # the same
    weights: Weights  # after every phase: [phases, networks, d]


def loss(weights: Weights, inputs: AnyArray, outputs: AnyArray) -> jax.Array:
    """Return sum((X (u * v) - y)^2) / (2 n) for X of shape [n, d] and y of shape [n]."""
    return jnp.mean((inputs @ (weights.u * weights.v) - outputs) ** 2) / 2


def gradient(weights: Weights, method: Method, inputs: AnyArray, outputs: AnyArray) -> Weights:
    r"""Return the mean over examples of the gradient at each one's perturbed weights.

    .. math::
      u_k = u + \rho \, z_k v, \quad v_k = v + \rho \, z_k u, \quad
      z_k = 2 r_k x_k \;\text{(1-SAM)} \;\text{or}\; X^T r / n \;\text{(n-SAM)}

    with r = X (u * v) - y. The perturbation of 1-SAM is the gradient of r_k^2, that of n-SAM the
    gradient of sum(r^2) / (2 n): the factor 2 is the released code's.

    Args:
      weights: u and v, shape [d].
      method: which perturbation, and how large.
      inputs: X, shape [n, d].
      outputs: y, shape [n].
    """
    u, v = weights
    residuals = inputs @ (u * v) - outputs
    shared = inputs.T @ residuals / len(outputs)

    def of_example(x: AnyArray, y: AnyArray, residual: AnyArray) -> Weights:
        direction = method.rho * jnp.where(method.per_example, 2 * residual * x, shared)
        perturbed = Weights(u + direction * v, v + direction * u)
        derivative = x @ (perturbed.u * perturbed.v) - y
        network = Weights(
            *(
                jnp.where(method.loss_derivative_only, plain, moved)
                for plain, moved in zip(weights, perturbed, strict=True)
            )
        )
        return Weights(derivative * x * network.v, derivative * x * network.u)

    found = jax.vmap(of_example)(inputs, outputs, residuals)
    return jax.tree.map(lambda g: jnp.mean(g, axis=0), found)


def train(
    phases: Sequence[Method], scales: np.ndarray, data: Data, logged: np.ndarray
) -> Histories:
    """Train many networks from u = scale, v = 0, in float64.

    Args:
      phases: the methods that follow each other; leaves of shape [networks].
      scales: the initial u of every network.
      data: what they are trained and tested on.
      logged: whether the losses are computed after an iteration, shape [phases, iterations].

    >>> gd = Method(*(np.array([x]) for x in (False, False, 0.0, 0.1)))
    >>> data = Data(np.eye(2), np.ones(2), np.eye(2), np.ones(2), np.ones(2))
    >>> found = train([gd], np.array([0.5]), data, np.ones((1, 100), bool))
    >>> found.test_losses[0, [0, 9], 0].round(4).tolist()
    [0.4876, 0.3757]
    """
    with jax.enable_x64(True):
        methods = Method(*(np.stack(leaves) for leaves in zip(*phases, strict=True)))
        return Histories(*jax.tree.map(np.asarray, _train(methods, scales, data, logged)))


@jax.jit
def _train(methods: Method, scales: jax.Array, data: Data, logged: jax.Array) -> tuple:
    """Scan over phases and, in each, over iterations; all networks make each step together."""

    def losses(weights: Weights) -> tuple[jax.Array, jax.Array]:
        return (
            loss(weights, data.inputs, data.outputs),
            loss(weights, data.test_inputs, data.test_outputs),
        )

    def step(weights: Weights, method: Method) -> Weights:
        along = gradient(weights, method, data.inputs, data.outputs)
        return jax.tree.map(lambda w, g: w - method.learning_rate * g, weights, along)

    def train_phase(weights: Weights, phase: tuple) -> tuple:
        method, logged = phase

        def iterate(weights: Weights, logged: jax.Array) -> tuple:
            weights = jax.vmap(step)(weights, method)
            unlogged = jnp.full(scales.shape, jnp.nan)
            found = jax.lax.cond(logged, jax.vmap(losses), lambda _: (unlogged, unlogged), weights)
            return weights, found

        weights, found = jax.lax.scan(iterate, weights, logged)
        return weights, (*found, weights)

    u = jnp.broadcast_to(scales[:, None], (len(scales), data.inputs.shape[1]))
    _, found = jax.lax.scan(train_phase, Weights(u, jnp.zeros_like(u)), (methods, logged))
    return found
