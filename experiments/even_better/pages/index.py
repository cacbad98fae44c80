"""The report: every table, every figure, and the pages that show them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.even_better.figures.all_figures import all_figures
from experiments.even_better.figures.to_turn import surfaces
from experiments.even_better.pages.claims import write_claims
from experiments.even_better.pages.found import sentences
from experiments.even_better.pages.published import notes, published_grid, write_published
from experiments.even_better.read.results import PRESETS, StudyResults
from experiments.even_better.tables.all_tables import TITLES, all_tables
from experiments.even_better.tables.columns import csv_text_of, repeated_columns
from experiments.even_better.tables.correlations import (
    CorrelationRow,
    correlation_rows,
    correlations_csv,
    correlations_grid,
)
from experiments.even_better.tables.separation import separation, separation_grids
from experiments.even_better.tables.table_01 import table_01
from experiments.study.comparison import comparison_csv, summary, uncertainty
from experiments.study.figures import ReportFigure, save_figures
from experiments.study.grid import Grid
from experiments.study.pages import LinkedGrid, write_page, write_table
from experiments.study.study import Settings
from experiments.study.surfaces import Surfaces
from experiments.study.table import Table

# name of a section, its tables and its figures in the order of the page
SECTIONS = (
    ("Training", (1,), (7,)),
    ("Adversarial sharpness", (2, 5), (3,)),
    ("Average sharpness", (6, 7), (10,)),
    ("Asymmetry", (), (1, 5, 6, 11)),
    ("Relative asymmetry and curvature", ("A",), ()),
    ("Landscapes", (), (4, 9)),
    ("Connections", (), (2, 8)),
)
TITLE = "An even better understanding of sharpness-aware minimisation: report of these runs"


class NumberedTables(NamedTuple):
    """The tables of one number beside the study's own."""

    number: int | str
    title: str
    tables: Sequence[tuple[Table, bool]]  # and whether columns repeat each other
    published: Grid | None
    notes: Sequence[str]


class Section(NamedTuple):
    """A part of the page."""

    name: str
    tables: Sequence[NumberedTables]
    figures: Sequence[tuple[int, Sequence[ReportFigure]]]  # by number
    surfaces: Sequence[Surfaces]


def report(results: StudyResults, folder: pathlib.Path, settings: Settings) -> pathlib.Path:
    """Write every table (CSV, Markdown), every figure (PNG, SVG) and the pages that show them.

    Beside `index.html` are `published.html`, the study's numbers as printed and as recomputed, and
    `claims.html`, the study's claims as tests.

    Args:
      results: the results of the runs.
      folder: of the report.
      settings: the settings of the runs that the page shows; may be nested.

    Returns:
      The path of `index.html`.
    """
    tables, figures = all_tables(results), all_figures(results)
    for table in (table for found in tables.values() for table in found):
        write_table(folder, table.stem, csv_text_of(table), table.grid())
    save_figures(folder, figures)
    write_published(results, folder)
    tested, verdicts = write_claims(results, folder)
    rows = {preset: correlation_rows(results, preset) for preset in PRESETS}
    rows = {preset: found for preset, found in rows.items() if found}
    turned = surfaces(results)
    return write_page(
        folder / "index.html",
        "index.html.j2",
        pathlib.Path(__file__).parent,
        title=TITLE,
        results=results,
        found=sentences(results, rows, tested),
        verdicts=[verdicts],
        sections=[_section(*section, tables, figures, turned) for section in SECTIONS],
        separation=_separation(results, tables[1][0], folder),
        correlations=_write_correlations(rows, folder),
        settings=settings,
    )


def summary_text(results: StudyResults) -> str:
    """Return Table 1 as plain text of at most 100 columns, the best of a column marked "*"."""
    return table_01(results).grid().text()


def _section(
    name: str,
    numbers: Sequence[int | str],
    shown: Sequence[int],
    tables: Mapping[int | str, Sequence[Table]],
    figures: Sequence[ReportFigure],
    turned: Sequence[Surfaces],
) -> Section:
    beside = []
    for n in numbers:
        printed = published_grid(n) if isinstance(n, int) else None
        ours = [(table, repeated_columns(table)) for table in tables[n]]
        beside.append(NumberedTables(n, TITLES[n], ours, printed, notes(n)))
    drawn = [(number, [f for f in figures if f.number == number]) for number in shown]
    return Section(name, beside, drawn, [each for each in turned if each.number in shown])


def _separation(
    results: StudyResults, table: Table, folder: pathlib.Path
) -> Mapping[str, Any] | None:
    """Write which models the seeds separate, and return the page's part about it."""
    if len(results.seeds) < 2 or len(results.models) < 2:
        return None
    pairs = separation(results, table)
    first, every = separation_grids(pairs, table)
    stem = write_table(folder, "separation", comparison_csv(pairs), first, every).stem
    return {
        "summary": summary(pairs, table.columns[0], "test loss"),
        "first": first,
        "every": every,
        "uncertainty": uncertainty(pairs),
        "stem": stem,
    }


def _write_correlations(
    rows: Mapping[str, Sequence[CorrelationRow]], folder: pathlib.Path
) -> list[LinkedGrid]:
    """Write the correlations of every preset and return them."""
    return [
        write_table(
            folder,
            f"correlations_{preset}",
            correlations_csv(found),
            correlations_grid(found, preset),
        )
        for preset, found in rows.items()
    ]
