"""The pages of a report: jinja2 templates, filled and written.

templates/ holds `page.js`, `base.html.j2` for every page, `macros.html.j2` for tables, figures,
surfaces, links and settings, and `report.html.j2`, a whole report: what was found, the verdicts,
and the sections. `sam_jax.plotting.page_parts` brings what all pages of the project share. A study
may have templates of its own. A page is one file that needs no server and no network; a policy in
its head forbids every request.
"""

import functools
import html
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from experiments.study import embedded, provenance
from experiments.study.figures import ReportFigure, save_figures
from experiments.study.grid import Grid, kind
from experiments.study.surfaces import Surfaces
from sam_jax.plotting import page_parts
from sam_jax.runs.config_changes import shortened

TEMPLATES = pathlib.Path(__file__).with_name("templates")


CLAIMS = (
    "A claim holds where the whole interval of its effect fits it, fails where none of it does, "
    "and is undecided otherwise."
)


class LinkedGrid(NamedTuple):
    """A table of a page and the stem of its files in `tables/`."""

    grid: Grid
    stem: str


class Section(NamedTuple):
    """A part of `report.html.j2`: a heading, paragraphs, tables, figures and surfaces."""

    heading: str
    paragraphs: Sequence[str] = ()
    grids: Sequence[LinkedGrid] = ()
    figures: Sequence[ReportFigure] = ()
    surfaces: Sequence[Surfaces] = ()


class Opening(NamedTuple):
    """What a report begins with."""

    found: Sequence[str] = ()  # what was found: about five sentences with their numbers
    verdicts: Sequence[LinkedGrid] = ()
    rule: str = CLAIMS  # how verdicts are come to


def write_page(
    path: pathlib.Path, template: str, templates: pathlib.Path | None = None, **values: Any
) -> pathlib.Path:
    """Fill a template, write the page and return its path.

    Args:
      path: of the page.
      template: the name of the template.
      templates: a folder of a study's own templates; the templates in templates/ are found too.
      **values: the values that the template shows. Texts are escaped. What made the report is
        taken out of the `settings`.
    """
    folders = [folder for folder in (templates, TEMPLATES, page_parts.TEMPLATES) if folder]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    image = functools.partial(_image, path.parent)
    shown = {
        "kind": kind,
        "anchor": anchor,
        "flat": flat_settings,
        "headings": headings,
        "shortened": shortened,
    }
    environment.filters |= {**shown, "image": image}
    settings = dict(values.pop("settings", {}))
    made_by = settings.pop(provenance.KEY, None)
    values = {**Opening()._asdict(), **values, "settings": settings, "provenance": made_by}
    text = environment.get_template(template).render(**values, library=page_parts.plotting_library)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_table(folder: pathlib.Path, stem: str, csv: str, grid: Grid, *more: Grid) -> LinkedGrid:
    """Write a table to `folder/tables` as CSV and Markdown, and return its part of a page.

    Args:
      folder: of the report.
      stem: of the files.
      csv: the table as CSV.
      grid: the table as texts, which a page shows.
      *more: further ones for the Markdown alone.
    """
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "tables" / f"{stem}.csv").write_text(csv, encoding="utf-8")
    grids = (grid, *more)
    titles = [f"{g.caption}\n\n" if g.caption and len(grids) > 1 else "" for g in grids]
    markdown = "\n".join(t + g.markdown() for t, g in zip(titles, grids, strict=True))
    (folder / "tables" / f"{stem}.md").write_text(markdown, encoding="utf-8")
    return LinkedGrid(grid, stem)


def write_report(
    folder: pathlib.Path,
    title: str,
    introduction: Sequence[str],
    sections: Sequence[Section],
    settings: Mapping[str, Any],
    name: str = "index.html",
    opening: Opening | None = None,
) -> pathlib.Path:
    """Write the figures of some sections and a page of them all, `folder/NAME`.

    Args:
      folder: of the report.
      title: of the page.
      introduction: paragraphs about the runs.
      sections: the tables and figures.
      settings: the settings of the runs; may be nested.
      name: of the page's file.
      opening: what the page begins with; None for nothing.
    """
    save_figures(folder, [figure for section in sections for figure in section.figures])
    return write_page(
        folder / name,
        "report.html.j2",
        title=title,
        introduction=introduction,
        sections=sections,
        settings=settings,
        **(opening or Opening())._asdict(),
    )


def anchor(name: str) -> str:
    """Return the id of a heading.

    >>> anchor("Average sharpness, n = 3")
    'average-sharpness-n-3'
    """
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def headings(page: str) -> list[tuple[str, str]]:
    """Return the ids and the texts of the headings of a page, for its contents.

    >>> headings('<h2 id="a">A &amp; B</h2><h3>no</h3>')
    [('a', 'A & B')]
    """
    found = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', page, re.DOTALL)
    return [(html.unescape(name), html.unescape(words)) for name, words in found]


def _image(folder: pathlib.Path, stem: str) -> str:
    return embedded.image_uri(folder / "figures" / f"{stem}.png")


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings with dotted names, as texts.

    >>> list(flat_settings({"data": {"pad": 4}, "seeds": [0, 1]}))
    [('data.pad', '4'), ('seeds', '0, 1')]
    """
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _setting_text(value)


def _setting_text(value: Any) -> str:
    """Return a setting as text: lists with commas, lists of lists with semicolons."""
    if not isinstance(value, list | tuple):
        return str(value)
    if any(isinstance(item, list | tuple) for item in value):
        return "; ".join(" ".join(map(str, item)) for item in value)
    return ", ".join(map(str, value)) or "none"
