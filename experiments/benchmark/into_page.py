"""Write the table of a preset into a page, between two comments."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from experiments.study.grid import Grid

SHOWN = (0, 1, 2, 3, 4, 7, 8)  # the columns of the table that a page has room for


def write_into(path: pathlib.Path, preset: str, table: Grid, made_with: Mapping[str, Any]) -> None:
    """Replace what stands between `<!-- table PRESET -->` and `<!-- end -->`.

    Raises:
      ValueError: the page has no such comments.
    """
    text = path.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- table {preset} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not block.search(text):
        raise ValueError(
            f"{path} has no lines <!-- table {preset} --> and <!-- end -->, between which the "
            "table would stand."
        )
    shown = [i for i in SHOWN if any(row[i] for row in table.rows)]
    few = Grid(
        [table.heads[i] for i in shown], [[row[i] for i in shown] for row in table.rows], (), "", 2
    )
    words = f"{_sentence(made_with)}\n\n{few.markdown()}"
    path.write_text(block.sub(lambda m: f"{m[1]}{words}{m[2]}", text), encoding="utf-8")


def _sentence(made_with: Mapping[str, Any]) -> str:
    machine = made_with.get("machine") or made_with.get("machine 1", {})
    named = ", ".join(
        f"{machine[name]}{words}"
        for name, words in (("processor", ""), ("cores", " cores"), ("memory", ""))
        if name in machine
    )
    sides = "; ".join(f"{made_with[side]}" for side in ("jax", "torch") if side in made_with)
    more = " (several machines: see the report)" if "machine 2" in made_with else ""
    commit = made_with.get("commit") or "unknown"
    return f"Measured on {named or 'an unknown machine'}{more}, commit {commit}; {sides}."
