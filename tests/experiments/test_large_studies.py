"""Studies of many runs, forged from real ones: work in proportion to the runs, and little memory.

`--full` opens a thousand runs, and prints seconds of the processor and bytes.
"""

import cProfile
import dataclasses
import functools
import gc
import json
import pathlib
import pstats
import shutil
import time
import tracemalloc

import pytest
from test_study import small_config, study  # noqa: F401  (a fixture)

import configs.even_better.digits
from experiments.even_better.__main__ import STUDY as EVEN_BETTER
from experiments.study.command import run_and_report
from sam_jax.runs.checkpoint_damage import FILE, About, sealed

OLD = pathlib.Path(__file__).with_name("workdirs") / "even_better"


def calls_of(function, *arguments):
    """How many functions are called: what takes time, and is the same each time."""
    profile = cProfile.Profile()
    profile.runcall(function, *arguments)
    return pstats.Stats(profile).prim_calls


def copy_of(run, target, seed):
    """Copy a finished run as that of another seed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("tensorboard"))
    for path in target.rglob(FILE):  # what a checkpoint says of its config names the seed
        about = About(**json.loads(path.read_text())["about"])
        about = about._replace(config=about.config | {"seed": seed})
        path.write_text(json.dumps(sealed(about)))
    config = target / "config.json"
    if config.exists():
        config.write_text(json.dumps(json.loads(config.read_text()) | {"seed": seed}))
    for path in target.glob("*.crc32"):
        path.unlink()
    lines = (target / "records.jsonl").read_text().splitlines()
    seeded = [json.dumps(json.loads(line) | {"seed": seed}) for line in lines]
    (target / "records.jsonl").write_text("\n".join(seeded) + "\n")


def with_seeds(toy, count):
    return dataclasses.replace(
        toy.STUDY, plan=lambda config: toy.Plan(config, seeds=tuple(range(count)))
    )


@pytest.fixture(scope="module")
def toy_runs(study, tmp_path_factory):  # noqa: F811
    """A real run of each arm of the toy study."""
    folder = tmp_path_factory.mktemp("toy")
    run_and_report(with_seeds(study, 1), small_config(), folder)
    return folder


def test_the_command_of_a_finished_study_works_in_proportion_to_its_runs(
    study,  # noqa: F811
    toy_runs,
    tmp_path,
    full,
    undrawn,
):
    def open_study(seeds):
        folder = tmp_path / str(seeds)
        for arm in ("slow", "fast"):
            for seed in range(seeds):
                run = toy_runs / "models" / arm / "seed_0"
                copy_of(run, folder / "models" / arm / f"seed_{seed}", seed)
        shutil.copy(toy_runs / "config.json", folder)
        run = functools.partial(
            run_and_report, with_seeds(study, seeds), small_config(), folder, False, 1
        )
        start = time.process_time()
        page, text, faults = run()
        seconds = time.process_time() - start
        assert page.exists() and not faults
        assert not list(folder.rglob("tensorboard"))  # nothing was trained
        calls = calls_of(run)
        print(f"{2 * seeds} finished runs: {seconds:.1f} s of the processor, {calls} calls")
        return calls

    open_study(1)  # what is done once
    few, more, most = map(open_study, (125, 250, 500) if full else (2, 4, 8))
    assert most - more <= 2.1 * (more - few)


def held_by(function, *arguments):
    """The bytes that a result holds, and those that were held at most."""
    tracemalloc.start()
    try:
        result = function(*arguments)
        gc.collect()
        held, most = tracemalloc.get_traced_memory()
        return result, held, most
    finally:
        tracemalloc.stop()


def test_a_report_holds_little_of_each_run(tmp_path, full, undrawn):
    config = configs.even_better.digits.get_config("smoke")
    arms = sorted((OLD / "models").iterdir())

    def read(seeds):
        folder = tmp_path / str(seeds)
        for arm in arms:
            for seed in range(seeds):
                copy_of(arm / "seed_0", folder / "models" / arm.name / f"seed_{seed}", seed)
        shutil.copytree(OLD / "curves", folder / "curves")
        config.seeds = tuple(range(seeds))
        results, held, _ = held_by(EVEN_BETTER.read, folder, EVEN_BETTER.plan(config))
        print(f"{len(arms) * seeds} runs: {held / 1e6:.1f} MB of records")
        most = 0
        if full:  # tracing makes it slow
            _, _, most = held_by(EVEN_BETTER.report, results, tmp_path / "report", {})
            print(f"{most / 1e6:.1f} MB more for the report")
        return held, most

    read(1)
    (few, report), (more, larger) = map(read, (100, 200) if full else (3, 6))
    runs = len(arms) * (100 if full else 3)
    size = sum(path.stat().st_size for path in arms[0].glob("seed_0/*"))
    assert 0 < (more - few) / runs < 1.2 * size
    assert larger <= 1.25 * report
