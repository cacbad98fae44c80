"""The pages say what is so: their code runs, and their commands, links and fields exist."""

import contextlib
import importlib
import importlib.util
import inspect
import io
import pathlib
import re
import runpy
import shlex

import pytest

import sam_jax
from sam_jax import optim

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(ROOT.glob("sam_jax/*/README.md")),
        *sorted(ROOT.glob("experiments/**/*.md")),
    )
}
METHODS = "sam_jax/optim/README.md"
FIRST_COMMANDS = [
    'pip install -e ".[lab]" && python -m experiments.even_better'
    " --config=configs/even_better/digits.py --workdir=runs/digits",
    'pip install -e ".[test]" && python -m pytest',
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fenced(text, *languages):
    """The fenced blocks in one of these languages."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def spans(text):
    """The inline code, where a line break counts as a space."""
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def commands(text):
    """The arguments after `python -m`, of every such command in a shell block or inline."""
    shell = "\n".join(fenced(text, "sh", "bash")).replace("\\\n", " ").splitlines()
    simple = [part.strip() for line in [*shell, *spans(text)] for part in line.split("&&")]
    modules = [part.removeprefix("python -m ") for part in simple if part.startswith("python -m ")]
    return [shlex.split(arguments, comments=True) for arguments in modules]


def run_python(block):
    """Run a block in a namespace of its own; a number in a comment after print is its output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    for promised in re.findall(r"^print\(.*\)  # ([-+.\d ]+)$", block, re.MULTILINE):
        assert promised in output.getvalue()


def headings(text):
    """The names by which links reach the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def missing_targets(page, text):
    """The relative targets of the links and pictures of a page that do not exist."""
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not path.exists() or (heading and heading not in headings(path.read_text())):
            missing.append(target)
    return missing


def missing_files(tree):
    """The entries of a listing, indented by two spaces a folder, that do not exist."""
    folders, missing = [ROOT], []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        path = folders[depth] / line.split()[0]
        folders[depth + 1 :] = [path]
        if not path.exists():
            missing.append(str(path.relative_to(ROOT)))
    return missing


def field_exists(config, dotted):
    """Whether a config has the field `a.b.c`."""
    for name in dotted.split("."):
        if name not in config:
            return False
        config = config[name]
    return True


def source_of(module):
    """The file that `python -m module` runs, None where there is none."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{module}.__main__")
    except ModuleNotFoundError:
        return None
    return None if spec is None else pathlib.Path(spec.origin)


def faults(arguments):
    """What does not exist in a command: its module, config file, config fields or flags."""
    module, *flags = arguments
    source = source_of(module)
    if source is None:
        return [module]
    found, config, text = [], None, source.read_text()
    shared_flags = r"from (experiments\.[\w.]*command|sam_jax\.runs\.flags) import"
    waiting = re.findall(shared_flags, text)
    while waiting:  # what defines the flags of several commands
        more = source_of(waiting.pop()).read_text()
        waiting += re.findall(shared_flags, more)
        text += more
    if module == "pytest":
        text += (ROOT / "tests/conftest.py").read_text()
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name == "config":
            path, _, variant = value.partition(":")
            if not (ROOT / path).is_file():
                return [path]
            config = runpy.run_path(str(ROOT / path))["get_config"](variant)
        elif name.startswith("config."):
            if config is None or not field_exists(config, name.removeprefix("config.")):
                found.append(name)
        elif flag.startswith("--") and not re.search(rf'"(--)?{name}"', text):
            found.append(flag)
    return found


def is_module(dotted):
    """Whether a dotted name is that of a module."""
    try:
        return importlib.util.find_spec(dotted) is not None
    except ModuleNotFoundError:
        return False


def missing_names(text):
    """The inline `config.a.b`, `sam_jax.x`, `metrics.x` and `optax.x` that do not exist."""
    base = runpy.run_path(str(ROOT / "configs/digits.py"))["get_config"]()
    modules = {"sam_jax": "sam_jax", "metrics": "sam_jax.metrics", "optax": "optax"}
    missing = []
    for span in spans(text):
        if re.fullmatch(r"config(\.\w+){2,}", span):
            exists = field_exists(base, span.removeprefix("config."))
        elif match := re.match(r"(sam_jax|metrics|optax)\.(?!jsonl?\b|py\b)(\w+)", span):
            module = modules[match[1]]
            submodule = re.sub(r"^\w+", module, re.match(r"[\w.]+", span).group())
            exists = hasattr(importlib.import_module(module), match[2]) or is_module(submodule)
            parent, _, last = submodule.rpartition(".")
            if not exists and is_module(parent):
                exists = hasattr(importlib.import_module(parent), last)
        else:
            continue
        missing += [] if exists else [span]
    return missing


