"""Modules under the names that they had: an import gives the new one, with a warning."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Sequence

_METRICS = {
    "sharpness": ("adversarial", "average", "balls", "ascents", "sub_batches"),
    "asymmetry": ("level_sets",),
    "curvature": ("hessian", "lanczos", "eigenvalues", "trace", "density"),
    "directions": ("normalisation", "trajectory"),
    "paths": ("curves", "curve_geometry", "curve_losses"),
    "landscape": ("curve",),
}
_TRAINING = {
    "runs": ("checkpoints", "records", "workdirs", "progress", "randomness", "machine"),
    "measuring": (
        *("measure", "conditions"),
        *("set_losses", "landscapes", "measured_points", "grid_losses"),
    ),
    "paths": ("plain_run",),
}
MOVED = {
    **{
        f"sam_jax.training.{name}": f"sam_jax.{to}.{name}"
        for to in _TRAINING
        for name in _TRAINING[to]
    },
    **{
        f"sam_jax.metrics.{name}": f"sam_jax.metrics.{to}.{name}"
        for to in _METRICS
        for name in _METRICS[to]
    },
    **{
        f"sam_jax.{room}.{old}": f"sam_jax.paths.{new}"
        for room in ("training", "paths")
        for old, new in (("connectivity", "find_curve"), ("curve_evaluation", "evaluate_curve"))
    },
    "sam_jax.metrics.bounded_asymmetry": "sam_jax.metrics.asymmetry.index",
    "sam_jax.metrics.statistics": "sam_jax.statistics",
}
# A module that was split: each of its names with the module that has it now.
_ENSEMBLING = {
    **dict.fromkeys(
        ("EnsembleSettings", "Members", "collect_members", "cyclic_learning_rate"),
        "sam_jax.paths.collect_members",
    ),
    **dict.fromkeys(
        ("evaluate_ensemble", "make_ensemble_logits_fn"), "sam_jax.paths.evaluate_ensemble"
    ),
}
SPLIT = {
    "sam_jax.training.ensembling": _ENSEMBLING,
    "sam_jax.paths.ensembling": _ENSEMBLING,
    "sam_jax.training.loop": {
        "train_and_evaluate": "sam_jax.training.train_and_evaluate",
        **dict.fromkeys(("Trained", "load_trained", "evaluate_sets"), "sam_jax.training.trained"),
    },
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module by its old name, and loads it from its place today."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED and fullname not in SPLIT:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        old = spec.name
        new = MOVED.get(old) or " and ".join(dict.fromkeys(SPLIT[old].values()))
        warnings.warn(
            f"{old} is now {new}; the old name goes with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        if old in SPLIT:
            return _names_of_now(old)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__  # the import system writes its own over it
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__spec__ is not None and module.__spec__.loader_state is not None:
            module.__spec__ = module.__spec__.loader_state


def _names_of_now(old: str) -> types.ModuleType:
    """Return a module with the names of one that was split."""
    module = types.ModuleType(old)
    for name, new in SPLIT[old].items():
        setattr(module, name, getattr(importlib.import_module(new), name))
    return module


if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.append(_Finder())
