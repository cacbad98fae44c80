"""The gallery of the README: figures of reports with their words, two in a row."""

import re

import pytest
from PIL import Image

from experiments import gallery
from experiments.study import pages
from experiments.study.figures import ReportFigure
from sam_jax import plotting
from sam_jax.mistakes import UserMistake


def report(folder, stem, words):
    drawn, (axes,) = plotting.small_multiples(1, 1)
    axes.plot([0, 1], [1, 0])
    section = pages.Section("S", figures=[ReportFigure("Figure 1", stem, words, drawn)])
    pages.write_report(folder / "report", "T", ["x"], [section], {})


def test_figures_come_with_their_words_and_others_stay(tmp_path):
    page, folder, runs = tmp_path / "README.md", tmp_path / "gallery", tmp_path / "runs"
    page.write_text("before\n<!-- gallery -->\n<!-- end -->\nafter\n")
    report(runs / "relu_nets", "regions", "Loss: a|b [c] <d>.")
    report(runs / "fine_tuning", "lines", "Lines.")
    assert gallery.gallery(runs, page, folder) == 2
    text = page.read_text()
    assert text.startswith("before\n<!-- gallery -->\n| | |\n") and text.endswith("-->\nafter\n")
    assert r"![Loss: a\|b (c) &lt;d>.](gallery/relu_nets_regions.png)" in text
    with Image.open(folder / "relu_nets_regions.png") as image:
        assert image.width == gallery.WIDTH and image.mode == "P"
    # A second time from another folder: what is not there keeps its words, and nothing doubles.
    report(tmp_path / "more" / "fine_tuning", "lines", "Other lines.")
    assert gallery.gallery(tmp_path / "more", page, folder) == 1
    assert page.read_text() == text.replace("Lines.", "Other lines.")


def test_what_is_not_there_is_said(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("no lines\n")
    with pytest.raises(UserMistake, match="has no lines"):
        gallery.gallery(tmp_path, page, tmp_path)
    page.write_text("<!-- gallery -->\n<!-- end -->\n")
    with pytest.raises(UserMistake, match="holds no report of any of the studies even_better"):
        gallery.gallery(tmp_path, page, tmp_path)


def test_every_picture_of_the_page_is_there_and_small():
    shown = re.findall(r"\(gallery/([^)]+)\)", gallery.PAGE.read_text())
    assert sorted(shown) == sorted(path.name for path in gallery.FOLDER.glob("*.png"))
    assert sorted(shown) == sorted(f"{study}_{stem}.png" for study, stem, _ in gallery.FIGURES)
    assert all((gallery.FOLDER / name).stat().st_size < 80_000 for name in shown)
