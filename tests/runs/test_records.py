"""Records survive cuts, NaN and arrays."""

import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
from records_readme import TEXT, named

from sam_jax.runs import record_fields, records


def test_append_and_read(tmp_path):
    path = tmp_path / "deep" / "records.jsonl"
    assert records.read(path) == []
    records.append(path, {"loss": 0.1, "name": "é", "list": [1, 2]})
    records.append(path, {"array": jnp.arange(3), "scalar": np.float32(0.5), "count": np.int64(7)})
    assert records.read(path) == [
        {"loss": 0.1, "name": "é", "list": [1, 2]},
        {"array": [0, 1, 2], "scalar": 0.5, "count": 7},
    ]
    assert len(path.read_text().splitlines()) == 2


def test_numbers_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "records.jsonl"
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, float(np.float32(0.1))]
    records.append(path, {"values": values})
    assert [v.hex() for v in records.read(path)[0]["values"]] == [v.hex() for v in values]


def test_what_was_not_computed_stays_nan(tmp_path):
    path = tmp_path / "records.jsonl"
    records.append(path, {"a": math.nan, "b": jnp.nan, "c": [math.inf, 1.0]})
    (record,) = records.read(path)
    assert math.isnan(record["a"]) and math.isnan(record["b"]) and record["c"] == [math.inf, 1.0]


@pytest.mark.parametrize("kept", range(1, 13))
def test_a_cut_last_line_is_left_out(tmp_path, kept):
    path = tmp_path / "records.jsonl"
    records.append(path, {"epoch": 1})
    line = json.dumps({"epoch": 2})
    path.write_text(path.read_text() + line[: min(kept, len(line))])
    assert records.read(path) == [{"epoch": 1}]
    # What is appended afterwards does not grow together with it.
    records.append(path, {"epoch": 3})
    assert records.read(path) == [{"epoch": 1}, {"epoch": 3}]


def test_a_damaged_line_before_the_last_is_not_hidden(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match=r"Line 2 of .*records.jsonl is damaged: it is no JSON"):
        records.read(path)


def test_rewrite_replaces_in_one_move(tmp_path):
    path = tmp_path / "records.jsonl"
    records.append(path, {"epoch": 1})
    records.rewrite(path, [{"epoch": 5}, {"value": np.arange(2)}])
    assert records.read(path) == [{"epoch": 5}, {"value": [0, 1]}]
    with pytest.raises(TypeError):  # fails while it is written, and leaves the old ones
        records.rewrite(path, [{"epoch": 6}, {1j: 0}])
    assert records.read(path) == [{"epoch": 5}, {"value": [0, 1]}]


def test_a_line_that_was_changed_is_noticed(tmp_path):
    path = tmp_path / "records.jsonl"
    for epoch in (1, 2, 3):
        records.append(path, {"epoch": epoch, "loss": 0.125 * epoch})
    before = path.read_bytes()
    first, second, third = before.splitlines(keepends=True)
    for number, data in [
        (2, before.replace(b"0.25", b"0.27")),
        (1, second + third),  # the first is missing
        (2, first + third),
        (1, second + first + third),
        (4, before + third),  # one that nobody wrote
    ]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"Line {number} of {path} is damaged: .*sed -i"):
            records.read(path)
    # A missing last line is made again; without the checksums all lines are what they say.
    path.write_bytes(first + second)
    assert [r["epoch"] for r in records.read(path)] == [1, 2]
    records.append(path, {"epoch": 3, "loss": 0.375})
    assert path.read_bytes() == before
    records.seals_of(path).unlink()
    path.write_bytes(before.replace(b"0.25", b"0.27"))
    assert records.read(path)[1]["loss"] == 0.27


def test_a_file_from_before_checksums_is_continued(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"epoch": 1}\n{"epo')
    records.append(path, {"epoch": 2, "loss": 0.5})
    assert [r["epoch"] for r in records.read(path)] == [1, 2]
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.7"))
    with pytest.raises(ValueError, match="Line 2"):
        records.read(path)


@pytest.mark.parametrize("text", ["x\n", "12 abc\n", "0 0000000g\n", "\0" * 20 + "\n"])
def test_damaged_checksums_are_noticed(tmp_path, text):
    path = tmp_path / "records.jsonl"
    records.append(path, {"epoch": 1})
    records.seals_of(path).write_text(text)
    with pytest.raises(ValueError, match=r"records.crc32"):
        records.read(path)


def test_rewritten_records_have_their_checksums(tmp_path):
    path = tmp_path / "records.jsonl"
    records.append(path, {"epoch": 9})
    records.rewrite(path, [{"epoch": 1}, {"epoch": 2}])
    records.append(path, {"epoch": 3})
    assert [r["epoch"] for r in records.read(path)] == [1, 2, 3]
    assert len(records.seals_of(path).read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("epoch", math.nan, "epoch must be integer, got nan"),
        ("epoch", True, "epoch must be integer, got True"),
        ("epoch", None, "epoch must be integer, got None"),
        ("seed", -1, "seed must not be negative"),
        ("loss", "__import__('os').system('false')", "loss must be number, got"),
        ("test_accuracy", 1.5, r"test_accuracy must be in \[0, 1\], got 1.5"),
        ("test_top5_accuracy", -0.1, r"test_top5_accuracy must be in \[0, 1\]"),
        ("stderr", -0.1, "stderr must not be negative"),
        ("ratios", {"a": 1}, "ratios must be list"),
        ("adaptive", 1, "adaptive must be boolean"),
    ],
)
def test_a_field_of_another_kind_is_refused(tmp_path, field, value, what):
    path = tmp_path / "records.jsonl"
    path.write_text('{"epoch": 1}\n' + json.dumps({"epoch": 2} | {field: value}) + "\n")
    with pytest.raises(ValueError, match=f"Line 2 of .*records.jsonl is damaged: {what}"):
        records.read(path)


def test_kinds_are_those_of_the_readme():
    seen = set()
    for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE):
        for name, row in named(TEXT, heading).items():
            found = [k.split(" ")[0] for k in row[1].split(", ")]
            in_row = re.findall(r"`(\w+)`", row[0])
            both = len(found) == len(in_row) > 1 and not row[1].startswith("list")
            wanted = found[in_row.index(name)] if both else found[0]
            assert wanted in record_fields.KINDS[name], (heading, name)
            seen.add((name, wanted))
    # No field is let through as a kind that no table gives it.
    given = {name for name, _ in seen}
    all_kinds = {(n, k) for n, found in record_fields.KINDS.items() for k in found if n in given}
    others = {("norm", "number"), ("points", "list")}  # which other studies write
    assert all_kinds - others == seen
