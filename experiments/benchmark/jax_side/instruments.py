"""Task: instruments over the whole training set, on weights that the other side reads too."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import digits
from experiments.benchmark.jax_side import networks
from experiments.benchmark.jax_side.steps import State, make_step
from experiments.benchmark.worker import Prepared
from sam_jax import data, metrics
from sam_jax.training.evaluation import Inputs, evaluate_set, make_logits_fn
from sam_jax.training.losses import cross_entropy
from sam_jax.typing import Params, PyTree

BATCH = digits.get_config().instruments.batch_size  # images in one pass
DISTANCE, LIMIT = 5.0, 1.0  # of the asymmetry; of the surface, in filter norms
TRAINED_STEPS, TRAIN_BATCH = 200, 32


def prepare(case: dict[str, Any]) -> Prepared:
    """Train a net for some steps, write weights, directions and set, compile the instruments.

    Args:
      case: "net", "examples" of the digits (0 for all), "directions", "points" of a side of the
        surface, "steps" of Lanczos, "weights" for the file.
    """
    source, train, _ = data.load("digits", train_examples=case["examples"])
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
    inputs = Inputs(source.mean, source.std)
    state = _trained(case["net"], inputs(images), labels)
    params, stats = state.params, state.batch_stats
    unit = functools.partial(metrics.random_directions, jax.random.key(1), params)
    directions = unit(case["directions"], "gaussian")
    plane = metrics.random_directions(jax.random.key(2), params, 2, "gaussian", "filter")
    arrays = {
        "images": np.asarray(train.images),
        "labels": np.asarray(train.labels),
        "mean": np.asarray(source.mean, np.float32),
        "std": np.asarray(source.std, np.float32),
        "distance": np.float32(DISTANCE),
        "axis": np.linspace(-LIMIT, LIMIT, case["points"], dtype=np.float32),
    }
    for prefix, tree in {
        "params": params,
        "batch_stats": stats,
        "directions": directions,
        "plane": plane,
    }.items():
        arrays |= _named(prefix, tree)
    np.savez(case["weights"], **arrays)

    logits_fn = make_logits_fn(networks.network(case["net"]).model, inputs)
    axis = arrays["axis"]

    def set_loss(params: Params) -> jax.Array:
        of_images = functools.partial(logits_fn, params, stats)
        return evaluate_set(of_images, images, labels, BATCH).loss

    count = len(labels)
    batch = min(BATCH, count)
    positions = jnp.arange(-(-count // batch) * batch).reshape(-1, batch)

    def batch_loss(params: Params, at: jax.Array) -> jax.Array:
        rows = jnp.minimum(at, count - 1)
        losses = cross_entropy(logits_fn(params, stats, images[rows]), labels[rows])
        return jnp.mean(losses, where=at < count)

    @jax.jit
    def asymmetry(params: Params) -> jax.Array:
        return metrics.asymmetry_factor(set_loss, params, DISTANCE, directions=directions).factor

    @jax.jit
    def surface(params: Params) -> jax.Array:
        first, second = (jax.tree.map(lambda d, i=i: d[i], plane) for i in (0, 1))
        found = metrics.loss_plane(set_loss, params, first, second, axis, axis)
        return jnp.mean(jnp.log(found.values))

    @jax.jit
    def lanczos(params: Params) -> jax.Array:
        found = metrics.hessian_eigenvalues(
            batch_loss,
            params,
            positions,
            key=jax.random.key(3),
            steps=case["steps"] - 2,  # and a product for the residual at either end
            weights=jnp.sum(positions < count, axis=1),
        )
        return found.top[0]

    def repeated(instrument: Any) -> Any:
        def call(repeats: int) -> float:
            results = [float(instrument(params)) for _ in range(repeats)]
            return results[-1]

        return call

    calls = {"asymmetry": asymmetry, "surface": surface, "lanczos": lanczos}
    about = networks.about() | {"examples": count, "parameters": _size(params)}
    return Prepared(about, {name: repeated(call) for name, call in calls.items()})


def _trained(net: str, images: jax.Array, labels: jax.Array) -> State:
    made = make_step(networks.network(net), "sgd")
    step, state = jax.jit(made.step), made.state
    order = np.random.default_rng(0).integers(0, len(labels), (TRAINED_STEPS, TRAIN_BATCH))
    for rows in order:
        state = step(state, (images[rows], labels[rows]))
    return state


def _named(prefix: str, tree: PyTree) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {"/".join([prefix, *(k.key for k in path)]): np.asarray(x) for path, x in leaves}


def _size(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
