"""Gradients of a loss over images that are split over eight devices, in every form of a mesh."""

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

FORMS = ("shard_map", "unchecked", "automatic", "explicit")


def gradients_on_mesh(loss, kernel, x, form):
    """Return the program of the gradients by the kernel and the images, and what it computes."""
    kind = AxisType.Explicit if form == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    function = jax.grad(loss, (0, 1))
    if form in ("shard_map", "unchecked"):

        def mean(kernel, x):
            return jax.lax.pmean(loss(kernel, x), "data")

        function = jax.grad(
            jax.shard_map(
                mean,
                mesh=mesh,
                in_specs=(P(), P("data")),
                out_specs=P(),
                check_vma=form == "shard_map",
            ),
            (0, 1),
        )
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, P("data")))
        whole = jax.device_put(kernel, NamedSharding(mesh, P()))
        return jax.make_jaxpr(function)(whole, split), jax.jit(function)(whole, split)
