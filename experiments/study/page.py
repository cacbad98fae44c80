"""A report as one HTML page without anything external but its own tables and figures."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 1480px; padding: 0 28px 60px; color: #1d1d1f; background: #fff;
  font: 15px/1.5 "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
h1 { font-size: 27px; line-height: 1.25; margin: 36px 0 6px; }
h2 { font-size: 21px; margin: 44px 0 8px; padding-top: 14px; border-top: 1px solid #d8d8dc; }
h3 { font-size: 16px; margin: 26px 0 6px; }
p { max-width: 76em; margin: 6px 0; }
nav a { margin-right: 18px; }
a { color: #0072b2; text-decoration: none; } a:hover { text-decoration: underline; }
.beside { display: flex; flex-wrap: wrap; gap: 12px 32px; align-items: flex-start; }
table { border-collapse: collapse; font-size: 12.5px; margin: 6px 0;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 8px 0 4px; }
thead { border-top: 1.5px solid #1d1d1f; border-bottom: 1px solid #1d1d1f; }
tbody { border-bottom: 1.5px solid #1d1d1f; }
th, td { padding: 3px 6px; text-align: right; white-space: nowrap; font-weight: 400; }
thead th { font-weight: 600; } th.span { text-align: center; }
th.text, td.text { text-align: left; }
tbody tr:nth-child(even) { background: #f6f6f8; }
.muted, .note, figcaption { color: #5a5a60; } .note, figcaption { font-size: 13px; }
p.note { max-width: 36em; } .settings td { white-space: normal; max-width: 60em; }
.corrected, .fails { color: #b34700; } td:has(.corrected) { background: #fff1e6; }
.holds { color: #1a7f37; } .undecided { color: #5a5a60; }
.wide td { white-space: normal; max-width: 46em; vertical-align: top; }
figure { margin: 14px 0 18px; display: table; } figure img { max-width: 100%; height: auto; }
figcaption { display: table-caption; caption-side: bottom; margin-top: 4px; }
"""


class Markup(str):
    """Text that is HTML already and is not escaped again."""


def element(tag: str, *children: Any, **attributes: str) -> Markup:
    """Return an element; children that are not `Markup` are escaped.

    An attribute whose name is a Python keyword carries an underscore, as in `class_`.

    >>> element("p", "a < b", element("b", "bold"), class_="note")
    '<p class="note">a &lt; b<b>bold</b></p>'
    """
    names = "".join(
        f' {name.rstrip("_")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    inside = "".join(
        child if isinstance(child, Markup) else html.escape(str(child)) for child in children
    )
    return Markup(f"<{tag}{names}>" + ("" if tag in ("img", "meta") else f"{inside}</{tag}>"))


def grid(
    caption: str, groups: Sequence[str], heads: Sequence[str], rows: Iterable[Sequence[Any]],
    text_columns: int,
) -> Markup:  # fmt: skip
    """Return a table with two rows of headings; equal neighbouring groups share one cell."""
    top, index = [], 0
    while index < len(groups):
        end = index
        while end < len(groups) and groups[end] == groups[index]:
            end += 1
        kind = {"class_": "span"} if groups[index] else {}
        top.append(element("th", groups[index], colspan=str(end - index), **kind))
        index = end

    def line(tag: str, values: Sequence[Any]) -> Markup:
        kinds = [{"class_": "text"} if j < text_columns else {} for j in range(len(values))]
        pairs = zip(values, kinds, strict=True)
        return element("tr", *(element(tag, value, **kind) for value, kind in pairs))

    body = [line("td", row) for row in rows]
    head = [element("tr", *top)] if any(groups) else []
    return element(
        "table",
        element("caption", caption),
        element("thead", *head, line("th", heads)),
        element("tbody", *body),
    )


def figure_html(name: str, source: str, vector: str, caption: str, width: int) -> Markup:
    """Return a figure, `width` pixels wide; `source` and `vector` are relative paths."""
    return element(
        "figure",
        element("img", src=source, width=str(width), alt=f"{name}: {caption}"),
        element(
            "figcaption", element("b", f"{name}. "), f"{caption} ", element("a", "SVG", href=vector)
        ),
    )


def links(stem: str, kinds: Sequence[str] = ("csv", "md")) -> Markup:
    """Return links to the files of a table, which lie in tables/."""
    names = {"csv": "CSV", "md": "Markdown"}
    found = [element("a", names[kind], href=f"tables/{stem}.{kind}") for kind in kinds]
    return element("p", *(Markup(f"{link} ") for link in found), class_="note")


def settings_html(settings: dict[str, Any]) -> Markup:
    """Return the settings, nested ones with dotted names."""
    rows = list(_flat(settings))
    table = grid("What these runs were made with", ["", ""], ["Name", "Value"], rows, 2)
    return element("div", table, class_="settings")


def page(title: str, *children: Markup) -> str:
    """Return a whole document."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    return "<!DOCTYPE html>\n" + element("html", head, element("body", *children), lang="en") + "\n"


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _setting_text(value)


def _setting_text(value: Any) -> str:
    """Return a setting as text: lists with commas, lists of lists with semicolons."""
    if not isinstance(value, list | tuple):
        return str(value)
    if any(isinstance(item, list | tuple) for item in value):
        return "; ".join(" ".join(map(str, item)) for item in value)
    return ", ".join(map(str, value)) or "none"
