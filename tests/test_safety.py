"""Files, names and values are data: none is run, shown as a tag, or leads out of its folder."""

import ast
import html.parser
import json
import pathlib
import re
import types
import xml.etree.ElementTree

import ml_collections
import numpy as np
import pytest

from sam_jax.folder_names import check_folder_name
from sam_jax.runs import records, workdirs

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = [
    path
    for folder in ("sam_jax", "experiments", "configs", "colab")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

# --- the source ---------------------------------------------------------------------------------

# Modules that make objects of what a file says.
RUNS_DATA = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"),
    *("jsonpickle", "code", "codeop", "runpy", "xmlrpc"),
}
EXCEPTIONS = {
    # The published batches of CIFAR are pickles. The subclass of Unpickler makes bytes and plain
    # values only, see tests/data/test_raw_files.py.
    ("sam_jax/data/raw_cifar.py", "import pickle"),
    # submitit pickles the function of a job and its result, in the study's own folder `jobs`. Who
    # can write there can write the code that the jobs import from the working directory just as
    # well: no file comes from elsewhere, and nobody is given it to open.
    ("experiments/study/launcher.py", "import submitit"),
    # A config is a Python file that the user names.
    ("sam_jax/runs/config_flag.py", "import runpy"),
    # The console commands run modules of the package, or of the checkout that the user stands in,
    # by the name on the command line, as `python -m` does.
    ("sam_jax/commands.py", "import runpy"),
}


def name_of(node):
    """Return the dotted name of what is called, "" where it is an expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = name_of(node.value)
        return f"{base}.{node.attr}" if base else f"?.{node.attr}"
    return ""


def is_true(node):
    return not (isinstance(node, ast.Constant) and not node.value)


def faults_of_call(call):
    """Yield what a call does that data must not reach."""
    name = name_of(call.func)
    last = name.rsplit(".", 1)[-1]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in ("eval", "exec", "compile", "__import__"):
        yield f"{name}()"
    if "allow_pickle" in given and is_true(given["allow_pickle"]):
        yield "allow_pickle"
    if last == "read_pickle" or last == "to_pickle":
        yield last
    if last in ("load", "load_all", "unsafe_load", "full_load") and "yaml" in name.lower():
        yield f"{name}()"
    if name.endswith("torch.load") and not is_true(given.get("weights_only", ast.Constant(False))):
        yield "torch.load"
    if "shell" in given and is_true(given["shell"]):
        yield "shell=True"
    if name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
        yield name
    # Members of an archive may lead out of the folder; zipfile takes that away itself.
    if last in ("extractall", "extract") and "filter" not in given:
        yield f"{last} without a filter"
    if last == "unpack_archive" and "filter" not in given:
        yield f"{last} without a filter"
    if last in ("Environment", "Template") and "jinja2" in name:
        if not (last == "Environment" and is_true(given.get("autoescape", ast.Constant(False)))):
            yield f"{name} without autoescape"


def faults(source):
    """Yield what a file does that makes code of data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (
            f"import {name}"
            for name in names
            if name.split(".")[0] in RUNS_DATA or name == "submitit"
        )
        if isinstance(node, ast.Call):
            yield from faults_of_call(node)


def test_no_source_makes_code_of_data():
    found = {
        (path.relative_to(ROOT).as_posix(), fault)
        for path in SOURCES
        for fault in faults(path.read_text())
    }
    assert found == EXCEPTIONS
    assert len(SOURCES) > 200


