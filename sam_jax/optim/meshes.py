"""Sub-batches on a mesh: every device of the batch's axes computes those that lie on it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from sam_jax.typing import Batch, PyTree

AnyMesh = Mesh | AbstractMesh


class Place(NamedTuple):
    """Where a batch lies: the axes of a mesh that its examples are split over."""

    mesh: AnyMesh
    axes: tuple[str, ...]


def place_of(
    batch: Batch, mesh: AnyMesh | None, batch_axes: tuple[str, ...] | None, examples: int
) -> Place | None:
    """Return the place of a batch of so many examples, or None where it is not split.

    Args:
      batch: arrays, concrete or traced.
      mesh: as given to m_sam; None for the mesh of the batch, or of jax.set_mesh.
      batch_axes: as given to m_sam; None to read them from the batch.
      examples: the size of the batch.
    """
    context = jax.sharding.get_abstract_mesh()
    if AxisType.Manual in context.axis_types:  # inside a shard_map of the caller's
        return None
    shardings = [_sharding(x) for x in jax.tree.leaves(batch)]
    shardings = [s for s in shardings if isinstance(s, NamedSharding) and not s.mesh.empty]
    mesh = mesh or (shardings[0].mesh if shardings else context)
    if batch_axes is not None:
        _check_all_named(shardings, batch_axes)
        return _named_place(mesh, batch_axes, examples)
    known = next((axes for s in shardings if (axes := _leading_axes(s))), ())
    if known:
        return Place(mesh, known)
    hidden = _hidden_axes(mesh, batch)
    if not hidden or (len(hidden) == 1 and examples % mesh.shape[hidden[0]]):
        return None
    if len(hidden) > 1:
        raise ValueError(
            f"m_sam cannot see how the batch is split: under jit the axes {hidden} of the mesh are "
            "automatic, and it runs its sub-batches where their examples lie. Name the axes that "
            "the leading axis of the batch is split over, for example "
            f"m_sam(inner, m, batch_axes={(hidden[0],)!r}); () says that it is not split."
        )
    return Place(mesh, hidden)


def run(
    place: Place,
    function: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    rules: Callable[[PyTree, PyTree], PyTree],
    common: PyTree,
    split: PyTree,
) -> tuple[PyTree, PyTree]:
    """Run a function on every device of the axes, each with its share of the split arguments.

    Args:
      place: the mesh and the axes to be manual; the others stay as they are.
      function: (common, share) -> (result, state), with collectives over the axes.
      rules: (common, share) -> the combining.Rule of each leaf of the result.
      common: the arguments that every device gets whole; leaves that are no arrays are passed by.
      split: arrays whose leading axis is split over the axes.
    """
    axes, replicated = frozenset(place.axes), PartitionSpec()
    cut = PartitionSpec(place.axes)
    arrays, rebuild = _arrays_of(common)
    arrays = [_laid_out(x, place, ()) for x in arrays]
    split = jax.tree.map(lambda x: _laid_out(x, place, place.axes), split)

    def mapped(function: Callable[..., Any], out_specs: Any) -> Callable[..., Any]:
        return jax.shard_map(
            lambda arrays, share: function(rebuild(arrays), share),
            mesh=place.mesh,
            in_specs=(replicated, cut),
            out_specs=out_specs,
            axis_names=axes,
            check_vma=False,  # models with loops that start from constants do not pass the check
        )

    found = []

    def find_rules(common: PyTree, share: PyTree) -> tuple[()]:
        found.append(rules(common, share))
        return ()

    try:
        jax.eval_shape(mapped(find_rules, replicated), arrays, split)
        specs = jax.tree.map(
            lambda rule: cut if rule.word == "concatenate" else replicated, found[0]
        )
        # JAX offers no eager shard_map over a part of the axes.
        return jax.jit(mapped(function, (specs, replicated)))(arrays, split)
    except (ValueError, NotImplementedError) as error:
        if "context mesh" in str(error) or "Closing over inputs to shard_map" in str(error):
            raise ValueError(
                "On a mesh with explicit axes grad_fn cannot close over arrays of that mesh. Hand "
                "them to update: shared=tree reaches it as grad_fn(params, batch, shared=tree), "
                "and rngs=keys as rngs=keys of the sub-batch; or make the mesh with "
                f"axis_types=(jax.sharding.AxisType.Auto,) for each axis. JAX says: {error}"
            ) from error
        raise


def laid_like(tree: PyTree, reference: PyTree) -> PyTree:
    """Return arrays with the shardings of a reference, where those are known."""

    def lay(x: Any, like: Any) -> Any:
        sharding = _sharding(like)
        if not isinstance(sharding, NamedSharding) or sharding.mesh.empty or x.ndim != like.ndim:
            return x
        if not isinstance(x, Tracer):
            return jax.device_put(x, sharding)
        return jax.sharding.reshard(x, sharding) if _is_explicit(sharding) else x

    return jax.tree.map(lay, tree, reference)


def _named_place(mesh: AnyMesh, batch_axes: tuple[str, ...], examples: int) -> Place | None:
    if jax.device_count() == 1 or not batch_axes:
        return None
    if mesh.empty:
        raise ValueError(
            f"m_sam has batch_axes = {batch_axes!r}, but neither the batch lies on a mesh nor is "
            "one set: put the batch there with jax.device_put(batch, NamedSharding(mesh, "
            f"PartitionSpec({batch_axes!r}))), or give m_sam mesh=mesh."
        )
    unknown = [name for name in batch_axes if name not in mesh.shape]
    if unknown:
        raise ValueError(
            f"batch_axes names {unknown[0]!r}; the axes of the mesh are {mesh.axis_names}."
        )
    devices = int(np.prod([mesh.shape[name] for name in batch_axes]))
    if examples % devices:
        raise ValueError(
            f"The batch has {examples} examples, which the {devices} devices of the axes "
            f"{batch_axes} cannot share equally; choose a multiple of {devices}."
        )
    return Place(mesh, tuple(batch_axes)) if devices > 1 else None


def _check_all_named(shardings: list[NamedSharding], batch_axes: tuple[str, ...]) -> None:
    """Raise where explicit axes split the batch that are not to be manual."""
    axes = {
        name for sharding in shardings if _is_explicit(sharding) for name in _leading_axes(sharding)
    }
    if missing := sorted(axes - set(batch_axes)):
        raise ValueError(
            f"The batch is split over the explicit axes {sorted(axes)}, and batch_axes leaves out "
            f"{missing}: name all of them, or leave batch_axes out."
        )


def _sharding(x: Any) -> Any:
    """Return the sharding of an array as far as it is known: of a traced one, its type's."""
    if isinstance(x, Tracer):
        return jax.typeof(x).sharding
    return getattr(x, "sharding", None)


