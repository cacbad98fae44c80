"""Every public function of the instruments, called on one small problem."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sam_jax import metrics
from sam_jax.draws import explicit_sharding
from sam_jax.pytree import is_parameter

KEY = jax.random.key(5)


def numbers(*shape):
    return np.random.default_rng((7, *shape)).normal(size=shape).astype(np.float32)


NET = {"bias": numbers(4), "kernel": numbers(8, 4), "scale": numbers(1)[0]}
BATCHES = {"x": numbers(4, 16, 8), "y": numbers(4, 16)}


def array(x):
    """Return an array that is known, wherever it is made: inside jit others are traced."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(x, jnp.float32)


def gathered(w):
    """Return an array that every device has, as a loss over split parameters makes it."""
    split = explicit_sharding(w)
    return (
        w if split is None else jax.sharding.reshard(w, NamedSharding(split.mesh, PartitionSpec()))
    )


@dataclasses.dataclass(frozen=True)
class Problem:
    """A regression by a small network, whose parameters are in units of a length."""

    params: Any = dataclasses.field(default_factory=lambda: jax.tree.map(jnp.asarray, NET))
    batches: Any = dataclasses.field(default_factory=lambda: jax.tree.map(jnp.asarray, BATCHES))
    net: Callable[[Any], Any] = lambda params: params  # the network's among the leaves of params
    unit: float = 1.0
    count: int = 3  # of draws or directions
    mask: Any = None
    mesh: Any = None

    def loss(self, params, batch):
        """The mean square over a batch."""
        net = jax.tree.map(lambda w: gathered(jnp.asarray(w)) / self.unit, self.net(params))
        inner = jnp.sum(batch["x"][:, :, None] * net["kernel"][None], axis=1) + net["bias"][None]
        output = jnp.sum(jnp.tanh(inner), axis=1) * net["scale"]
        return jnp.mean((output - batch["y"]) ** 2)

    def whole(self, params):
        """The mean over all batches."""
        return jnp.mean(jax.vmap(self.loss, (None, 0))(params, self.batches))

    def each(self, function):
        """Return `function` of every weight, in units, where it lies; other leaves as they are."""
        return jax.tree.map(
            lambda w: function(jnp.asarray(w) / self.unit) * self.unit if is_parameter(w) else w,
            self.params,
        )

    @property
    def direction(self):
        return self.each(lambda w: jnp.cos(3 * w))

    @property
    def other(self):
        """Another model."""
        return self.each(lambda w: w + jnp.sin(2 * w))

    @property
    def third(self):
        return self.each(lambda w: w * w)

    @property
    def directions(self):
        """As many directions as `count`."""
        return self.each(lambda w: jnp.stack([jnp.cos(k * w) for k in range(1, self.count + 1)]))

    @property
    def controls(self):
        """A curve through three models."""
        return self.each(lambda w: jnp.stack([w * 1.0, jnp.cos(w), jnp.sin(w)]))

    @property
    def plane(self):
        return metrics.plane_through(self.params, self.other, self.third)


@dataclasses.dataclass(frozen=True)
class Row:
    """One function with one choice of its arguments."""

    name: str
    call: Callable[[Problem], Any]
    takes_mask: bool = False
    log_unit: int = 100  # the unit of the parameters may be 2 to this power; curvature has it twice

    @property
    def function(self):
        return self.name.split(",")[0]

    @property
    def takes_mesh(self):
        return "mesh" in inspect.signature(getattr(metrics, self.function)).parameters


def adversarial(p, **arguments):
    restarts = {"restarts": 1, "key": KEY}
    return metrics.adversarial_sharpness(
        p.loss, p.params, p.batches, steps=2, mask=p.mask, mesh=p.mesh, **(restarts | arguments)
    )


def average(p, distribution, rho):
    return metrics.average_sharpness(
        p.loss,
        p.params,
        p.batches,
        key=KEY,
        rho=array(rho),
        draws=p.count,
        distribution=distribution,
        mask=p.mask,
        mesh=p.mesh,
    )


def along(function, p, *lengths, **arguments):
    return function(p.whole, p.params, *map(array, lengths), mesh=p.mesh, **arguments)


def drawn(p, distribution, normalisation):
    return {
        "key": KEY,
        "num_directions": p.count,
        "distribution": distribution,
        "normalisation": normalisation,
    }


def curvature(function, p, **arguments):
    n = jax.tree.leaves(p.batches)[0].shape[0]
    weights = array(np.arange(1.0, n + 1))
    common = {"batches": p.batches, "weights": weights, "mask": p.mask, "mesh": p.mesh}
    return function(p.loss, p.params, **common, **arguments)


POSITIONS = array([0.0, 0.25, 0.8, 1.0])
GRID = array([-1.0, 0.0, 0.5])
SHORT_GRID = array([0.25, 2.0])