def test_templates_show_nothing_as_it_is():
    folders = (ROOT / "experiments", ROOT / "sam_jax")
    templates = [path for folder in folders for path in sorted(folder.rglob("*.j2"))]
    assert len({path.is_relative_to(folders[1]) for path in templates}) == 2
    for path in templates:
        text = path.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape\s+false", text), path
    # What is marked as HTML is a constant text, whose places escape what they are filled with.
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and name_of(node.func).endswith("Markup"):
                assert all(isinstance(argument, ast.Constant) for argument in node.args), path


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from cloudpickle import dumps", "import marshal as m", "import shelve"),
        *("eval(x)", "exec('1')", "compile(x, '', 'exec')", "__import__(x)", "os.system(x)"),
        *("np.load(f, allow_pickle=True)", "pd.read_pickle(f)", "yaml.load(f)", "torch.load(f)"),
        *("subprocess.run(x, shell=True)", "subprocess.run(x, shell=flag)", "tar.extractall(f)"),
        *("tarfile.open(f).extract(m)", "shutil.unpack_archive(f)", "jinja2.Template(x)"),
        *("jinja2.Environment()", "jinja2.Environment(autoescape=False)"),
    ],
)
def test_the_search_finds(source):
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    [
        *("np.load(f)", "np.savez(f, allow_pickle=False)", "json.load(f)", "yaml.safe_load(f)"),
        *("subprocess.run([x], shell=False)", "tar.extractall(f, filter='data')", "model.eval()"),
        *("re.compile(x)", "jax.jit(f).lower().compile()", "torch.load(f, weights_only=True)"),
    ],
)
def test_the_search_lets_pass(source):
    assert not list(faults(source))


# --- configs and records ------------------------------------------------------------------------

CODE = [
    "__import__('os').mknod({victim!r})",
    "!!python/object/apply:os.mknod [{victim!r}]",
    "{{{{ cycler.__init__.__globals__.os.mknod({victim!r}) }}}}",
    "${{oc.env:HOME}} $(touch {victim}) `touch {victim}` %(asctime)s {{0.__class__}}",
]


def test_values_of_a_config_and_of_records_are_text(tmp_path):
    victim = tmp_path / "victim"
    texts = [text.format(victim=str(victim)) for text in CODE]
    config = {"name": texts[0], "more": {"<b>": texts[2], "list": texts}}
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config))
    found = workdirs.read_config(run)
    assert workdirs.plain(found) == config
    assert isinstance(found, ml_collections.ConfigDict)
    (run / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="Differing keys.*__import__"):
        workdirs.claim(run, ml_collections.ConfigDict({"name": "other"}))
    path = tmp_path / "records.jsonl"
    records.append(path, {"measure": texts[0], texts[1]: texts})
    (record,) = records.read(path)
    assert record["measure"] == texts[0] and record[texts[1]] == texts
    assert not victim.exists()


# --- pages --------------------------------------------------------------------------------------

SCRIPTS = [
    *(ROOT / "sam_jax/plotting/templates" / name for name in ("tables.js", "plotting_library.js")),
    ROOT / "experiments/study/templates/page.js",
]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'> {{ 7 * 7 }} & | `x`"