def test_first_two_commands_are_the_ones_that_are_tested():
    blocks = fenced(README, "sh", "bash")
    assert [block.strip() for block in blocks[:2]] == FIRST_COMMANDS


def test_continuous_integration_runs_the_test_command():
    script = (ROOT / ".ci/run").read_text().replace("pip install -q ", "pip install ")
    assert FIRST_COMMANDS[1] in script.splitlines()


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{page} {number}")
        for page, text in PAGES.items()
        for number, block in enumerate(fenced(text, "python"))
    ],
)
def test_python_blocks_run_each_on_its_own(block):
    run_python(block)


@pytest.mark.parametrize("page", PAGES)
def test_links_files_and_names_exist(page):
    text = PAGES[page]
    assert missing_targets(page, text) == []
    assert missing_names(text) == []
    for tree in fenced(text, ""):
        assert missing_files(tree) == []


def test_a_missing_target_is_found():
    assert missing_targets("README.md", "[a](nowhere.md) [b](README.md#install)") == ["nowhere.md"]
    assert missing_targets(METHODS, "[c](#nothing) [d](../../README.md)") == ["#nothing"]


def test_the_front_page_is_one():
    assert len(README.splitlines()) <= 160
    linked = re.findall(r"\]\(([^)\s#]+)", README)
    rooms = [page for page in PAGES if page.count("/") == 2 and page.startswith("sam_jax")]
    assert {*rooms, "experiments/README.md", "CONTRIBUTING.md"} <= set(linked)


def table_calls(text):
    """Return the calls in the first column of the table of methods: name -> argument names."""
    rows = re.search(r"^\| \| gradients .*?\n\n", text, re.MULTILINE | re.DOTALL).group()
    first_column = " ".join(row.split("|")[1] for row in rows.strip().splitlines()[2:])
    calls = re.findall(r"`(\w+)(?:\(([^)]*)\))?`", first_column)
    return {name: [a.strip() for a in arguments.split(",") if a] for name, arguments in calls}


def wrong_calls(text):
    """Return what the table of methods names wrongly or leaves out."""
    calls = table_calls(text)
    signatures = {n: inspect.signature(getattr(sam_jax, n, lambda: None)).parameters for n in calls}
    wrong = [f"{n}({a})" for n, names in calls.items() for a in names if a not in signatures[n]]
    methods = {n for n in vars(optim.methods) if callable(getattr(optim, n, None))}
    averages = {"m_sam", "swa", "weight_ema"}
    return wrong + sorted((methods | averages) - set(calls) - {"norm_layers"})


def test_the_table_of_methods_names_every_method_and_its_arguments():
    # "m_sam(method, m)" is how the table speaks of what m_sam wraps.
    text = PAGES[METHODS]
    assert wrong_calls(text) == ["m_sam(method)"]
    misspelt = wrong_calls(text.replace("`vasso(rho, theta)`", "`vasso(rho, phi)`, `sa(rho)`"))
    assert set(misspelt) == {"m_sam(method)", "vasso(phi)", "sa(rho)"}
    assert "vasso" in wrong_calls(text.replace("`vasso(rho, theta)`", ""))


@pytest.mark.parametrize(
    "arguments", [a for text in PAGES.values() for a in commands(text)], ids=" ".join
)
def test_commands_exist(arguments):
    assert faults(arguments) == []


def test_the_readme_holds_what_the_tests_look_for():
    assert {arguments[0] for arguments in commands(README)} >= {
        "experiments.even_better",
        "pytest",
        "sam_jax.evaluate",
        "sam_jax.train",
    }
    assert any(flag.startswith("--config.") for a in commands(README) for flag in a)
    assert len(fenced(README, "")) == 1
