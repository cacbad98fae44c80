"""Records in a work directory -> tables, figures and one page in `workdir/report`."""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from experiments.even_better.claims import evidence
from experiments.even_better.claims import printed_correlations as recomputed
from experiments.even_better.figures.all_figures import all_figures
from experiments.even_better.figures.common import ReportFigure
from experiments.even_better.pages import claims as claims_report
from experiments.even_better.pages import published as published_report
from experiments.even_better.pages import tables as page
from experiments.even_better.pages import texts
from experiments.even_better.read.connections import Connection
from experiments.even_better.read.read_study import read_study
from experiments.even_better.read.results import PRESETS, Results
from experiments.even_better.tables import correlations, formats, separation, tables
from experiments.study.page import Markup, element, figure_html, links, settings_html
from experiments.study.page import page as whole_page
from sam_jax import plotting

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
PIXELS_PER_INCH = 84  # on the page; the files have more
TITLES = {1: tables.TABLE_1_TITLE, "A": tables.BEYOND_TITLE}
TITLE = "An even better understanding of sharpness-aware minimisation: report of these runs"


def report(
    workdir: pathlib.Path | str,
    settings: dict[str, Any],
    config: ml_collections.ConfigDict | None = None,
) -> pathlib.Path:
    """Write every table (CSV, Markdown), every figure (PNG, SVG) and the pages that show them.

    Beside `index.html` are `published.html`, the study's numbers as printed and as recomputed, and
    `claims.html`, the study's claims as tests.

    Args:
      workdir: Directory with `models/NAME/seed_S/{records,metrics,plane}.jsonl` and
        `curves/PAIR/seed_S/{records,plane}.jsonl`.
      settings: What the page names as the settings of the runs; may be nested.
      config: The config of the study, whose models, seeds and pairs are shown; None for all that
        the directory holds.

    Returns:
      The path of `workdir/report/index.html`.

    Raises:
      ValueError: Where there are no records.
    """
    results, pairs = read_study(workdir, config)
    folder = pathlib.Path(workdir) / "report"
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    all_tables = tables.all_tables(results)
    for table in all_tables:
        _write(folder / "tables" / f"{table.stem}.csv", formats.to_csv(table))
        _write(folder / "tables" / f"{table.stem}.md", formats.to_markdown(table))
    drawn = all_figures(results, pairs)
    for figure in drawn:
        plotting.save(figure.figure, folder / "figures" / figure.stem)
    sections = [
        _section(name, numbers, all_tables, shown, drawn) for name, numbers, shown in SECTIONS
    ]
    last = [_correlations(results, folder), _settings(settings)]
    sections.insert(1, _separation(results, all_tables[0], folder))
    _published(results, folder)
    _claims(results, pairs, folder)
    index = folder / "index.html"
    _write(index, whole_page(TITLE, *_introduction(results), *sections, *last))
    return index


def table_1_text(
    workdir: pathlib.Path | str, config: ml_collections.ConfigDict | None = None
) -> str:
    """Return Table 1 as plain text of at most 100 columns, the best of a column marked "*"."""
    return formats.to_text(tables.table_1(read_study(workdir, config)[0]))


def _introduction(results: Results) -> list[Markup]:
    seeds = ", ".join(map(str, results.seeds))
    count = len(results.seeds)
    spread = (
        f"Every number is the mean ± standard error (sample deviation / √n) over n = {count} seeds "
        f"({seeds}); a cell that rests on fewer says so."
        if count > 1
        else f"There is one seed ({seeds}), hence no standard error (“—”)."
    )
    return [
        element("h1", TITLE),
        element(
            "p",
            f"{len(results.all_models)} models. {spread} {texts.BOLD}",
        ),
        element("p", texts.PRESETS),
        element(
            "nav",
            element("a", "The study's numbers, printed and recomputed", href="published.html"),
            element("a", "The study's claims, tested", href="claims.html"),
            *(
                element("a", name, href=f"#{_anchor(name)}")
                for name in (*(section[0] for section in SECTIONS), "Correlations", "Settings")
            ),
        ),
    ]


