"""Commands that are killed without warning, at any moment, end as if they were not.

`python -m pytest tests/test_killed_commands.py -m e2e --full -s` kills 30 times and says how often.
"""

import collections

import pytest
from killing import MOMENTS, Command, survive

pytestmark = pytest.mark.e2e
# Of every command: what is done in one folder after the other, of MOMENTS.
FEW = {"train": [("line", "operation", "checkpoint")], "evaluate": [("line",)]}
FULL = {
    "train": [MOMENTS, ("operation",) * 4 + ("line",), ("checkpoint", "time") * 2],
    "evaluate": [("operation", "line", "line", "signal", "operation"), ("time", "line", "line")],
    "variants": [MOMENTS, ("operation", "line", "operation")],
    "even_better": [("operation", "line", "checkpoint", "time"), ("line", "signal", "operation")],
}


@pytest.mark.parametrize("name", FULL)
def test_a_killed_command_ends_as_an_uninterrupted_one(name, full, tmp_path):
    chains = (FULL if full else FEW).get(name)
    if chains is None:
        pytest.skip("--full kills it")
    command = Command(name, tmp_path / name)
    ended = collections.Counter()
    for number, moments in enumerate(chains):
        ended.update(survive(command, f"cut_{number}", moments, seed=number))
    tried = sum(map(len, chains))
    print(f"{name}: {sum(ended.values())} of {tried} ended before their end, {dict(ended)}")
    assert sum(ended.values()) >= tried * 0.7  # others were at their end by then
