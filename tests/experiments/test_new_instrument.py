"""A new instrument is one file and one line: then `evaluate` measures it and a report shows it."""

import csv
import json
import sys
import types

import pytest
from measured_models import take_all
from training_problems import tiny_config

from experiments.even_better.read.results import read_results
from experiments.even_better.tables.beyond import beyond_table
from experiments.even_better.tables.columns import csv_text_of
from experiments.even_better.tables.correlations import correlation_rows
from sam_jax.measuring import registry
from sam_jax.measuring.instrument import Column, Instrument
from sam_jax.measuring.measure import measure_run
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

LOSSES = {"sgd_32": 0.5, "sam_32_rho0.1": 0.3, "sam_32_rho0.2": 0.2}


def plan(subject):
    """The p-norms of the weights of the last layer, times a scale."""
    weights = subject.measured.params["classifier"]["dense"]["kernel"]
    for p in (1, 2):
        norm = float((abs(weights) ** p).sum() ** (1 / p))
        yield {"p": p}, lambda norm=norm: {"norm": subject.settings.toy.scale * norm}


TOY = Instrument(
    name="toy",
    title="Toy",
    plan=plan,
    settings={"scale": 2.0},
    identity=("p",),
    columns=(Column("norm", "norm", unit="weights", better="min"),),
)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "INSTRUMENTS", (*registry.INSTRUMENTS, TOY))


def test_the_registry_loads_a_file_by_its_name(monkeypatch):
    name = "sam_jax.measuring.instruments.toy"
    module = types.ModuleType(name)
    module.INSTRUMENT = TOY
    monkeypatch.setitem(sys.modules, name, module)
    found = registry.load((*registry.NAMES, "toy"))
    assert found == (*registry.INSTRUMENTS, TOY)


def test_evaluate_measures_it(registered, tmp_path):
    train_and_evaluate(tiny_config(), tmp_path)
    first = measure_run(tmp_path, measures=["toy"])
    before = (tmp_path / "evaluations.jsonl").read_bytes()
    assert measure_run(tmp_path, measures=["toy"]) == first
    assert (tmp_path / "evaluations.jsonl").read_bytes() == before  # nothing is measured twice
    assert [(r["measure"], r["preset"], r["p"]) for r in first] == [
        ("toy", "sound", 1),
        ("toy", "sound", 2),
    ]
    assert first[0]["norm"] > first[1]["norm"] > 0
    # It measures by default, and with the settings of the config where that has some.
    config, trained = load_trained(tmp_path)
    with config.unlocked():
        config.instruments.toy = {"scale": 4.0}
    taken = take_all(trained, config.instruments, ("sound",), None)
    assert [r["norm"] for r in taken if r["measure"] == "toy"] == [2 * r["norm"] for r in first]


def test_a_report_shows_and_correlates_it(registered, tmp_path):
    for name, loss in LOSSES.items():
        optimiser, rho = name.split("_")[0], float(name.partition("rho")[2] or 0)
        about = {"model": name, "optimiser": optimiser, "batch": "small", "batch_size": 32}
        about |= {"rho": rho, "times_epochs": 1, "seed": 0}
        toy = {"measure": "toy", "preset": "sound"}
        lines = [{"measure": "evaluation", "test_loss": loss, "train_loss": loss**2}]
        lines += [{**toy, "p": p, "norm": p - loss} for p in (1, 2, 2)]  # the last of two holds
        folder = tmp_path / "models" / name / "seed_0"
        folder.mkdir(parents=True)
        text = "".join(json.dumps({**about, **line}) + "\n" for line in lines)
        (folder / "records.jsonl").write_text(text)
    results = read_results(tmp_path)
    table = beyond_table(results)
    headings = [(column.group, column.name, column.best) for column in table.columns]
    assert headings == [
        ("Toy, p 1", "norm / weights", "min"),
        ("Toy, p 2", "norm / weights", "min"),
    ]
    assert [cell.mean for cell in table.cells(1)] == [2 - loss for loss in LOSSES.values()]
    assert table.best_rows(0) == {0}
    found = [row for row in csv.DictReader(csv_text_of(table).splitlines()) if row["p"] == "1"]
    assert [float(row["value"]) for row in found] == [1 - loss for loss in LOSSES.values()]
    rows = correlation_rows(results, "sound")
    assert [(row.name, row.setting) for row in rows] == [("Toy: norm", "p 1"), ("Toy: norm", "p 2")]
    assert all(row.pearson.r == pytest.approx(-1) for row in rows)
    # Without the line in the registry there is nothing of it.
    registry.INSTRUMENTS = registry.INSTRUMENTS[:-1]
    assert beyond_table(results).columns == () and correlation_rows(results, "sound") == []
