"""The fields that the README of runs names, table by table, for the tests that have records."""

import pathlib
import re

import sam_jax

PATH = pathlib.Path(sam_jax.__file__).parent / "runs/README.md"
TEXT = PATH.read_text()
EVERY = "Every record"  # the heading of what all records of evaluations.jsonl have


def tables(text, heading):
    """The tables of a section up to the next heading: column names, and rows of cells."""
    section = text.split(f"# {heading}\n")[1].split("\n#")[0]
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in line.strip()[1:-1].split("|")] for line in block.splitlines()
        ]
        found.append((head, rows))
    return found


def named(text, heading, first="field"):
    """The names in the first column of the tables that begin with this column, with their rows."""
    return {
        name: row
        for head, rows in tables(text, heading)
        for row in rows
        if head[0] == first
        for name in re.findall(r"`(\w+)`", row[0])
    }


def differences(record, text=TEXT):
    """The fields that an instrument's record and its table do not share, `EVERY` left out."""
    common = named(text, EVERY)
    own = named(text, record["measure"])
    return sorted((record.keys() - common.keys()) ^ own.keys())
