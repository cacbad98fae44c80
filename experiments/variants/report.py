"""The report on the methods: tables, a figure and one page."""

import pathlib

from experiments.study import findings
from experiments.study.figures import save_figures
from experiments.study.pages import write_page, write_table
from experiments.study.study import Settings
from experiments.variants.figure_1 import figure_1
from experiments.variants.found import sentences
from experiments.variants.published_tables import DATA_SETS, published_csv, published_grid
from experiments.variants.results import VariantsResults, share_of_passes
from experiments.variants.tables import CSV, OUTCOMES, methods_table, references

TITLE = "Sharpness-aware methods compared: report of these runs"


def report(results: VariantsResults, folder: pathlib.Path, settings: Settings) -> pathlib.Path:
    """Write the tables (CSV, Markdown), the figure (PNG, SVG) and the page that shows them.

    Args:
      results: the results of the runs.
      folder: of the report.
      settings: the settings of the runs that the page shows; may be nested.

    Returns:
      The path of the page.
    """
    table, figure = methods_table(results), figure_1(results)
    save_figures(folder, [figure])
    published = []
    for number in DATA_SETS:
        stem, grid = f"published_table_{number}", published_grid(number, results, table)
        published.append(write_table(folder, stem, published_csv(number, results), grid))
    tested = findings.better_than(
        results,
        OUTCOMES[0],
        [(method.label, method, results.arms[0]) for method in results.arms[1:]],
    )
    opening = findings.opening(folder, sentences(results, tested), tested)
    rounds = sorted({len(cost["seconds"]) for cost in results.costs.values()})
    shares = {method.label: share_of_passes(results, method) for method in results.arms}
    return write_page(
        folder / "index.html",
        "report_on_methods.html.j2",
        pathlib.Path(__file__).parent,
        title=TITLE,
        **opening._asdict(),
        results=results,
        reference=results.arms[0].label,
        compared=" and from ".join(method.label for method in references(results)),
        methods=write_table(folder, table.stem, table.csv(CSV), table.grid()),
        figure=figure,
        rounds="–".join(str(n) for n in dict.fromkeys([*rounds[:1], *rounds[-1:]])) or "0",
        shares=[f"{label} {share:.2f}" for label, share in shares.items() if share == share],
        published=published,
        settings=settings,
    )
