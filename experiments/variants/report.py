"""Records in a work directory -> tables, a figure and one page in `workdir/report`."""

import pathlib
from typing import Any

import ml_collections

from experiments.study.page import Markup, element, figure_html, grid, links, page, settings_html
from experiments.variants import figures, writing
from experiments.variants.methods import study_methods
from experiments.variants.results import Results, read_results, share_of_passes
from experiments.variants.tables import Column, columns, references
from sam_jax import plotting

TITLE = "Sharpness-aware methods compared: report of these runs"
PIXELS_PER_INCH = 84  # on the page; the files have more
PUBLISHED = {3: "CIFAR-10 and CIFAR-100", 4: "ImageNet"}


def report(
    config: ml_collections.ConfigDict, workdir: pathlib.Path | str, settings: dict[str, Any]
) -> pathlib.Path:
    """Write the tables (CSV, Markdown), the figure (PNG, SVG) and the page that shows them.

    Args:
      config: the study's config, which says what methods and seeds there are.
      workdir: the folder of the study.
      settings: what the page names as the settings of the runs; may be nested.

    Returns:
      The path of `workdir/report/index.html`.

    Raises:
      ValueError: where there are no records.
    """
    results = read_results(workdir, study_methods(config), config.seeds)
    folder = pathlib.Path(workdir) / "report"
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    found = columns(results)
    _write(folder / "tables/methods.csv", writing.to_csv(results.methods, found))
    _write(folder / "tables/methods.md", writing.to_markdown(results.methods, found))
    figure, caption = figures.cost_figure(results)
    width = round(PIXELS_PER_INCH * figure.get_figwidth())
    plotting.save(figure, folder / "figures/cost")
    parts = [
        *_introduction(results),
        element("div", writing.to_html(results.methods, found), links("methods")),
        *_measured(results),
        element("h2", "Benefit against cost"),
        figure_html("Figure 1", "figures/cost.png", "figures/cost.svg", caption, width),
        element("h2", "Beside the published comparison"),
        element("p", _ABOUT_PUBLISHED),
        *(_published(number, results, found, folder) for number in PUBLISHED),
        element("h2", "Settings"),
        settings_html(settings),
    ]
    index = folder / "index.html"
    _write(index, page(TITLE, *parts))
    return index


def table_text(config: ml_collections.ConfigDict, workdir: pathlib.Path | str) -> str:
    """Return the main columns of the table as plain text."""
    results = read_results(workdir, study_methods(config), config.seeds)
    return writing.to_text(results.methods, columns(results))


_ABOUT_PUBLISHED = (
    "Accuracies (in brackets the difference from SGD’s) and images per second (in brackets the "
    "ratio to SGD’s) as printed in Tables 3 and 4 of Boca, Cross, Holm and Korkmaz (2023), who "
    "took the rows with images per second from Du et al. (2022) and the others from each method’s "
    "own paper. Other data, networks, budgets and machines than in these runs: what can be "
    "compared is the order, the sign of a difference and the ratio."
)


def _introduction(results: Results) -> list[Markup]:
    seeds, n = ", ".join(map(str, results.seeds)), len(results.seeds)
    compared = " and from ".join(method.label for method in references(results))
    error = (
        f"Outcomes are means ± standard errors (sample deviation / √n), n = {n} seeds ({seeds})."
        if n > 1
        else f"There is one seed ({seeds}), hence no standard error (“—”)."
    )
    return [
        element("h1", TITLE),
        element(
            "p",
            f"{len(results.methods)} rows. With the same seed all methods start from the same "
            "weights and see the same examples in the same order with the same augmentation. "
            f"{error} Differences from {compared} are taken seed by seed, so that their error is "
            "without what a seed does to both. Bold: the best mean, which need not differ "
            "significantly from the next. With so many methods the best of them also profits from "
            "chance, and each ran with the one setting that is shown.",
        ),
    ]


def _measured(results: Results) -> list[Markup]:
    reference = results.methods[0].label
    rounds = {cost["label"]: len(cost["seconds"]) for cost in results.costs.values()}
    shares = {m.label: share_of_passes(results, m) for m in results.methods}
    shares = {label: share for label, share in shares.items() if share == share}
    scheduled = ", ".join(f"{label} {share:.2f}" for label, share in shares.items())
    n = "–".join(str(n) for n in sorted({min(rounds.values()), max(rounds.values())})) or "0"
    return [
        element(
            "p",
            f"Images per second: the compiled training steps of {reference} and of the method in "
            f"turns in one process, early and late in training; median over n = {n} rounds, ratio "
            f"of the medians, in brackets the quartiles of the rounds’ ratios. The row of "
            f"{reference} is timed against itself and shows the noise.",
            class_="note",
        ),
        element(
            "p",
            "Gradients: floating-point operations of one training step relative to those of "
            f"{reference}, averaged over the steps with and without a second pass; as XLA counts "
            "them in the program that it is given and, “compiled”, in the one that it makes of it, "
            "where operations on whole sets of weights may be done several times over, which tells "
            "in a small net. In all: a step’s times the epochs. Share of steps with a second pass, "
            f"where a schedule decides: {scheduled or 'no method'}.",
            class_="note",
        ),
        element(
            "p",
            "Memory: what the compiled step holds beside its arguments, and the training state; "
            "without the data set. The method’s state is a part of it.",
            class_="note",
        ),
    ]  # fmt: skip


def _published(
    number: int, results: Results, found: tuple[Column, ...], folder: pathlib.Path
) -> Markup:
    groups, heads, rows = writing.beside_published(number, results, found)
    stem = f"published_table_{number}"
    _write(folder / f"tables/{stem}.csv", writing.published_csv(number, results))
    _write(folder / f"tables/{stem}.md", writing.published_markdown(groups, heads, rows))
    caption = f"Table {number} of the study: {PUBLISHED[number]}"
    return element("div", grid(caption, groups, heads, rows, text_columns=1), links(stem))


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
