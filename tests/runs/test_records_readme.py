"""The README of runs names the fields that the records of the committed workdirs have."""

import collections
import csv
import functools
import itertools
import json
import pathlib
import re

import pytest
from records_readme import EVERY, PATH, TEXT, named, tables
from test_readme import FENCE, fenced, run_python, spans

from sam_jax.measuring import registry
from sam_jax.runs import records

TESTS = pathlib.Path(__file__).parents[1]
WORKDIRS = (TESTS / "runs/workdirs", TESTS / "experiments/workdirs")
BY_NAME = tuple(i.name for i in registry.INSTRUMENTS if not i.by_default)
POINTS = ("The header", "The rows")
HELD_OUT_AND_TOP_K = {"validation_loss", "validation_accuracy"} | {
    f"{name}_topK_accuracy" for name in ("train", "test", "validation")
}
# Fields that no committed record has.
ELSEWHERE = {
    "Of a checkpoint of one's own": {  # its own test has one
        *("checkpoint", "checkpoint_digest", "target", "data_digest"),
    },
    # They are measured by name only: test_measured_by_name.py and test_landscape_instruments.py
    # compare the records that they measure.
    **{name: set(named(TEXT, name)) for name in BY_NAME},
    # No committed run holds examples out, asks for more accuracies than one, counts its steps that
    # are not finite, or has rates and norms: test_nonfinite.py and test_recorded_quantities.py do.
    "metrics.jsonl": HELD_OUT_AND_TOP_K
    | {"nonfinite_steps", "skipped_steps", "start_loss", "diverged"}
    | {"learning_rate", "rho", "gradient_norm", "perturbation_norm"}
    | {"sharpness", "sharpness_stderr"},
    "speed.jsonl": set(named(TEXT, "speed.jsonl")),  # test_recorded_quantities.py reads them
    # All that is committed is finite: test_record_measurements.py measures what is not.
    EVERY: {"not_finite"},
    # Those of a training set with noisy labels: test_training_evaluation.py compares them.
    "Noisy labels": set(named(TEXT, "Noisy labels")),
}
EVEN_BETTER_TABLES = {
    "claims": r"claims",
    "correlations_PRESET": r"correlations_\w+",
    "published_cells": r"published_cells",
    "published_correlations": r"published_correlations",
    "published_errors": r"published_errors",
    "separation": r"separation",
    "table_1": r"table_\w+",
}
VARIANTS_TABLES = {"methods": r"methods", "published_table_3": r"published_table_\d"}


def headings(path, record):
    """The sections whose tables together name the fields of a record."""
    measure = record.get("measure")
    if path.name == "metrics.jsonl":
        return ("metrics.jsonl",)
    if path.name == "costs.jsonl":
        return ("costs.jsonl",)
    if path.name in ("plane.jsonl", "line.jsonl", "points.jsonl"):
        return POINTS[:1] if measure else POINTS[1:]
    if path.name == "evaluations.jsonl":
        return (EVERY, measure)
    if measure == "mode_connectivity":
        return (measure, "Connections of even_better")
    if "label" in record:
        return ("metrics.jsonl", "Models of variants")
    return (EVERY, measure, "Models of even_better")


@functools.cache
def committed():
    """Every record of the committed workdirs with its path."""
    paths = itertools.chain.from_iterable(sorted(folder.rglob("*.jsonl")) for folder in WORKDIRS)
    return [(path, record) for path in paths for record in records.read(path)]


def unnamed(found, text):
    """The fields of records that no table of their sections names, with these sections."""
    seen = collections.defaultdict(set)
    for path, record in found:
        seen[headings(path, record)] |= record.keys()
    known = {sections: set().union(*(named(text, h) for h in sections)) for sections in seen}
    return sorted((sections, f) for sections in seen for f in seen[sections] - known[sections])


def unseen(found, text):
    """The fields of the tables that no record of their sections has."""
    seen = collections.defaultdict(set)
    for path, record in found:
        for heading in headings(path, record):
            seen[heading] |= record.keys()
    for heading, fields in ELSEWHERE.items():
        seen[heading] |= fields
    sections = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return sorted((h, f) for h in sections for f in named(text, h).keys() - seen[h])


