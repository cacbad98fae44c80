"""The README of the data sets says what the code says."""

import pathlib
import re

import pytest
from test_readme import commands, faults, fenced, missing_names, run_python

from sam_jax import data
from sam_jax.data import augmentation
from sam_jax.data.channel_statistics import ChannelStatistics
from sam_jax.data.streaming import BLOCK_BYTES, STREAMING, UNKNOWN_DEVICE_LIMIT

TEXT = pathlib.Path(data.__file__).with_name("README.md").read_text()


def rows(head):
    """The rows of the table whose head begins so."""
    (table,) = re.findall(rf"^\| {re.escape(head)} .*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in table.splitlines()]


def names(head):
    """The names in the first column of a table."""
    return [name for row in rows(head) for name in re.findall(r"`(\w+)`", row[0])]


def test_the_table_of_sets_is_that_of_the_sources():
    assert rows("name | images") == [
        [
            f"`{source.name}`",
            " x ".join(map(str, source.image_shape)),
            str(source.num_classes),
            ", ".join(f"`{name}`" for name in source.augmentations),
            str(source.pad),
            str(source.cutout_size),
        ]
        for source in data.SOURCES.values()
    ]


def test_the_tables_name_every_choice_and_field():
    assert names("name | does") == list(augmentation.AUGMENTATIONS)
    assert set(names("value")) == set(STREAMING)
    assert names("field") == list(ChannelStatistics._fields)
    assert f"{UNKNOWN_DEVICE_LIMIT // 2**30} GiB" in TEXT
    assert f"{BLOCK_BYTES // 2**20} MiB" in TEXT


@pytest.mark.parametrize("arguments", commands(TEXT), ids=" ".join)
def test_commands_exist(arguments):
    assert faults(arguments) == []


@pytest.mark.parametrize("block", fenced(TEXT, "python"))
def test_the_program_runs(block):
    run_python(block)


def test_names_exist():
    assert missing_names(TEXT) == []  # tests/test_readme.py follows the links of all pages
