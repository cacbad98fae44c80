"""Train every method over all seeds and measure its costs; what is finished is never run again."""

import itertools
import json
import pathlib
import zlib
from concurrent import futures

import jax
import ml_collections

from experiments.variants.costs import (
    arguments_of,
    calls_of,
    passes,
    step_costs,
    timed_side_by_side,
)
from experiments.variants.methods import Method, study_methods, training_config
from sam_jax.training import build, records, workdirs
from sam_jax.training.loop import load_trained, train_and_evaluate


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    accept_config_changes: bool = False,
) -> None:
    """Train all methods over all seeds, then measure what each costs beside the reference.

    Every method and seed has a folder, workdir/models/METHOD/seed_S: a run of `sam_jax.train` with
    a records.jsonl of its outcome. The costs of a method are in workdir/models/METHOD/costs.jsonl.
    A model that was cut goes on from its last checkpoint.

    Args:
      config: as in configs/variants/digits.py.
      workdir: the folder of the study.
      accept_config_changes: go on in a folder that was made with another config, for example with
        more methods. What is trained stays as it is, and the report names it where it differs.

    Raises:
      ValueError: the config cannot be run, or the folder belongs to another one.
    """
    methods = study_methods(config)
    for method in methods:  # all of them, before the first is trained
        build.check(training_config(config, method, config.seeds[0]))
    workdir = pathlib.Path(workdir)
    workdirs.claim(workdir, config, accept_config_changes)
    runs = list(itertools.product(methods, config.seeds))
    # A thread compiles the next methods while one trains: neither needs Python for long.
    executor = futures.ThreadPoolExecutor(max_workers=1)
    compiled = {
        method: executor.submit(_compile, training_config(config, method, config.seeds[0]))
        for method in methods
        if not _is_trained(config, workdir, method)
    }
    executor.shutdown(wait=False)
    for number, (method, seed) in enumerate(runs, start=1):
        if method in compiled:
            compiled[method].result()
        folder = seed_folder(workdir, method, seed)
        training = training_config(config, method, seed)
        label = f"[{number}/{len(runs)}] {method.label} seed {seed}"
        outcome = train_and_evaluate(training, folder, label, accept_config_changes)
        written = records.read(folder / "records.jsonl")
        if not written or written[0]["epoch"] != outcome["epoch"]:
            about = {"label": method.label, "seed": seed, "measure": "evaluation"}
            made = {"passes": passes(load_trained(folder)[1].state)}
            records.rewrite(folder / "records.jsonl", [{**about, **outcome, **made}])
    for method in methods:  # once nothing runs beside what is timed
        _measure_costs(config, workdir, method, methods[0])


def _compile(training: ml_collections.ConfigDict) -> None:
    """Compile the program that trains a method, for the call that trains it to find."""
    source, data = build.load_data(training)
    program = build.make_program(training, source, len(data.train_labels))
    state = program.init(jax.random.key(training.seed))
    program.run_steps.lower(state, *arguments_of(training, program, data)).compile()


def _is_trained(config: ml_collections.ConfigDict, workdir: pathlib.Path, method: Method) -> bool:
    folders = (seed_folder(workdir, method, seed) for seed in config.seeds)
    return all(records.read(folder / "records.jsonl") for folder in folders)


def seed_folder(workdir: pathlib.Path, method: Method, seed: int) -> pathlib.Path:
    """Return the folder of a trained model."""
    return workdir / "models" / method.folder / f"seed_{seed}"


def costs_path(workdir: pathlib.Path, method: Method) -> pathlib.Path:
    """Return the file with the costs of a method."""
    return workdir / "models" / method.folder / "costs.jsonl"


def outdated(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[str]:
    """Return the runs that were trained with another config, as accepted changes leave them."""
    found = []
    for method, seed in itertools.product(study_methods(config), config.seeds):
        wanted = workdirs.plain(training_config(config, method, seed))
        trained = workdirs.plain(workdirs.read_config(seed_folder(workdir, method, seed)))
        if wanted != trained:
            found.append(f"{method.label} seed {seed}")
    return found


def _measure_costs(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    method: Method,
    reference: Method,
) -> None:
    """Write the costs of a method, unless they are those of the same configs already."""
    folders = [seed_folder(workdir, m, config.seeds[0]) for m in (method, reference)]
    settings = _digest(config.timing, *(workdirs.read_config(folder) for folder in folders))
    path = costs_path(workdir, method)
    written = records.read(path)
    if written and written[0]["settings"] == settings:
        return
    (own_config, own), (other_config, other) = (load_trained(folder) for folder in folders)
    timed = timed_side_by_side(
        calls_of(own_config, own),
        calls_of(other_config, other),
        config.timing.rounds,
        config.timing.warmup_rounds,
    )
    about = {"label": method.label, "measure": "costs", "settings": settings}
    records.rewrite(path, [{**about, **step_costs(own_config, own), **timed}])


def _digest(*configs: ml_collections.ConfigDict) -> str:
    text = json.dumps([workdirs.plain(config) for config in configs], sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"