def renamed(text, heading, field, name):
    """The README with another name for a field in the table of a section."""
    before, section = text.split(f"# {heading}\n")
    return f"{before}# {heading}\n" + section.replace(f"`{field}`", f"`{name}`", 1)


def test_every_field_of_a_record_is_named_and_every_name_is_a_field():
    found = committed()
    assert {path.name for path, _ in found} >= {"metrics.jsonl", "evaluations.jsonl", "plane.jsonl"}
    assert unnamed(found, TEXT) == []
    assert unseen(found, TEXT) == []


@pytest.mark.parametrize(
    ("heading", "field"),
    [
        ("metrics.jsonl", "batch_loss"),
        ("hessian", "trace_stderr"),
        ("The rows", "squared_norm"),
        ("Models of even_better", "measured_batch"),
        ("mode_connectivity", "length"),
        ("costs.jsonl", "flops"),
        ("Models of variants", "passes"),
    ],
)
def test_a_field_that_is_not_named_is_seen(heading, field):
    misspelt = renamed(TEXT, heading, field, "misspelt")
    assert {(heading in sections, f) for sections, f in unnamed(committed(), misspelt)} == {
        (True, field)
    }
    assert unseen(committed(), misspelt) == [(heading, "misspelt")]


def test_every_instrument_has_a_table_with_the_units_of_its_columns():
    for instrument in registry.INSTRUMENTS:
        rows = named(TEXT, instrument.name)
        assert set(instrument.identity) <= rows.keys()
        for column in instrument.columns:
            assert rows[column.field][2].startswith(column.unit), (instrument.name, column.field)


def test_the_configs_of_curves_and_ensembles():
    fields = set()
    for kind in ("curve", "ensemble"):
        config = json.loads((WORKDIRS[0] / kind / "config.json").read_text())
        fields |= {name for name in config if name.endswith("_checksum")}
    assert len(fields) == 4 and fields <= set(spans(TEXT))


def columns(heading, start):
    """The columns that the README names for the CSV files whose paragraph begins with a name."""
    section = TEXT.split(f"### {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    (paragraph,) = re.findall(
        rf"^`{start}\.csv`.*\n(?:.*\n)*?\n((?:\|.*\n)+)", section, re.MULTILINE
    )
    cells = [line.split(" | ")[0] for line in paragraph.splitlines()[2:]]
    names = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    expanded = [
        [name.replace("METHOD", method) for method in ("pearson", "spearman", "kendall")]
        if "METHOD" in name
        else [name]
        for name in names
    ]
    return set(itertools.chain.from_iterable(expanded))


@pytest.mark.parametrize(
    ("study", "heading", "files"),
    [
        ("even_better", "Tables of even_better", EVEN_BETTER_TABLES),
        ("variants", "Tables of variants", VARIANTS_TABLES),
    ],
)
def test_the_columns_of_the_tables_of_a_report(study, heading, files):
    written = collections.defaultdict(set)
    for path in (WORKDIRS[1] / study / "expected").glob("*.csv"):
        (start,) = (name for name, stem in files.items() if re.fullmatch(stem, path.stem))
        with path.open(newline="", encoding="utf-8") as file:
            written[start] |= set(next(csv.reader(file)))
    assert written.keys() == files.keys()
    for start, names in written.items():
        assert columns(heading, start) == names, start


@pytest.mark.parametrize("block", fenced(TEXT, "python"))
def test_the_program_runs(block):
    run_python(block)


def test_links_exist():
    plain = FENCE.sub("", TEXT)
    targets = re.findall(r"\]\(([^)\s]*)\)", plain)
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    }
    assert len(targets) > 5
    for target in targets:
        path, _, anchor = target.partition("#")
        assert (PATH.parent / path).exists() if path else anchor in anchors, target


def test_every_row_has_as_many_cells_as_its_head():
    for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE):
        for head, rows in tables(TEXT, heading):
            assert [row for row in rows if len(row) != len(head)] == []