TABLE = [
    Row("adversarial_sharpness", lambda p: adversarial(p, rho=array(p.unit / 8)), True),
    Row(
        "adversarial_sharpness, ellipsoid",
        lambda p: adversarial(p, rho=array(0.125), adaptive=True, metric="euclidean"),
        True,
    ),
    Row(
        "adversarial_sharpness, adaptive",
        lambda p: adversarial(p, rho=array(0.125), adaptive=True, restarts=0),
        True,
    ),
    Row(
        "adversarial_sharpness, linf",
        lambda p: adversarial(p, rho=array(0.125), norm="linf", adaptive=True),
        True,
    ),
    Row("average_sharpness", lambda p: average(p, "sphere", p.unit / 2), True),
    Row("average_sharpness, adaptive", lambda p: average(p, "adaptive_gaussian", 0.25), True),
    Row(
        "asymmetry_factor",
        lambda p: along(metrics.asymmetry_factor, p, p.unit / 2, **drawn(p, "uniform", "unit")),
    ),
    Row(
        "asymmetry_factor, filter",
        lambda p: along(metrics.asymmetry_factor, p, 0.5, **drawn(p, "gaussian", "filter")),
    ),
    Row(
        "asymmetry_factor, given",
        lambda p: along(metrics.asymmetry_factor, p, 0.5, directions=p.directions),
    ),
    Row(
        "asymmetry_index",
        lambda p: along(metrics.asymmetry_index, p, 0.5, **drawn(p, "rademacher", "layer")),
    ),
    Row(
        "asymmetry_index, given",
        lambda p: along(metrics.asymmetry_index, p, 0.5, directions=p.directions),
    ),
    Row(
        "level_set_widths",
        lambda p: along(
            metrics.level_set_widths, p, 0.25, 64.0, **drawn(p, "gaussian", "relative")
        ),
    ),
    Row(
        "level_set_widths, given",
        lambda p: along(metrics.level_set_widths, p, 0.25, 64.0, directions=p.directions),
    ),
    Row(
        "loss_curve", lambda p: along(metrics.loss_curve, p, distances=GRID, direction=p.direction)
    ),
    Row(
        "loss_line",
        lambda p: metrics.loss_line(p.whole, p.params, p.direction, GRID, mesh=p.mesh),
    ),
    Row(
        "loss_plane",
        lambda p: metrics.loss_plane(
            p.whole,
            p.params,
            p.direction,
            p.other,
            GRID,
            SHORT_GRID,
            mesh=p.mesh,
        ),
    ),
    Row("gradient_direction", lambda p: metrics.gradient_direction(p.whole, p.params)),
    Row(
        "random_directions",
        lambda p: metrics.random_directions(KEY, p.params, p.count, "gaussian", "adaptive"),
    ),
    Row("direction_towards", lambda p: metrics.direction_towards(p.params, p.other)),
    Row(
        "direction_towards, unit",
        lambda p: metrics.direction_towards(p.params, p.other, unit_norm=True),
    ),
    Row("stack_directions", lambda p: metrics.stack_directions(p.direction, p.other)),
    *(
        Row(
            f"normalise_direction, {how}",
            lambda p, how=how: metrics.normalise_direction(p.direction, p.params, how),
        )
        for how in ("unit", "filter", "layer", "relative", "adaptive")
    ),
    Row(
        "hessian_vector_product",
        lambda p: curvature(metrics.hessian_vector_product, p, vector=p.direction),
        True,
    ),
    Row(
        "hessian_eigenvalues",
        lambda p: curvature(
            metrics.hessian_eigenvalues, p, key=KEY, num_eigenvalues=1, steps=6, vectors=True
        ),
        True,
        45,
    ),
    Row(
        "hessian_trace",
        lambda p: curvature(metrics.hessian_trace, p, key=KEY, draws=p.count),
        True,
        45,
    ),
    Row(
        "spectral_density",
        lambda p: curvature(
            metrics.spectral_density, p, key=KEY, draws=p.count, steps=4, num_points=16
        ),
        True,
        45,
    ),
    Row("curve_point", lambda p: metrics.curve_point(p.controls, array(0.25), "bezier")),
    Row("initial_controls", lambda p: metrics.initial_controls(p.params, p.other, 2)),
    Row(
        "losses_on_curve",
        lambda p: metrics.losses_on_curve(p.whole, p.controls, POSITIONS, mesh=p.mesh),
    ),
    Row("chord_lengths", lambda p: metrics.chord_lengths(p.controls, POSITIONS)),
    Row("plane_through", lambda p: p.plane),
    Row("plane_coordinates", lambda p: metrics.plane_coordinates(p.plane, p.direction)),
    Row(
        "curve_coordinates",
        lambda p: metrics.curve_coordinates(p.plane, p.controls, POSITIONS),
    ),
    Row(
        "trajectory_plane",
        lambda p: metrics.trajectory_plane([p.params, p.other, p.third, p.direction]),
    ),
]
# On the host: they look at the numbers, so that params may not be traced.
ON_THE_HOST = (
    *("chord_lengths", "plane_through", "plane_coordinates"),
    *("curve_coordinates", "trajectory_plane"),
)
# Public functions that see no parameters: name -> call with the arrays beside it.
WITHOUT_PARAMS = {
    "halved_by_quarters": (
        lambda length, k: metrics.halved_by_quarters(length, 4)(k),
        (array(0.5), array(2)),
    ),
    "grid_around": (lambda x: metrics.grid_around(x, points=3), (array(numbers(3, 2)),)),
    "loss_barrier": (metrics.loss_barrier, (POSITIONS, array(numbers(4)))),
    "summarise_curve": (metrics.summarise_curve, (array(numbers(4)), array([1.0, 2.0, 0.5]))),
    "curve_coefficients": (lambda t: metrics.curve_coefficients(t, 3, "bezier"), (POSITIONS,)),
    "split_batches": (lambda x: metrics.split_batches(x, 2), (array(NET["kernel"]),)),
}


def public_functions():
    """Return the names of all public functions of the instruments."""
    return {name for name, thing in vars(metrics).items() if inspect.isfunction(thing)}
