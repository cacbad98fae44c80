"""Put figures of finished studies into the README beside this file.

  python -m experiments.gallery even_better=runs/digits sam_paper=runs/sam_paper

Each argument is a study and its workdir. The figures of that study are copied out of its report,
small enough for a page; those of other studies stay. `PICTURES` says which figures and words.
"""

import argparse
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image

from sam_jax.mistakes import UserMistake, one_sentence
from sam_jax.suggestions import did_you_mean

HERE = pathlib.Path(__file__).parent
WIDTH = 720  # pixels of a picture, twice what a column of the page shows
COLOURS = 128
COLUMNS = 2


class Picture(NamedTuple):
    """A figure of a study's report."""

    study: str
    stem: str  # of its file in report/figures
    shows: str  # the alternative text, and the caption
    page: str  # of the study, beside this file

    @property
    def file(self) -> str:
        """Its path beside this file."""
        return f"pictures/{self.study}_{self.stem}.png"


PICTURES = (
    Picture(
        "even_better",
        "figure_9",
        "Training loss around four minima, on planes of filter-normalised directions",
        "even_better/README.md",
    ),
    Picture(
        "even_better",
        "figure_5_sound",
        "Test loss against the asymmetry factor of ten models, with standard errors over seeds",
        "even_better/README.md",
    ),
    Picture(
        "sam_paper",
        "spectral_densities",
        "Spectral density of the Hessian during trainings by SGD and by SAM",
        "sam_paper/README.md",
    ),
    Picture(
        "sam_paper",
        "error_by_m",
        "Test error by the radius of SAM and by m, the examples that share a perturbation",
        "sam_paper/README.md",
    ),
    Picture(
        "m_sharpness",
        "m_sharpness",
        "Test error and sharpness of n-SAM, m-SAM and random perturbations, by the radius",
        "understanding/README.md",
    ),
    Picture(
        "diagonal_nets",
        "between_erm_and_sam",
        "Losses of a diagonal network on the line between the solutions of ERM and of SAM",
        "understanding/README.md",
    ),
)


def write_gallery(
    workdirs: Mapping[str, pathlib.Path], folder: pathlib.Path = HERE
) -> list[pathlib.Path]:
    """Copy the pictures of some studies, write the block of the README, and return the pictures.

    Args:
      workdirs: study -> the folder of its finished report.
      folder: that of the README.

    Raises:
      UserMistake: a study has no picture in the gallery, a report lacks a figure, or the README
        has no lines for the block.
    """
    studies = {picture.study for picture in PICTURES}
    for study in workdirs:
        if study not in studies:
            raise UserMistake(
                f"The gallery has pictures of {', '.join(sorted(studies))}, and none of "
                f"{study!r}.{did_you_mean(study, studies)}"
            )
    chosen = [picture for picture in PICTURES if picture.study in workdirs]
    sources = [workdirs[p.study] / "report/figures" / f"{p.stem}.png" for p in chosen]
    if missing := [str(path) for path in sources if not path.is_file()]:
        raise UserMistake(f"There is no {missing[0]}: finish the study with its command first.")
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8")
    block = re.compile(r"(<!-- gallery -->\n).*?(<!-- end -->)", re.DOTALL)
    if not block.search(text):
        raise UserMistake(f"{page} has no lines <!-- gallery --> and <!-- end -->.")
    made = [_shrink(path, folder / p.file) for path, p in zip(sources, chosen, strict=True)]
    page.write_text(
        block.sub(lambda lines: f"{lines[1]}{markdown(PICTURES)}{lines[2]}", text), encoding="utf-8"
    )
    return made


def markdown(pictures: Sequence[Picture]) -> str:
    """Return a table of pictures, in two columns, each with its words and its study below it."""
    cells = [f"![{p.shows}]({p.file})<br>{p.shows} ([{p.study}]({p.page}))" for p in pictures]
    cells += [""] * (-len(cells) % COLUMNS)
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(["| | |", "|---|---|", *lines, ""])


def _shrink(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Copy a picture with fewer pixels and colours."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        small = image.convert("RGB")
    small.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    return target


def main() -> None:
    """Read the command line and write the gallery."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", nargs="+", metavar="STUDY=WORKDIR")
    pairs = [argument.partition("=")[::2] for argument in parser.parse_args().workdir]
    with one_sentence():
        for path in write_gallery({study: pathlib.Path(folder) for study, folder in pairs}):
            print(path)


if __name__ == "__main__":
    main()
