"""What a checkpoint of one's own is measured on, and how the two fit together."""

import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_jax.measuring.batch_norm_policy import BatchNormPolicy
from sam_jax.measuring.set_losses import SetLosses, Sets
from sam_jax.metrics import Conditions
from sam_jax.mistakes import UserMistake, first_of
from sam_jax.runs import flax_checkpoints
from sam_jax.runs.flax_checkpoints import Arrays
from sam_jax.suggestions import did_you_mean
from sam_jax.training.evaluation import Evaluation, means_over_set
from sam_jax.typing import Batch, Params, PyTree

# (variables, batch) -> one value for each example of the batch, [n]
OfExamples = Callable[[Mapping[str, PyTree], Batch], jax.Array]


@dataclasses.dataclass(frozen=True)
class Target:
    """The losses and the sets that a checkpoint is measured with.

    Attributes:
      loss: (variables, batch) -> the loss of each example in nats or another unit, [n]. It must not
        depend on the other examples: batch norm uses its running statistics, dropout is off.
      variables: "params", and what else the loss reads, such as "batch_stats"; each a pytree of
        arrays or `jax.ShapeDtypeStruct` with the names, shapes and dtypes of the checkpoint's.
      train: the training set, a pytree whose leaves are arrays [n, ...], as a batch has them.
      test: the test set; None where there is none.
      correct: (variables, batch) -> whether each example is classified rightly, [n], for the
        accuracies; None for none.
      places: name in `variables` -> its place in the checkpoint, such as "ema/params". By default
        its place is its name, or the root of a checkpoint that has no such name.
      settings: of the instruments, as `config.instruments` has them, where they are not the
        defaults: {"adversarial": {"m": (16,)}}.
    """

    loss: OfExamples
    variables: Mapping[str, PyTree]
    train: Batch
    test: Batch | None = None
    correct: OfExamples | None = None
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class TargetNetwork(NamedTuple):
    """The losses of a target."""

    loss: OfExamples
    correct: OfExamples | None

    def check(self, batch_norm: str) -> None:
        """Raise a ValueError unless batch norm keeps its running statistics."""
        if batch_norm != "running":
            raise ValueError(
                "the loss of a target does not depend on the other examples of its batch, as batch "
                f"norm by {batch_norm!r} does; choose the preset sound, and 'running' for lines."
            )

    def losses(
        self, conditions: Conditions, params: Params, batch_stats: PyTree, examples: Batch
    ) -> jax.Array:
        """Return the loss of each example; the conditions have been checked."""
        return self.loss({"params": params, **batch_stats}, examples)

    def set_losses(
        self, batch_norm: BatchNormPolicy, batch_size: int
    ) -> Callable[[Params, PyTree, Sets], SetLosses]:
        """Return a function to the means over both sets; accuracies that are not given are NaN."""
        self.check(batch_norm.kind)

        def set_losses(params: Params, batch_stats: PyTree, sets: Sets) -> SetLosses:
            means = functools.partial(self.means, params, batch_stats, batch_size)
            return SetLosses(means(sets.train), means(sets.test))

        return set_losses

    def means(
        self, params: Params, batch_stats: PyTree, batch_size: int, examples: Batch
    ) -> Evaluation:
        """Return the mean loss and accuracy, NaN where nothing says what is correct."""
        variables = {"params": params, **batch_stats}

        def values_of(batch: Batch) -> Evaluation:
            losses = self.loss(variables, batch)
            if self.correct is None:
                return Evaluation(losses, jnp.full_like(losses, jnp.nan))
            return Evaluation(losses, self.correct(variables, batch))

        return means_over_set(values_of, (examples,), batch_size)


def load_target(name: str) -> Target:
    """Return what a function of a module gives.

    Args:
      name: "MODULE:FUNCTION"; the function takes no arguments.

    Raises:
      UserMistake: there is no such function, it fails, or it returns something else.
    """
    module_name, _, function = name.partition(":")
    if not module_name or not function.isidentifier():
        raise UserMistake(
            f"--target must be MODULE:FUNCTION, such as my_project.measure:target; got {name!r}."
        )
    module = _imported(module_name)
    make = getattr(module, function, None)
    if not callable(make):
        near = did_you_mean(function, [x for x in vars(module) if callable(getattr(module, x))])
        raise UserMistake(f"The module {module_name} has no function {function!r}.{near}")
    try:
        target: Any = make()
    except Exception as error:
        raise UserMistake(f"{name} fails: {_first_line(error)}") from error
    _check(target, name)
    return target