def _section(
    name: str,
    numbers: Sequence[int | str],
    all_tables: Sequence[tables.Table],
    shown: Sequence[int],
    drawn: Sequence[ReportFigure],
) -> Markup:
    children = [element("h2", name, id=_anchor(name))]
    for number in numbers:
        ours = [table for table in all_tables if table.number == number]
        title = TITLES.get(number) or tables.KINDS[number].title
        blocks = [_table(table) for table in ours]
        blocks = blocks or [element("p", "These runs: not measured.", class_="muted")]
        children += [
            element("h3", f"Table {number}. {title}"),
            element("div", element("div", *blocks), *_published_beside(number), class_="beside"),
        ]
    for number in shown:
        chosen = [figure for figure in drawn if figure.number == number]
        if not chosen:
            children.append(element("p", f"Figure {number}: not measured.", class_="muted"))
        children.append(element("div", *map(_figure, chosen), class_="beside"))
    return element("section", *children)


def _published_beside(number: int | str) -> list[Markup]:
    if number == "A":
        return [element("p", texts.BEYOND, class_="note")]
    return [page.published_html(number)]


def _table(table: tables.Table) -> Markup:
    note = "Equal columns are one measurement: m plays no part in it."
    notes = [element("p", note, class_="note")] if tables.repeated_columns(table) else []
    return element("div", page.table_html(table), *notes, links(table.stem))


def _figure(figure: ReportFigure) -> Markup:
    source, vector = (f"figures/{figure.stem}.{kind}" for kind in ("png", "svg"))
    width = round(PIXELS_PER_INCH * figure.figure.get_figwidth())
    name = f"Figure {figure.number}" + (f", {figure.preset} preset" if figure.preset else "")
    return figure_html(name, source, vector, figure.caption, width)


def _correlations(results: Results, folder: pathlib.Path) -> Markup:
    children = []
    for preset in PRESETS:
        rows = correlations.correlation_rows(results, preset)
        if rows:
            stem = f"correlations_{preset}"
            _write_table(
                folder,
                stem,
                correlations.correlations_csv(rows),
                correlations.correlations_markdown(rows),
            )
            children += [page.correlations_html(rows, preset), links(stem)]
    return element(
        "section",
        element("h2", "Correlations with the test loss", id=_anchor("Correlations")),
        element(
            "p",
            texts.CORRELATIONS,
        ),
        *children,
    )


def _separation(results: Results, table: tables.Table, folder: pathlib.Path) -> Markup:
    if len(results.seeds) < 2 or len(results.models) < 2:
        text = "One seed separates no models." if len(results.seeds) < 2 else "There is one model."
        return element("p", text, class_="note")
    found = separation.pairs(results, table)
    _write_table(
        folder,
        separation.STEM,
        separation.separation_csv(found, table),
        separation.separation_markdown(found, table),
    )
    return separation.separation_html(found, table)


def _published(results: Results, folder: pathlib.Path) -> None:
    cells = published_report.compare_cells(results)
    found = recomputed.recompute(evidence.runs(results, "published"))
    for stem, csv, markdown in (
        (
            published_report.CELLS,
            published_report.cells_csv(cells),
            published_report.cells_markdown(cells),
        ),
        (
            published_report.CORRELATIONS,
            published_report.correlations_csv(found),
            published_report.correlations_markdown(found),
        ),
        (
            published_report.ERRORS,
            published_report.errors_csv(),
            published_report.errors_markdown(),
        ),
    ):
        _write_table(folder, stem, csv, markdown)
    children = published_report.published_page(results, cells, found)
    _write(folder / "published.html", whole_page(published_report.TITLE, *children))


def _claims(results: Results, pairs: Sequence[Sequence[Connection]], folder: pathlib.Path) -> None:
    bodies = [evidence.study(), *(evidence.runs(results, preset, pairs) for preset in PRESETS)]
    found = claims_report.test_claims(bodies)
    _write_table(
        folder,
        claims_report.STEM,
        claims_report.claims_csv(found),
        claims_report.claims_markdown(found),
    )
    children = claims_report.claims_html(found)
    _write(folder / "claims.html", whole_page(claims_report.TITLE, *children))


def _settings(settings: dict[str, Any]) -> Markup:
    heading = element("h2", "Settings", id=_anchor("Settings"))
    return element("section", heading, settings_html(settings))


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _write_table(folder: pathlib.Path, stem: str, csv: str, markdown: str) -> None:
    _write(folder / "tables" / f"{stem}.csv", csv)
    _write(folder / "tables" / f"{stem}.md", markdown)


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
