"""Every file of a run is damaged in five ways, and each damage is noticed or harmless.

Noticed: a clear error that names a path of the run, or a warning after which the run ends bit for
bit like the undamaged one. Harmless: it ends so without a word. A few of the cases are tried every
time, and all of them with `--full`, which prints how many.
"""

import collections
import gc
import logging
import shutil

import pytest
from damaging import flip
from training_problems import tiny_config

from sam_jax.measuring.measure import EVALUATIONS, measure_run
from sam_jax.runs import checksums
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

EPOCHS, MEASURES, EVERY = 3, ("evaluation",), 23
SETTINGS = {
    "model__features": (16, 32),  # the store keeps checksums of its own of what is smaller
    "model__strides": (2, 1),
    "epochs": EPOCHS,
    "checkpoint__every_epochs": 1,
    "checkpoint__keep": EPOCHS,
}


def truncate(path, _):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path, _):
    path.unlink()


def null(path, _):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(len(data[middle : middle + 64]))
    path.write_bytes(data)


def swap(path, others):
    shutil.copyfile(others, path)


WAYS = {
    "bit flip": lambda path, _: flip(path),
    "truncation": truncate,
    "removal": remove,
    "nul block": null,
    "swap": swap,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished and evaluated runs that differ in their seed, and what the first ends as."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("run", 0), ("other", 5)):
        train_and_evaluate(tiny_config(**SETTINGS, seed=seed), folder / name)
        measure_run(folder / name, measures=MEASURES)
    return folder


def train(run):
    """Train to the end; return what the run ends as."""
    record = train_and_evaluate(tiny_config(**SETTINGS), run)
    state = checksums.of_tree(load_trained(run)[1].state._replace(method_state=()))
    return record, (run / "metrics.jsonl").read_bytes(), state


def go_on(run):
    """Train to the end from the second checkpoint."""
    return train(run)


def evaluate(run):
    """Evaluate the last checkpoint anew, and read what was measured."""
    return measure_run(run, measures=MEASURES)


COMMANDS = {"train": train, "resume": go_on, "evaluate": evaluate}


def files_of(run, newest):
    """The files of a run and of its newest checkpoint, in an order that two runs share."""
    checkpoint = run / "checkpoints" / str(newest)
    inside = [path for path in checkpoint.rglob("*") if path.is_file()]
    inside.sort(key=lambda path: (str(path.parent.relative_to(run)), path.stat().st_size))
    names = ("config.json", "metrics.jsonl", "speed.jsonl", EVALUATIONS, "evaluations.crc32")
    return [run / name for name in names] + inside


def fresh(runs, name, command, folder):
    """A copy of a run for a command; one that is resumed has lost its last checkpoint."""
    copy = shutil.copytree(runs / name, folder / name)
    if command == "resume":
        shutil.rmtree(copy / "checkpoints" / str(EPOCHS))
    return copy


def all_cases(runs):
    """Command, place of the file in `files_of`, and way."""
    count = max(len(files_of(runs / "run", epoch)) for epoch in (EPOCHS - 1, EPOCHS))
    return [(c, number, way) for number in range(count) for way in WAYS for c in COMMANDS]


def outcome(runs, case, folder, caplog, expected):
    """Damage a file, run a command, and say how it ended."""
    command, number, way = case
    newest = EPOCHS - 1 if command == "resume" else EPOCHS
    run, other = (fresh(runs, name, command, folder) for name in ("run", "other"))
    files, theirs = (files_of(r, newest) for r in (run, other))
    if number >= len(files):  # the store writes as many files as it likes
        return "", "unchanged"
    path, others = files[number], theirs[min(number, len(theirs) - 1)]
    before = path.read_bytes()
    WAYS[way](path, others)
    caplog.clear()
    if path.exists() and path.read_bytes() == before:
        return path.relative_to(run), "unchanged"
    try:
        found = COMMANDS[command](run)
    except (ValueError, FileNotFoundError) as error:
        return path.relative_to(run), "refused" if str(run) in str(error) else f"unclear: {error}"
    except Exception as error:
        return path.relative_to(run), f"crashed: {type(error).__name__}: {error}"
    if found != expected[command]:
        return path.relative_to(run), "unnoticed"
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    noticed = any(str(run) in text for text in told)
    return path.relative_to(run), "told" if noticed else "harmless"


# Where orbax fails it leaves readers behind, which say so once they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damage_is_noticed_or_harmless(runs, full, tmp_path, caplog, capsys):
    expected = {
        command: call(fresh(runs, "run", command, tmp_path / f"expected_{command}"))
        for command, call in COMMANDS.items()
    }
    assert expected["train"] == expected["resume"]
    cases = all_cases(runs)
    counts, bad, seen = collections.Counter(), [], set()
    for place in range(0, len(cases), 1 if full else EVERY):
        case = cases[place]
        folder = tmp_path / "case"
        path, result = outcome(runs, case, folder, caplog, expected)
        shutil.rmtree(folder)
        counts[result.split(":")[0]] += 1
        seen.add(case[1])
        if result not in ("refused", "told", "harmless", "unchanged"):
            bad.append((*case, str(path), result))
    gc.collect()
    if full:
        with capsys.disabled():
            print(f"\n{len(seen)} files, {len(WAYS)} ways, {len(cases)} cases: {dict(counts)}")
    assert bad == []
    assert counts["refused"] and counts["harmless"]


def test_the_harness_sees_what_goes_unnoticed(runs, tmp_path, caplog, monkeypatch):
    """Without the checksums a flip in the arrays would change how a run ends."""
    expected = {"resume": train(fresh(runs, "run", "resume", tmp_path / "expected"))}
    newest = files_of(runs / "run", EPOCHS - 1)
    number = max(range(len(newest)), key=lambda k: newest[k].stat().st_size)
    case = ("resume", number, "bit flip")
    path, result = outcome(runs, case, tmp_path / "noticed", caplog, expected)
    assert result == "told", path
    monkeypatch.setattr("sam_jax.runs.checkpoint_damage.differing", lambda *_: "")
    found = outcome(runs, case, tmp_path / "unnoticed", caplog, expected)[1]
    assert found.startswith(("unnoticed", "crashed: NonFiniteError"))
