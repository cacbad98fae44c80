"""Task: one sweep of growth, every point compiled, counted and ready to be timed."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.benchmark.jax_side import networks
from experiments.benchmark.jax_side.networks import Network
from experiments.benchmark.jax_side.steps import Step, make_step
from experiments.benchmark.worker import Prepared
from sam_jax import metrics
from sam_jax.collectives import collectives
from sam_jax.typing import Params


class Made(NamedTuple):
    """A program at one point, with its arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    mesh: Mesh | None = None


def prepare(case: dict[str, Any]) -> Prepared:
    """Compile the program at every value of the sweep.

    Args:
      case: "sweep", "values", "net", and "batch" where it is not what grows.
    """
    network = networks.network(case["net"])
    make = MAKERS[case["sweep"]]
    points, calls = [], {}
    for x in case["values"]:
        made = make(network, case, x)
        lowered, compiled = _compiled(made)
        # A loop's body is counted once, so only programs without one tell their operations.
        whole = case["sweep"] in ("batch", "devices_common", "devices_local")
        counted = compiled if made.mesh is not None else lowered
        points.append(
            {
                "x": x,
                "operations": counted.cost_analysis()["flops"] if whole else math.nan,
                "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
                **collectives(compiled.as_text()),
            }
        )
        if made.mesh is None:  # devices of one processor share its time, which says nothing
            calls[str(x)] = functools.partial(_call, compiled, made.arguments)
    return Prepared(networks.about() | {"parameters": network.size, "points": points}, calls)


def _compiled(made: Made) -> tuple[Any, Any]:
    if made.mesh is None:
        lowered = jax.jit(made.function).lower(*made.arguments)
        return lowered, lowered.compile()
    with jax.set_mesh(made.mesh):
        lowered = jax.jit(made.function).lower(*made.arguments)
        return lowered, lowered.compile()


def _call(compiled: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> None:
    for _ in range(repeats):
        result = compiled(*arguments)
        jax.block_until_ready(result)


def _step(made: Step, batch: Any) -> Made:
    return Made(made.step, (made.state, batch))


def _batch(network: Network, case: dict[str, Any], x: int) -> Made:
    return _step(make_step(network, "sam"), networks.random_batch(case["net"], x))


def _sub_batches(strategy: str) -> Callable[..., Made]:
    def make(network: Network, case: dict[str, Any], x: int) -> Made:
        made = make_step(network, f"m_sam_{strategy}", x)
        return _step(made, networks.random_batch(case["net"], case["batch"]))

    return make


def _loss(network: Network, case: dict[str, Any]) -> Callable[[Params], jax.Array]:
    images, labels = networks.random_batch(case["net"], case["batch"])

    def loss_fn(params: Params) -> jax.Array:
        variables = {"params": params, "batch_stats": network.batch_stats}
        logits: Any = network.model.apply(variables, images, train=False)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])

    return loss_fn


def _points(network: Network, case: dict[str, Any], x: int) -> Made:
    plane = metrics.random_directions(networks.KEY, network.params, 2, "gaussian", "filter")
    first, second = (jax.tree.map(lambda d, i=i: d[i], plane) for i in (0, 1))
    loss_fn = _loss(network, case)

    def surface(params: Params) -> jax.Array:
        axis = jnp.linspace(-1.0, 1.0, x)
        return metrics.loss_plane(loss_fn, params, first, second, axis, jnp.zeros(1)).values

    return Made(surface, (network.params,))


def _directions(network: Network, case: dict[str, Any], x: int) -> Made:
    loss_fn = _loss(network, case)

    def factor(params: Params) -> jax.Array:
        return metrics.asymmetry_factor(
            loss_fn, params, 1.0, key=networks.KEY, num_directions=x, distribution="gaussian"
        ).ratios

    return Made(factor, (network.params,))


def _seeds(network: Network, case: dict[str, Any], x: int) -> Made:
    made = make_step(network, "sam")
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * x), made.state)
    batch = networks.random_batch(case["net"], case["batch"])
    return Made(jax.vmap(made.step, in_axes=(0, None)), (states, batch))


def _devices(method: str) -> Callable[..., Made]:
    def make(network: Network, case: dict[str, Any], x: int) -> Made:
        mesh = Mesh(np.array(jax.devices()[:x]), ("data",))
        made = make_step(network, method, case["batch"] // x)
        batch = networks.random_batch(case["net"], case["batch"])
        whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
        state = jax.device_put(made.state, whole)
        return Made(made.step, (state, jax.device_put(batch, split)), mesh)

    return make


MAKERS: dict[str, Callable[..., Made]] = {
    "batch": _batch,
    "m_scan": _sub_batches("scan"),
    "m_vmap": _sub_batches("vmap"),
    "points": _points,
    "directions": _directions,
    "seeds": _seeds,
    "devices_common": _devices("sam"),
    "devices_local": _devices("m_sam_vmap"),
}
