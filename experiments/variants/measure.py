"""The measurements on the trained methods: their outcomes, and their costs side by side."""

import pathlib
from collections.abc import Sequence

import ml_collections

from experiments.study.arms import seed_folder
from experiments.study.study import Run
from experiments.variants.costs import calls_of, passes, step_costs, timed_side_by_side
from experiments.variants.methods import Method, Plan
from experiments.variants.results import costs_path
from sam_jax.measuring import registry
from sam_jax.measuring.settings import relevant
from sam_jax.runs import records, signals, workdirs
from sam_jax.runs.records import Record
from sam_jax.training.trained import load_trained


def measure(plan: Plan, run: Run) -> None:
    """Write the outcome of a training, unless the outcome of the same epoch is there already."""
    path = run.folder / "records.jsonl"
    written = records.read(path)
    if not written or written[0]["epoch"] != run.outcome["epoch"]:
        about = {"label": run.arm.label, "seed": run.seed, "measure": "evaluation"}
        made = {"passes": passes(run.load()[1].state)}
        records.rewrite(path, [{**about, **run.outcome, **made}])


def measure_costs(plan: Plan, workdir: pathlib.Path, runs: Sequence[Run], at_once: int) -> None:
    """Measure what each method costs beside the reference, once nothing runs beside it."""
    trained = {run.arm for run in runs if run.seed == plan.seeds[0]}
    for method in plan.arms if plan.arms[0] in trained else ():
        if method in trained:  # one that failed has no costs
            signals.stop_if_asked()
            _measure_costs(plan, workdir, method, plan.arms[0])


def _measure_costs(plan: Plan, workdir: pathlib.Path, method: Method, reference: Method) -> None:
    """Write the costs of a method, unless the costs of the same configs are there already."""
    timing = plan.config.timing
    folders = [seed_folder(workdir, m, plan.seeds[0]) for m in (method, reference)]
    configs = (timing, *(workdirs.read_config(folder) for folder in folders))
    settings = records.digest([_plain(config) for config in configs])
    path = costs_path(workdir, method)
    written = records.read(path)
    if written and written[0]["settings"] == settings:
        return
    (own_config, own), (other_config, other) = (load_trained(folder) for folder in folders)
    timed = timed_side_by_side(
        calls_of(own_config, own),
        calls_of(other_config, other),
        timing.rounds,
        timing.warmup_rounds,
    )
    about = {"label": method.label, "measure": "costs", "settings": settings}
    records.rewrite(path, [{**about, **step_costs(own_config, own), **timed}])


def _plain(config: ml_collections.ConfigDict) -> Record:
    """Return a config as JSON, without the instruments that measure only by name."""
    found = workdirs.plain_as_before(config)
    if "instruments" in config:  # they change no cost; old digests hold the first runs' instruments
        found["instruments"] = relevant(config.instruments, registry.chosen())
    return found
