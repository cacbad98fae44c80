"""The gallery of experiments/README.md: python -m experiments.gallery --runs=DIR.

DIR holds finished studies, each in a folder of its name: DIR/even_better, DIR/m_sharpness. The
figures that `FIGURES` lists are copied from their reports to experiments/gallery, and the page gets
them with the words that they have there. Studies that are not in DIR keep their figures.
"""

import html.parser
import io
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from absl import app, flags
from PIL import Image

from sam_jax.mistakes import UserMistake
from sam_jax.runs.flags import run_command

flags.disclaim_key_flags()  # --help shows them as the command's own

HERE = pathlib.Path(__file__).parent
PAGE = HERE / "README.md"
FOLDER = HERE / "gallery"
WIDTH = 800  # of a picture in pixels, twice what a column of the page has
COLOURS = 160
BLOCK = re.compile(r"(<!-- gallery -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURES = (  # the folder of the study, the stem of the figure, where the study is
    ("even_better", "figure_9", "even_better/README.md"),
    ("even_better", "figure_3_sound", "even_better/README.md"),
    ("sam_paper", "error_by_m", "sam_paper/README.md"),
    ("m_sharpness", "m_sharpness", "understanding/README.md"),
    ("label_noise", "label_noise", "understanding/README.md"),
    ("fine_tuning", "lines", "understanding/README.md"),
    ("relu_nets", "regions", "understanding/README.md"),
    ("diagonal_nets", "test_loss_over_rho", "understanding/README.md"),
)


class Shown(NamedTuple):
    """A figure of the gallery."""

    study: str
    stem: str
    guide: str  # the page of the study
    words: str  # what a report says of it, as Markdown

    @property
    def picture(self) -> str:
        """The name of its file."""
        return f"{self.study}_{self.stem}.png"


def gallery(runs: pathlib.Path, page: pathlib.Path = PAGE, folder: pathlib.Path = FOLDER) -> int:
    """Copy the figures of the studies in a folder, write them into the page, and return how many.

    Args:
      runs: the folder of the studies.
      page: with the lines `<!-- gallery -->` and `<!-- end -->`.
      folder: of the pictures, beside the page.

    Raises:
      UserMistake: none of the studies is there, or the page has no such lines.
    """
    text = page.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise UserMistake(f"{page} has no lines <!-- gallery --> and <!-- end -->.")
    before = _words_of(text)
    shown, copied = [], 0
    for study, stem, guide in FIGURES:
        report = runs / study / "report"
        if (report / "figures" / f"{stem}.png").is_file():
            words = _Captions((report / "index.html").read_text(encoding="utf-8")).found[stem]
            shown.append(Shown(study, stem, guide, _plain(words)))
            _copy(report / "figures" / f"{stem}.png", folder / shown[-1].picture)
            copied += 1
        elif (words := before.get(f"{study}_{stem}.png")) is not None:
            shown.append(Shown(study, stem, guide, words))
    if not copied:
        studies = ", ".join(dict.fromkeys(study for study, *_ in FIGURES))
        raise UserMistake(f"{runs} holds no report of any of the studies {studies}.")
    page.write_text(BLOCK.sub(lambda m: f"{m[1]}{_table(shown)}{m[2]}", text), encoding="utf-8")
    return copied


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Write a figure small enough for a repository."""
    with Image.open(source) as image:
        size = WIDTH, round(image.height * WIDTH / image.width)
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize(COLOURS)
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(stream.getvalue())


def _table(shown: Sequence[Shown]) -> str:
    """Return the figures as Markdown, two in a row, each with its study and its words."""
    cells = [
        f"![{each.words}](gallery/{each.picture})<br>[{each.study}]({each.guide}): {each.words}"
        for each in shown
    ]
    cells += [""] * (len(cells) % 2)
    lines = [f"| {a} | {b} |" for a, b in zip(cells[::2], cells[1::2], strict=True)]
    return "\n".join(["| | |", "|---|---|", *lines]) + "\n"


def _words_of(text: str) -> dict[str, str]:
    """Return the words of the figures that a page shows, by the name of the picture."""
    found = re.findall(r"!\[([^\]]*)\]\(gallery/([^)]+)\)", text)
    return {name: words for words, name in found}


def _plain(words: str) -> str:
    """Return words that end neither a cell nor a link of Markdown, and are no tag."""
    plain = words.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return plain.replace("[", "(").replace("]", ")")


class _Captions(html.parser.HTMLParser):
    """Reads the alternative texts of a report's figures, by the stems of their files."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the words of an image until the link to its file follows."""
        values = dict(attrs)
        link = re.fullmatch(r"figures/(.+)\.png", values.get("href") or "")
        if tag == "img":
            self._words = values.get("alt") or ""
        elif link:
            self.found[link[1]] = self._words.partition(": ")[2]


def _command(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    count = gallery(pathlib.Path(flags.FLAGS.runs))
    print(f"{count} figures are in {FOLDER}, and in {PAGE}")


if __name__ == "__main__":
    flags.DEFINE_string("runs", None, "The folder of finished studies.", required=True)
    run_command(_command)
