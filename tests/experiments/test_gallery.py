"""The gallery in the README of the studies is the one that its command makes."""

import re

import pytest
from PIL import Image

from experiments import gallery
from sam_jax.mistakes import UserMistake

BLOCK = "# Studies\n\n<!-- gallery -->\n{}<!-- end -->\n\nMore.\n"


def report_of(folder, study, color="white"):
    """A workdir with the figures of one study that the gallery shows."""
    for picture in gallery.PICTURES:
        if picture.study == study:
            path = folder / "report/figures" / f"{picture.stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1440, 600), color).save(path)
    return folder


def test_the_readme_has_the_gallery_of_the_table():
    text = (gallery.HERE / "README.md").read_text()
    (block,) = re.findall(r"<!-- gallery -->\n(.*?)<!-- end -->", text, re.S)
    assert block == gallery.markdown(gallery.PICTURES)
    assert sorted(gallery.HERE.glob("pictures/*")) == sorted(
        gallery.HERE / picture.file for picture in gallery.PICTURES
    )


@pytest.mark.parametrize("picture", gallery.PICTURES, ids=lambda picture: picture.stem)
def test_a_picture_is_small_and_in_words(picture):
    path = gallery.HERE / picture.file
    assert path.stat().st_size < 100_000
    with Image.open(path) as image:
        assert 300 < image.width <= gallery.WIDTH
        assert len(image.getcolors()) > 10  # something is drawn
    assert len(picture.shows.split()) > 5
    assert (gallery.HERE / picture.page).is_file()


def test_the_command_copies_the_figures_of_the_studies_that_are_given(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(BLOCK.format("old\n"))
    workdir = report_of(tmp_path / "run", "sam_paper")
    made = gallery.write_gallery({"sam_paper": workdir}, tmp_path)
    assert [path.name for path in made] == [
        "sam_paper_spectral_densities.png",
        "sam_paper_error_by_m.png",
    ]
    for path in made:
        with Image.open(path) as image:
            assert image.size == (720, 300)
    assert page.read_text() == BLOCK.format(gallery.markdown(gallery.PICTURES))


def test_what_cannot_be_shown_is_a_mistake(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("# Studies\n")
    workdir = report_of(tmp_path / "run", "m_sharpness")
    with pytest.raises(UserMistake, match="has no lines <!-- gallery -->"):
        gallery.write_gallery({"m_sharpness": workdir}, tmp_path)
    with pytest.raises(UserMistake, match="none of 'sam_papers'. Did you mean"):
        gallery.write_gallery({"sam_papers": workdir}, tmp_path)
    with pytest.raises(UserMistake, match="error_by_m.png|spectral_densities.png"):
        gallery.write_gallery({"sam_paper": workdir}, tmp_path)
    assert page.read_text() == "# Studies\n" and not (tmp_path / "pictures").exists()
