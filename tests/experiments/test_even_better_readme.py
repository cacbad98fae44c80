"""The README of the study: every table, figure and claim has its file, and the files exist."""

import pathlib
import re

import experiments.even_better
from experiments.even_better.claims.claims import CLAIMS
from experiments.even_better.pages.index import SECTIONS

FOLDER = pathlib.Path(experiments.even_better.__file__).parent
TEXT = (FOLDER / "README.md").read_text()


def rows(heading):
    """Return the rows of the table of a section, by their first cell."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    return {line[0]: " | ".join(line[1:]) for line in lines[2:]}


def files(text):
    return re.findall(r"\]\(([^)]+)\)", text)


def test_every_file_that_it_names_exists():
    assert len(files(TEXT)) > 60
    assert [name for name in files(TEXT) if not (FOLDER / name).exists()] == []


def test_every_function_that_it_names_is_in_its_file():
    found = re.findall(r"`(\w+)` in\s+\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert len(found) > 30
    for name, path in found:
        assert re.search(rf"^def {name}\(", (FOLDER / path).read_text(), re.M), (name, path)


def test_every_figure_has_the_file_of_its_number():
    shown = {str(number) for _, _, numbers in SECTIONS for number in numbers}
    assert rows("Figures").keys() == shown == {str(number) for number in range(1, 12)}
    for number, text in rows("Figures").items():
        assert f"figures/figure_{int(number):02}.py" in files(text)


def test_every_table_is_mapped():
    shown = {str(number) for _, numbers, _ in SECTIONS for number in numbers}
    assert shown <= rows("Tables").keys()
    assert all(files(text) for text in rows("Tables").values())


def test_every_claim_has_the_function_that_tests_it():
    assert rows("Claims").keys() == {f"`{claim.key}`" for claim in CLAIMS}
    for claim in CLAIMS:
        row, function = rows("Claims")[f"`{claim.key}`"], claim.parts
        assert claim.statement in row and f"`{function.__qualname__.split('.')[0]}`" in row
        assert files(row) == [f"claims/{function.__module__.split('.')[-1]}.py"]


def test_every_folder_is_named():
    folders = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert folders == {name.strip("/") for name in re.findall(r"\[(\w+/)\]", TEXT)}