def _leading_axes(sharding: NamedSharding) -> tuple[str, ...]:
    """Return the axes, of more than one device, that the leading axis of an array is split over."""
    names = _names(sharding.spec[0]) if sharding.spec else ()
    return tuple(name for name in names if sharding.mesh.shape[name] > 1)


def _hidden_axes(mesh: AnyMesh, batch: Batch) -> tuple[str, ...]:
    """Return the axes over which a traced batch may be split without its type telling."""
    if not any(isinstance(x, Tracer) for x in jax.tree.leaves(batch)):
        return ()
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(n for n, kind in types if kind == AxisType.Auto and mesh.shape[n] > 1)


def _is_explicit(sharding: NamedSharding) -> bool:
    return AxisType.Explicit in sharding.mesh.axis_types


def _laid_out(x: Any, place: Place, leading: tuple[str, ...]) -> Any:
    """Return an array whose leading axis alone is split over the axes that become manual.

    shard_map brings arrays there by itself, but not on explicit axes.
    """
    sharding = _sharding(x)
    on_mesh = isinstance(sharding, NamedSharding) and not sharding.mesh.empty
    mesh = sharding.mesh if on_mesh else place.mesh
    if AxisType.Explicit not in mesh.axis_types:
        return x
    old = [_names(entry) for entry in sharding.spec] if on_mesh else []
    old += [()] * (x.ndim - len(old))
    new = [tuple(name for name in entry if name not in place.axes) for entry in old]
    new = [leading, *new[1:]] if leading else new
    if old == new:
        return x
    spec = PartitionSpec(*(entry or None for entry in new))
    return jax.sharding.reshard(x, NamedSharding(mesh, spec))


def _names(entry: Any) -> tuple[str, ...]:
    """Return the axes that one entry of a PartitionSpec names."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _arrays_of(tree: PyTree) -> tuple[list, Callable[[list], PyTree]]:
    """Return the arrays of a pytree, and the function that puts others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    is_array = [isinstance(x, jax.Array | np.ndarray) for x in leaves]

    def rebuild(arrays: list) -> PyTree:
        rest = iter(arrays)
        return structure.unflatten(
            next(rest) if taken else x for x, taken in zip(leaves, is_array, strict=True)
        )

    return [x for x, taken in zip(leaves, is_array, strict=True) if taken], rebuild