def fitted(target: Target, arrays: Arrays, where: str) -> dict[str, PyTree]:
    """Return the variables of a target with the values of a checkpoint.

    Args:
      target: its variables give the structure.
      arrays: of the checkpoint.
      where: the path of the checkpoint, for errors.

    Raises:
      UserMistake: an array is missing, has another shape, or is of no use to the target.
    """
    places = {name: _place(target, name, arrays) for name in target.variables}
    wanted = {
        (*places[name], *names): leaf
        for name, tree in target.variables.items()
        for names, leaf in flax_checkpoints.by_names(tree).items()
    }
    problems = [_problem(names, leaf, arrays) for names, leaf in wanted.items()]
    root = places["params"]
    problems += [
        f"{'/'.join(names)} is of no use to it"
        for names, array in arrays.items()
        if names[: len(root)] == root
        and names not in wanted
        and jnp.issubdtype(array.dtype, jnp.inexact)
    ]
    problems = [problem for problem in problems if problem]
    if problems:
        raise UserMistake(f"{where} does not fit the target: {first_of(problems, between='; ')}.")
    found = {}
    for name, tree in target.variables.items():
        leaves, structure = jax.tree.flatten(tree)
        names_of_leaves = flax_checkpoints.by_names(tree)
        values = [
            jnp.asarray(arrays[(*places[name], *names)], leaf.dtype)
            for names, leaf in zip(names_of_leaves, leaves, strict=True)
        ]
        found[name] = jax.tree.unflatten(structure, values)
    return found


def _place(target: Target, name: str, arrays: Arrays) -> tuple[str, ...]:
    if name in target.places:
        return tuple(part for part in target.places[name].split("/") if part)
    return (name,) if any(names[0] == name for names in arrays) else ()


def _problem(names: tuple[str, ...], leaf: Any, arrays: Arrays) -> str:
    text = "/".join(names)
    if names not in arrays:
        return f"{text} is missing.{did_you_mean(text, ['/'.join(n) for n in arrays])}".rstrip(".")
    if arrays[names].shape != leaf.shape:
        return f"{text} has the shape {arrays[names].shape}, and the target wants {leaf.shape}"
    dtype = arrays[names].dtype
    if jnp.promote_types(dtype, leaf.dtype) != leaf.dtype:
        return f"{text} has the dtype {dtype}, which the target's {leaf.dtype} would round"
    return ""


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserMistake(f"The module {name} fails: {_first_line(error)}") from error
        as_imported = ".".join(pathlib.PurePath(name.removesuffix(".py")).parts)
        beside = pathlib.Path(*as_imported.split(".")[:-1]).glob("*.py")
        near = did_you_mean(as_imported, [".".join(x.with_suffix("").parts) for x in beside])
        raise UserMistake(
            f"There is no module {name!r}; write it as Python imports it from this folder.{near}"
        ) from error
    except Exception as error:
        raise UserMistake(f"The module {name} fails: {_first_line(error)}") from error


def _check(target: Any, name: str) -> None:
    """Raise a UserMistake unless a function returned a whole target."""
    if not isinstance(target, Target):
        raise UserMistake(
            f"{name} must return a sam_jax.measuring.target.Target, got {type(target).__name__}."
        )
    if not isinstance(target.variables, Mapping) or "params" not in target.variables:
        raise UserMistake(f'The variables of {name} must be a dict with "params".')
    if not isinstance(target.settings, Mapping) or not isinstance(target.places, Mapping):
        raise UserMistake(f"places and settings of {name} must be dicts.")
    unknown = sorted(set(target.places) - set(target.variables))
    if unknown:
        near = did_you_mean(unknown[0], target.variables)
        raise UserMistake(f"places of {name} names {unknown[0]!r}, which is no variable.{near}")
    if not callable(target.loss) or not (target.correct is None or callable(target.correct)):
        raise UserMistake(f"loss and correct of {name} must be functions of (variables, batch).")
    for kind in ("train", "test") if target.test is not None else ("train",):
        lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(getattr(target, kind))}
        if len(lengths) != 1 or not all(length and length[0] for length in lengths):
            raise UserMistake(
                f"The {kind} set of {name} must be arrays with the same number of examples in "
                f"front, got {sorted(length[0] if length else 0 for length in lengths)}."
            )
        _check_outputs(target, name, kind)


def _check_outputs(target: Target, name: str, kind: str) -> None:
    """Raise a UserMistake unless loss and correct have one value for each example of a set."""
    abstract = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((3, *x.shape[1:]), x.dtype),
        jax.tree.map(jnp.asarray, getattr(target, kind)),
    )
    for what in ("loss", "correct") if target.correct is not None else ("loss",):
        try:
            found = jax.eval_shape(getattr(target, what), abstract(target.variables), batch)
        except Exception as error:
            raise UserMistake(
                f"The {what} of {name} fails on its {kind} set: {_first_line(error)}"
            ) from error
        shape = getattr(found, "shape", None)
        if shape != (3,):
            raise UserMistake(
                f"The {what} of {name} must return one value for each example, the shape (3,) of "
                f"three; got {shape if shape is not None else type(found).__name__}. "
                "Leave out a mean over the batch."
            )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
