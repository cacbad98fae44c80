"""The notebooks run from top to bottom, are thin, and are committed without output."""

import ast
import json
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
import real_commands

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
inputtransformer2 = pytest.importorskip("IPython.core.inputtransformer2")

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
TIME_LIMIT = 180  # seconds for a whole notebook
LONGEST_DEFINITION = 3  # lines
LONGEST_CELL = 25  # lines

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Execute a notebook in a folder, in this interpreter and with no trace outside tmp_path."""
    kernel = tmp_path / "jupyter/kernels/python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "Python 3", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    (tmp_path / "temporary").mkdir()
    environment = real_commands.environment()
    environment.pop("PYTHONPATH", None)  # a user has not this path
    environment |= {
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "TMPDIR": str(tmp_path / "temporary"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(notebook, folder):
        client = nbclient.NotebookClient(
            notebook,
            timeout=TIME_LIMIT,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env=environment)
        return notebook

    return run


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def notebook_of(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(cell):
    """The data that a cell displays, by media type."""
    return [output["data"] for output in cell.outputs if "data" in output]


def text_of(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def without_figure(notebook):
    """The cells that end with a figure and do not show it, by number of the code cell."""
    return [
        number
        for number, cell in enumerate(code_cells(notebook))
        if cell.source.splitlines()[-1] == "figure"
        and not any(len(data.get("image/png", "")) > 1000 for data in outputs(cell))
    ]


def traces_of_execution(notebook):
    """What an execution or an editor leaves in a notebook."""
    traces = [name for name in notebook.metadata if name not in ("kernelspec", "language_info")]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        traces.append("kernelspec")
    for cell in notebook.cells:
        traces += list(cell.metadata)
        if cell.cell_type == "code":
            traces += ["output"] * len(cell.outputs)
            traces += [] if cell.execution_count is None else ["execution_count"]
    return traces


def logic_of_its_own(notebook):
    """The definitions and cells that are too long for a driver of the library."""
    found = []
    for cell in code_cells(notebook):
        python = inputtransformer2.TransformerManager().transform_cell(cell.source)
        if len(cell.source.splitlines()) > LONGEST_CELL:
            found.append(cell.source.splitlines()[0])
        for node in ast.walk(ast.parse(python)):
            if isinstance(node, ast.ClassDef) or (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.end_lineno - node.lineno + 1 > LONGEST_DEFINITION
            ):
                found.append(node.name)
    return found


@pytest.mark.e2e
@notebooks
def test_runs_in_a_clone_and_shows_its_figures(path, execute):
    start = time.perf_counter()
    notebook = execute(read(path), ROOT / "colab")
    assert time.perf_counter() - start < TIME_LIMIT
    assert without_figure(notebook) == []
    assert sum("image/png" in data for cell in code_cells(notebook) for data in outputs(cell)) >= 2
    assert all(cell.execution_count for cell in code_cells(notebook))


@notebooks
def test_is_committed_without_output(path):
    assert traces_of_execution(read(path)) == []


@notebooks
def test_is_a_thin_driver(path):
    assert logic_of_its_own(read(path)) == []


@pytest.mark.e2e
@notebooks
def test_says_what_to_do_outside_a_clone(path, execute, tmp_path):
    setup = notebook_of(code_cells(read(path))[0].source)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="Set REPOSITORY"):
        execute(setup, tmp_path)


@pytest.mark.e2e
@notebooks
@pytest.mark.skipif(shutil.which("git") is None, reason="cloning needs git")
def test_clones_the_repository_once(path, execute, tmp_path):
    remote, folder = tmp_path / "remote", tmp_path / "content"
    (remote / "configs").mkdir(parents=True)
    folder.mkdir()
    (remote / "configs/digits.py").write_text("NAME = 'cloned'\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "message"]):
        subprocess.run(["git", *arguments], cwd=remote, check=True)

    source = code_cells(read(path))[0].source
    install = '%pip install --quiet --editable ".[lab]"'
    assert install in source and 'REPOSITORY = ""' in source
    setup = source.replace(install, "print('installs in', pathlib.Path.cwd().name)")
    setup = setup.replace('REPOSITORY = ""', f'REPOSITORY = "file://{remote}"')
    check = "from configs import digits\nprint(digits.NAME)"
    first, second, last = execute(notebook_of(setup, setup, check), folder).cells
    assert text_of(first).splitlines()[-1] == "installs in repository"
    assert text_of(second) == ""  # running the cell again does nothing
    assert text_of(last) == "cloned\n"
    assert [child.name for child in folder.iterdir()] == ["repository"]
