"""The pages of the public names: one a room, built from the docstrings, with readable formulas."""

import ast
import os
import re
import subprocess
import sys

import pytest
from real_commands import ROOT, environment

pytestmark = pytest.mark.commands


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the texts of the pages, by module."""
    folder = tmp_path_factory.mktemp("pages")
    command = [sys.executable, str(ROOT / ".ci/api_pages.py"), str(folder)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, cwd=folder, env=environment() | {"PYTHONPATH": path})
    assert (folder / "index.html").is_file() and (folder / "search.js").is_file()
    return {
        ".".join(page.relative_to(folder).with_suffix("").parts): page.read_text()
        for page in folder.rglob("*.html")
    }


def public_names():
    """The names that the rooms export, by the statements of their files."""
    names = {}
    for path in [ROOT / "sam_jax/__init__.py", *sorted(ROOT.glob("sam_jax/*/__init__.py"))]:
        room = ".".join(path.relative_to(ROOT).parent.parts)
        statements = ast.parse(path.read_text()).body
        imported = [a.asname for s in statements if isinstance(s, ast.ImportFrom) for a in s.names]
        names[room] = {name for name in imported if name} - {"metrics", "moved", "__version__"}
    return names


def test_every_public_name_is_on_the_page_of_its_room(pages):
    for room, names in public_names().items():
        assert {name for name in names if f'<section id="{name}">' not in pages[room]} == set()
    assert '<section id="nothing">' not in pages["sam_jax.optim"]


def test_rooms_without_names_have_a_page_a_module(pages):
    assert {"sam_jax.training.train_and_evaluate", "sam_jax.paths.find_curve"} <= set(pages)
    assert not any(page.startswith("sam_jax.optim.") for page in pages)


def test_formulas_are_whole(pages):
    text = "".join(pages.values())
    docstrings = "".join(re.findall(r'<div class="docstring">(.*?)</div>', text, re.S))
    formulas = re.findall(r"\$\$(.+?)\$\$", docstrings, re.S)
    assert len(formulas) > 50
    # Of a line that begins with + or -, Markdown makes a list.
    assert [f for f in formulas if re.search(r"</?\w+>", f)] == []
    assert ".. math::" not in docstrings
