"""The methods' guide says what is so: its defaults are those of the signatures.

Every row of its table of combinations has the test that it names.
"""

import inspect
import pathlib
import re

from test_readme import spans

import sam_jax
from sam_jax import optim

ROOT = pathlib.Path(__file__).parents[2]
GUIDE = ROOT / "sam_jax/optim/README.md"
TEXT = GUIDE.read_text()
OWN_TESTS = ("test_combinations.py", "test_combinations_of_steps.py")


def section(text, title):
    """The text under a heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def rows(text):
    """The cells of every row of the first table in a text, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names_of_tests(path):
    """The test functions of a file."""
    return set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))


def wrong_rows(text, existing, own):
    """What is wrong between a table of combinations and the tests: rows without one, and more."""
    named = [row[-1].strip("`") for row in rows(section(text, "Combinations"))]
    wrong = [f"no test: {name}" for name in named if name not in existing]
    wrong += [f"twice: {name}" for name in set(named) if named.count(name) > 1]
    return wrong + [f"no row: {name}" for name in sorted(own - set(named))]


def wrong_defaults(text):
    """The calls `method(argument=number)` whose number is not the default of the signature."""
    wrong = []
    for span in spans(text):
        if not (match := re.fullmatch(r"(\w+)\((\w+=[-\d.]+(?:, \w+=[-\d.]+)*)\)", span)):
            continue
        parameters = inspect.signature(getattr(sam_jax, match[1])).parameters
        for argument, value in re.findall(r"(\w+)=([-\d.]+)", match[2]):
            if argument not in parameters or parameters[argument].default != float(value):
                wrong.append(f"{match[1]}({argument}={value})")
    return wrong


def test_every_row_of_combinations_has_its_test():
    folder = pathlib.Path(__file__).parent
    existing = set().union(*(names_of_tests(path) for path in folder.glob("test_*.py")))
    own = set().union(*(names_of_tests(folder / name) for name in OWN_TESTS))
    assert wrong_rows(TEXT, existing, own) == []
    assert len(rows(section(TEXT, "Combinations"))) > 20
    # The controls: a row without a test, and a test without a row.
    assert wrong_rows(TEXT, existing - {"test_conditional_transforms"}, own) == [
        "no test: test_conditional_transforms"
    ]
    assert wrong_rows(TEXT, existing, own | {"test_x"}) == ["no row: test_x"]


def test_the_combinations_that_users_ask_for_are_there():
    words = ("lookahead", "lbfgs", "value_fn", "flatten", "MultiSteps", "schedule_free")
    words += ("apply_if_finite", "inject_hyperparams", "masked", "partition", "freeze", "ema")
    words += ("named_chain", "Muon", "skip_not_finite", "hyperparam_dtype", "scan", "scaled loss")
    assert [word for word in words if word not in section(TEXT, "Combinations")] == []


def test_defaults_are_those_of_the_signatures():
    tables = section(TEXT, "How to choose") + section(TEXT, "Defaults and where they come from")
    assert wrong_defaults(tables) == []
    assert wrong_defaults("`sam(rho=0.05)`, `vasso(rho=0.05, theta=0.9)`") == ["vasso(theta=0.9)"]
    assert len(re.findall(r"`\w+\(\w+=", tables)) > 15


def test_the_departures_name_methods():
    methods = {row[0] for row in rows(section(TEXT, "Departures from released code"))}
    names = {name for cell in methods for name in re.findall(r"`(\w+)`", cell)}
    assert len(names) > 10 and [name for name in names if not hasattr(optim, name)] == []
