"""A table of texts, and the ways in which it is written."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

TEXT_WIDTH = 100  # of a terminal


class Marked(str):
    """A text of a cell with a kind: "best", "muted", or the name of a class of style.css."""

    kind: str

    def __new__(cls, text: str, kind: str) -> "Marked":
        """Return the text with its kind."""
        marked = super().__new__(cls, text)
        marked.kind = kind
        return marked


class Grid(NamedTuple):
    """Rows of texts under headings of one or two lines."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    groups: Sequence[str] = ()  # the upper line of the headings; equal neighbours share a cell
    caption: str = ""
    text_columns: int = 1  # the first columns, which are aligned to the left

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The upper line of the headings, each group with the number of its columns."""
        if not any(self.groups):
            return []
        return [(group, len(list(same))) for group, same in itertools.groupby(self.groups)]

    def markdown(self) -> str:
        """Return a Markdown table, the best of a column in bold.

        >>> print(Grid(["model", "loss"], [["128-SGD", "0.25"]]).markdown(), end="")
        | model | loss |
        | --- | ---: |
        | 128-SGD | 0.25 |
        """
        groups = self.groups or [""] * len(self.heads)
        heads = [f"{group} {head}".strip() for group, head in zip(groups, self.heads, strict=True)]
        rule = ["---"] * self.text_columns + ["---:"] * (len(heads) - self.text_columns)
        rows = [[f"**{t}**" if kind(t) == "best" else t for t in row] for row in self.rows]
        texts = [[_in_markdown(text) for text in line] for line in [heads, rule, *rows]]
        return "".join("| " + " | ".join(line) + " |\n" for line in texts)

    def text(self, width: int = TEXT_WIDTH) -> str:
        """Return plain text, the best of a column marked with an asterisk.

        Columns that do not fit into the width follow below in a further block.
        """
        groups = self.groups or [""] * len(self.heads)
        columns = [list(column) for column in zip(*self.rows, strict=True)]
        headed = list(zip(groups, self.heads, columns, strict=True))
        left = [_padded([*h, *texts], str.ljust) for *h, texts in headed[: self.text_columns]]
        blocks = [left]
        for group, head, texts in headed[self.text_columns :]:
            starred = [text + ("*" if kind(text) == "best" else " ") for text in texts]
            starred = [text.replace(" ± ", "±") for text in starred]
            padded = _padded([f"{group} ", f"{head} ", *starred], str.rjust)
            fits = len(" ".join(column[0] for column in [*blocks[-1], padded])) <= width
            if not fits and len(blocks[-1]) > len(left):
                blocks.append(left)
            blocks[-1] = [*blocks[-1], padded]
        lines = [[" ".join(line).rstrip() for line in zip(*b, strict=True)] for b in blocks]
        lines = [block if any(self.groups) else block[1:] for block in lines]
        return "\n\n".join("\n".join(block) for block in lines) + "\n"


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV without its index: numbers in full precision, "nan" for NaN.

    >>> csv_text(pd.DataFrame({"model": ["128-SGD"], "loss": [0.25]}))
    'model,loss\\n128-SGD,0.25\\n'
    """
    return frame.to_csv(index=False, na_rep="nan", lineterminator="\n")


def kind(text: str) -> str:
    """Return the kind of a text, "" for a plain one."""
    return text.kind if isinstance(text, Marked) else ""


def _in_markdown(text: str) -> str:
    """Return a text so that it ends no cell and, where Markdown becomes HTML, is no tag."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _padded(texts: Sequence[str], pad: Callable[[str, int], str]) -> list[str]:
    return [pad(text, max(map(len, texts))) for text in texts]
