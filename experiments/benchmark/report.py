"""The report: the table as CSV, Markdown and HTML, and a figure of all ratios."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from experiments.benchmark.figure import ratios_figure
from experiments.benchmark.growth.page import write_growth
from experiments.benchmark.measured import Ratio
from experiments.benchmark.rows import ROWS
from experiments.benchmark.rows.texts import significant
from experiments.benchmark.run import latest
from experiments.benchmark.tasks import Line, Task
from experiments.study.grid import Grid, Marked, csv_text
from experiments.study.pages import LinkedGrid, Opening, Section, write_report, write_table
from experiments.study.provenance import KEY, Provenance, Records
from sam_jax.runs import records
from sam_jax.runs.records import Record

TITLE = "The benchmark: ratios measured side by side"
INTRODUCTION = (
    "Both sides of a ratio run in processes of their own on the same processors, and are timed in "
    "turns. A number is the median of the ratios of all rounds, with the smallest and the largest.",
    "Where a number is to be at most something it is our time over the other, where it is to be at "
    "least something the other time over ours. A range in brackets has the number of rounds.",
    "The processor time decides where one thread computes, the wall's elsewhere. PyTorch's fastest "
    "mode or memory format counts. Nothing here is asserted by a test: machines differ.",
)
RULE = "A row holds where every ratio of it reaches what is asked."
NOT_MEASURED = "not measured"


class Report(NamedTuple):
    """What was written."""

    pages: list[pathlib.Path]  # the benchmark's, and that of growth where it was measured
    table: Grid  # of all rows
    made_with: dict[str, Any]  # the machine and the versions


def report(tasks: Sequence[Task], folder: pathlib.Path, command: str = "") -> Report:
    """Write the report of a folder's records to `folder/report`.

    Args:
      tasks: what was to be measured.
      folder: with the records.
      command: the line that measured them.
    """
    found = records.read(folder / "records.jsonl")
    chosen = latest(tasks, found)
    lines = {name: _lines(name, chosen) for name in ROWS}
    every = [line for row in lines.values() for line in row]
    target = folder / "report"
    linked = [
        (ROWS[name].title, write_table(target, name, lines_csv(row), grid(row)))
        for name, row in lines.items()
        if row
    ]
    whole = write_table(target, "benchmark", lines_csv(every), grid(every))
    sections = [Section("All ratios", figures=[ratios_figure(every)] if every else [])]
    sections += [Section(title, grids=[table]) for title, table in linked]
    made_with = settings([record for _, own in chosen for record in own])
    opening = Opening(sentences(every), [_verdicts(target, lines)] if every else [], RULE)
    records_link = Records("All rows", [("records.jsonl", "../records.jsonl")])
    shown = made_with | {KEY: Provenance(command, records=[records_link])}
    pages = [write_report(target, TITLE, INTRODUCTION, sections, shown, opening=opening)]
    sweeps = [r for task, own in chosen for r in own if task.row == "growth" and "error" not in r]
    if sweeps:
        pages.append(write_growth(sweeps, target, made_with))
    return Report(pages, whole.grid, made_with)


def sentences(lines: Sequence[Line]) -> list[str]:
    """Return how many ratios reach what is asked of them, and the ends of the others."""
    asked = [line for line in lines if line.reached is not None]
    missing = [line for line in lines if not math.isfinite(line.number.median)]
    found = [
        f"{sum(bool(line.reached) for line in asked)} of {len(asked)} ratios reach what is asked "
        f"of them; {len(lines) - len(asked) - len(missing)} have no goal."
    ]
    shortest = sorted((line for line in asked if not line.reached), key=_share_of_goal)
    for words, line in zip(("farthest from", "next farthest from"), shortest, strict=False):
        found.append(f"The {words} its goal is {_named(line)}.")
    best = sorted((line for line in asked if line.reached), key=_share_of_goal)[-1:]
    found += [f"The farthest beyond its goal is {_named(line)}." for line in best]
    return [*found, f"{len(missing)} were not measured."]


def _share_of_goal(line: Line) -> float:
    """Return how many times its goal a ratio reaches: above 1 it is reached."""
    value, goal = line.number.median, line.reach
    above, below = (value, goal) if line.at_least else (goal, value)
    return above / below if below else math.inf  # a count or a clock that shows nothing


def _named(line: Line) -> str:
    unit = line.unit if line.unit == "×" else f" {line.unit}"
    against = f" against {line.against}" if line.against else ""
    number = number_text(line.number.median)
    return f"{line.work}{against}: {number}{unit} where {_reach(line)} is asked"


def _verdicts(folder: pathlib.Path, lines: Mapping[str, Sequence[Line]]) -> LinkedGrid:
    """Write how many ratios of every row reach what is asked of them."""
    rows = []
    for name, row in lines.items():
        asked = [line for line in row if line.reached is not None]
        if asked:
            reached = sum(bool(line.reached) for line in asked)
            said = "holds" if reached == len(asked) else "fails"
            rows.append([ROWS[name].title, str(len(asked)), str(reached), Marked(said, said)])
    verdicts = Grid(["Row", "Goals", "Reached", "All of them"], rows)
    return write_table(folder, "verdicts", verdicts_csv(rows), verdicts)


def verdicts_csv(rows: Sequence[Sequence[str]]) -> str:
    """Return the verdicts as CSV."""
    return csv_text(pd.DataFrame(rows, columns=["row", "goals", "reached", "verdict"]))


def _lines(name: str, chosen: Sequence[tuple[Task, list[Record]]]) -> list[Line]:
    """Return the lines of a row; a task without records has one that says so."""
    result = []
    for task, own in chosen:
        if task.row != name:
            continue
        if not own:
            result.append(_missing(task, "no time was left"))
        for record in own:
            if "error" in record:
                result.append(_missing(task, f"failed: {record['error']}"))
            else:
                result += ROWS[name].lines(record)
    return result


def _missing(task: Task, why: str) -> Line:
    words = [str(x) for x in task.case.values() if isinstance(x, str | int) and x]
    nothing = Ratio(math.nan, math.nan, math.nan, 0)
    return Line(task.row, f"{task.row}: {', '.join(words)}", "", nothing, note=why)


def grid(lines: Sequence[Line]) -> Grid:
    """Return the table as texts: a number that reaches what is asked is marked."""
    heads = ["Work", "Against", "Ratio", "Reach", "Range", "Wall", "Processor", "Ours", "Theirs"]
    rows = [
        [
            line.work,
            line.against,
            _marked(line),
            _reach(line),
            _range(line.number),
            number_text(line.wall.median),
            number_text(line.processor.median),
            line.ours,
            line.theirs,
            line.note,
        ]
        for line in lines
    ]
    return Grid([*heads, "Note"], rows, text_columns=2)


def _marked(line: Line) -> str:
    if not math.isfinite(line.number.median):
        return Marked(NOT_MEASURED, "muted")
    unit = "" if line.unit == "×" else f" {line.unit}"
    text = number_text(line.number.median) + unit
    return {True: Marked(text, "best"), False: Marked(text, "fails"), None: text}[line.reached]


def _reach(line: Line) -> str:
    if not math.isfinite(line.reach):
        return ""
    return f"{'≥' if line.at_least else '≤'} {line.reach:g}"


def _range(ratio: Ratio) -> str:
    if ratio.rounds < 2:
        return ""
    return f"{number_text(ratio.low)}–{number_text(ratio.high)} (n = {ratio.rounds})"


def number_text(value: float) -> str:
    """Return a number with three digits, "" for NaN.

    >>> number_text(0.98765), number_text(float("nan")), number_text(-0.25)
    ('0.988', '', '-0.250')
    """
    return significant(value) if math.isfinite(value) else ""


def lines_csv(lines: Sequence[Line]) -> str:
    """Return the lines as CSV, with numbers in full precision."""
    return csv_text(
        pd.DataFrame(
            [
                {
                    "row": line.row,
                    "work": line.work,
                    "against": line.against,
                    "ratio": line.number.median,
                    "unit": line.unit,
                    "low": line.number.low,
                    "high": line.number.high,
                    "rounds": line.number.rounds,
                    "reach": line.reach,
                    "sense": "at least" if line.at_least else "at most",
                    "reached": "" if line.reached is None else line.reached,
                    "wall_ratio": line.wall.median,
                    "processor_ratio": line.processor.median,
                    "ours": line.ours,
                    "theirs": line.theirs,
                    "note": line.note,
                }
                for line in lines
            ]
        )
    )


def settings(found: Sequence[Record]) -> dict[str, Any]:
    """Return the machines and the versions that the records were measured with."""
    every = [record["machine"] for record in found if "machine" in record]
    commits = _distinct([machine.get("commit", "unknown") for machine in every])
    machines = _distinct([{n: m[n] for n in m if n != "commit"} for m in every])
    sides: dict[str, list[str]] = {"jax": [], "torch": []}
    for record in found:
        for side, facts in record.get("software", {}).items():
            names = ("jax", "jaxlib", "flax", "optax", "torch", "torch_threads", "device")
            text = ", ".join(f"{n.replace('_', ' ')} {facts[n]}" for n in names if n in facts)
            if text and text not in sides[side]:
                sides[side].append(text)
    named = {f"machine {i}": one for i, one in enumerate(machines, 1)}
    versions = {side: "; ".join(texts) for side, texts in sides.items() if texts}
    one = dict(zip(["machine"], machines, strict=False))
    made_on = named if len(machines) > 1 else one
    return made_on | {"commit": ", ".join(commits)} | versions


def _distinct(values: Sequence[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value not in values[:i]]
