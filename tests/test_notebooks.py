"""The notebooks run from top to bottom, are thin, and are committed without output."""

import ast
import importlib
import inspect
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time
import types
from typing import NamedTuple

import pytest
import real_commands

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
inputtransformer2 = pytest.importorskip("IPython.core.inputtransformer2")

ROOT = pathlib.Path(__file__).parents[1]
TIME_LIMIT = 180  # seconds for a whole notebook
LONGEST_CELL = 25  # lines


class Expected(NamedTuple):
    """What a notebook holds."""

    figures: int
    sliders: int
    longest_definition: int = 3  # lines


NOTEBOOKS = {
    "quickstart": Expected(figures=3, sliders=4),
    "explore_minima": Expected(figures=5, sliders=13),
    # It shows how training steps are written.
    "sam_in_your_project": Expected(figures=2, sliders=2, longest_definition=6),
}
PATHS = [ROOT / "colab" / f"{name}.ipynb" for name in NOTEBOOKS]

notebooks = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


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


def parsed(cell):
    return ast.parse(inputtransformer2.TransformerManager().transform_cell(cell.source))


def logic_of_its_own(notebook, longest_definition):
    """The definitions and cells that are too long for a driver of the library."""
    found = []
    for cell in code_cells(notebook):
        if len(cell.source.splitlines()) > LONGEST_CELL:
            found.append(cell.source.splitlines()[0])
        for node in ast.walk(parsed(cell)):
            if isinstance(node, ast.ClassDef) or (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.end_lineno - node.lineno + 1 > longest_definition
            ):
                found.append(node.name)
    return found


def imported(node):
    """The names that an import statement binds, with the modules and objects behind them."""
    if isinstance(node, ast.ImportFrom):
        module = importlib.import_module(node.module)
        for alias in node.names:
            if not hasattr(module, alias.name):
                importlib.import_module(f"{node.module}.{alias.name}")
        return {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    found = {}
    for alias in node.names:
        module, top = importlib.import_module(alias.name), alias.name.split(".")[0]
        found |= {alias.asname: module} if alias.asname else {top: sys.modules[top]}
    return found


def behind(node, names):
    """The object that `a.b.c` means, None where `a` is no import or the chain leaves modules."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    parent = behind(node.value, names) if isinstance(node, ast.Attribute) else None
    return getattr(parent, node.attr) if isinstance(parent, types.ModuleType) else None


def wrong_calls(notebook):
    """What a notebook imports, names or passes that does not exist."""
    names, wrong = {}, []
    cells = code_cells(notebook)
    nodes = [node for cell in cells for node in ast.walk(parsed(cell))]
    for node in nodes:
        try:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names |= imported(node)
        except ImportError as error:
            wrong.append(str(error))
    for node in nodes:
        try:
            if isinstance(node, ast.Attribute):
                behind(node, names)
            elif isinstance(node, ast.Call) and (called := behind(node.func, names)):
                positional = [a for a in node.args if not isinstance(a, ast.Starred)]
                keywords = {k.arg: None for k in node.keywords if k.arg}
                inspect.signature(called).bind_partial(*positional, **keywords)
        except (AttributeError, TypeError) as error:
            wrong.append(f"{ast.unparse(node)}: {error}")
        except ValueError:  # a builtin without a signature
            continue
    return wrong


@pytest.mark.e2e
@notebooks
def test_runs_in_a_clone_and_shows_its_figures(path, execute):
    start = time.perf_counter()
    notebook = execute(read(path), ROOT / "colab")
    assert time.perf_counter() - start < TIME_LIMIT
    assert without_figure(notebook) == []
    shown = [data for cell in code_cells(notebook) for data in outputs(cell)]
    assert sum("image/png" in data for data in shown) == NOTEBOOKS[path.stem].figures
    assert all(cell.execution_count for cell in code_cells(notebook))


@notebooks
def test_is_committed_without_output(path):
    assert traces_of_execution(read(path)) == []


def test_the_table_names_every_notebook():
    assert sorted(PATHS) == sorted((ROOT / "colab").glob("*.ipynb"))


@notebooks
def test_is_a_thin_driver(path):
    assert logic_of_its_own(read(path), NOTEBOOKS[path.stem].longest_definition) == []


@notebooks
def test_every_call_exists(path):
    assert wrong_calls(read(path)) == []


@notebooks
def test_links_lead_to_files(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert targets and [t for t in targets if not (path.parent / t).is_file()] == []


def test_a_wrong_call_is_found():
    wrong = wrong_calls(
        notebook_of(
            "import sam_jax\nfrom sam_jax import metrics, plotting\nimport sam_jax.nothing",
            "sam_jax.sam(rho=0.1)\nmetrics.flatness(1)\nplotting.styles([], 1)",
            "metrics.split_batches(examples, m=3)\nsam_jax.sam(radius=0.1)",
        )
    )
    assert [text.split(":")[0] for text in wrong] == [
        "No module named 'sam_jax.nothing'",
        "metrics.flatness(1)",
        "plotting.styles([], 1)",
        "metrics.flatness",
        "sam_jax.sam(radius=0.1)",
    ]


@notebooks
def test_has_its_sliders_within_their_ranges(path):
    form = r"^\w+ = (\S+)  # @param \{type: \"slider\", min: (\S+), max: (\S+), step: (\S+)\}$"
    sources = "\n".join(cell.source for cell in code_cells(read(path)))
    sliders = re.findall(form, sources, re.M)
    assert len(sliders) == sources.count("slider") == NOTEBOOKS[path.stem].sliders
    for value, low, high, step in (map(float, slider) for slider in sliders):
        assert low <= value <= high
        assert round((value - low) / step, 6) % 1 == 0


def test_all_begin_with_the_same_cell():
    first = {code_cells(read(path))[0].source for path in PATHS}
    assert len(first) == 1 and "%pip install" in first.pop()


@pytest.mark.e2e
def test_says_what_to_do_outside_a_clone(execute, tmp_path):
    setup = notebook_of(code_cells(read(PATHS[0]))[0].source)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="Set REPOSITORY"):
        execute(setup, tmp_path)


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("git") is None, reason="cloning needs git")
def test_clones_the_repository_once(execute, tmp_path):
    remote, folder = tmp_path / "remote", tmp_path / "content"
    (remote / "configs").mkdir(parents=True)
    folder.mkdir()
    (remote / "configs/digits.py").write_text("NAME = 'cloned'\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "message"]):
        subprocess.run(["git", *arguments], cwd=remote, check=True)

    source = code_cells(read(PATHS[0]))[0].source
    install = '%pip install --quiet --editable ".[lab]" "jax{extra}"'
    assert install in source and 'REPOSITORY = ""' in source
    setup = source.replace(install, "print('installs jax' + extra, pathlib.Path.cwd().name)")
    setup = setup.replace('REPOSITORY = ""', f'REPOSITORY = "file://{remote}"')
    # As on a TPU: JAX is installed together with the plugin that is there.
    setup = setup.replace("if importlib.util.find_spec(name)", "if name == 'libtpu'")
    check = "from configs import digits\nprint(digits.NAME)"
    first, second, last = execute(notebook_of(setup, setup, check), folder).cells
    assert text_of(first).splitlines()[-1] == "installs jax[tpu] repository"
    assert text_of(second) == ""  # running the cell again does nothing
    assert text_of(last) == "cloned\n"
    assert [child.name for child in folder.iterdir()] == ["repository"]