class Elements(html.parser.HTMLParser):
    """Notes the elements of a page, their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.names, self.attributes, self.text, self.scripts = set(), [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts.append(data.strip())
        else:
            self.text += data


def assert_shown_as_text(page):
    elements = Elements(page)
    # The page's own script, the library of its surfaces, and their numbers; no other runs.
    types = [value for name, value in elements.attributes if name == "type"]
    own = "\n".join(['"use strict";', *(path.read_text().strip() for path in SCRIPTS)])
    data = len([kind for kind in types if kind in ("application/json", "text/plain")])
    assert elements.scripts[-1:] == [own] and len(elements.scripts) == 1 + data
    assert not elements.names & {"iframe", "object", "embed", "link", "form"}
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert ("src", "x") not in elements.attributes
    assert HOSTILE in elements.text
    return elements


def test_a_report_shows_names_and_values_as_they_are(tmp_path):
    pytest.importorskip("jinja2")
    from experiments.study import figures, grid, pages, provenance, surfaces
    from sam_jax import plotting
    from sam_jax.metrics.landscape.grids import LossPlane

    drawn, (axes,) = plotting.small_multiples(1, 1)
    axes.plot([0, 1], [0, 1], label=HOSTILE)
    axes.set_title(HOSTILE, fontsize=3)
    axes.legend(fontsize=3)
    best = grid.Marked(HOSTILE, "best")
    table = grid.Grid([HOSTILE] * 2, [[HOSTILE, best]], [HOSTILE] * 2, caption=HOSTILE)
    linked = pages.write_table(tmp_path, "table", "a,b\n", table)
    figure = figures.ReportFigure(HOSTILE, "figure", HOSTILE, drawn)
    plane = LossPlane(np.ones((2, 2)), np.arange(2.0), np.arange(2.0))
    path = surfaces.Path(np.ones((2, 2)), {HOSTILE: (0.0, 0.0)})
    names = {HOSTILE: plane}
    turned = surfaces.Surfaces(HOSTILE, "turned", HOSTILE, names, HOSTILE, {HOSTILE: path})
    section = pages.Section(HOSTILE, [HOSTILE], [linked], [figure], [turned])
    made_by = provenance.Provenance(
        HOSTILE,
        [provenance.Comparison(HOSTILE, [provenance.Change(HOSTILE, HOSTILE, HOSTILE)])],
        [provenance.Records(HOSTILE, [(HOSTILE, "records.jsonl")])],
    )
    settings = {HOSTILE: {HOSTILE: [HOSTILE]}, "note": HOSTILE, provenance.KEY: made_by}
    opening = pages.Opening([HOSTILE], [linked])
    page = pages.write_report(tmp_path, HOSTILE, [HOSTILE], [section], settings, opening=opening)
    elements = assert_shown_as_text(page.read_text())
    # In the title, the contents, what was found, the verdicts, the introduction, the section, the
    # table, the figures, the command, the changes, the records, the settings.
    assert elements.text.count(HOSTILE) >= 30
    (shown,) = [json.loads(text) for text in elements.scripts if text.startswith("{")]
    assert shown["planes"][0]["name"] == shown["planes"][0]["landmarks"][0][0] == HOSTILE
    for words in ("alt", "aria-label"):
        texts = [value for name, value in elements.attributes if name == words]
        assert HOSTILE in texts[-1] if words == "alt" else f"{HOSTILE}: {HOSTILE}" in texts
    # Where Markdown is made into HTML it keeps tags.
    assert not Elements((tmp_path / "tables" / "table.md").read_text()).names
    svg = xml.etree.ElementTree.parse(tmp_path / "figures" / "figure.svg")
    names = {element.tag.rsplit("}", 1)[-1] for element in svg.iter()}
    assert "script" not in names and "img" not in names
    with pytest.raises(AssertionError):  # the negative control
        assert_shown_as_text(f"<p>{HOSTILE}</p>")


# --- folders ------------------------------------------------------------------------------------

OUTSIDE = [
    *("", ".", "..", "../x", "a/../../x", "/abs", "C:x", "a\n", " "),
    *("a/b", "a\\..", "~/x/y/z"),
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_of_folders_stay_inside(name, tmp_path):
    pytest.importorskip("pandas")
    from experiments.sam_paper.settings import Setting
    from experiments.study.arms import arm_folder, seed_folder
    from sam_jax.data import prepared

    arm = types.SimpleNamespace(name=name)
    with pytest.raises(ValueError, match="name of an arm is the name of a folder"):
        seed_folder(tmp_path, arm, 0)
    if name != "a/b":
        with pytest.raises(ValueError, match="name of a data set is the name of a folder"):
            prepared.locate(name, tmp_path)
    wanted = tmp_path / "models" / "sam_rho0.1"
    assert arm_folder(tmp_path, Setting("sam_rho0.1")).parent == wanted.parent


def test_a_label_or_a_setting_of_a_config_names_a_folder_inside(tmp_path):
    pytest.importorskip("pandas")
    from experiments.sam_paper.settings import Setting
    from experiments.study.arms import arm_folder
    from experiments.variants.methods import Method

    models = (tmp_path / "models").resolve()
    for label in ("../../x", "/abs/x", "<script>", "a\\..\\..\\x", "über ρ = 0.1", "a" * 100):
        folder = arm_folder(tmp_path, Method(label, "none", ())).resolve()
        assert folder.parent == models
    for label in ("..", "", "/", "<>"):
        with pytest.raises(ValueError, match="name of a folder"):
            arm_folder(tmp_path, Method(label, "none", ()))
    for augmentation in ("../../x", "/abs/x", "a/b"):
        with pytest.raises(ValueError, match="name of a folder"):
            arm_folder(tmp_path, Setting(augmentation))


def test_plain_names_pass():
    for name in ("sgd_128", "sam_rho0.1", "a..b", "..a", "a b", "é"):
        assert check_folder_name("an arm", name) == name
    assert check_folder_name("a set", "imagenet_resized/32x32", most=2)
    with pytest.raises(ValueError, match="at most 2 plain names"):
        check_folder_name("a set", "a/b/c", most=2)
