"""Long runs keep their memory and programs, and long logs are read once; `--full` for all of it."""

import json
import os
import pathlib
import subprocess
import sys
import time
from unittest import mock

import pytest
from real_commands import ROOT

from sam_jax.runs import records

LONG_RUN = ROOT / "tests/training/long_run.py"


@pytest.mark.commands
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_long_run_keeps_its_memory_and_its_programs(tmp_path, full):
    epochs, warm_up = (1000, 200) if full else (120, 60)
    result = subprocess.run(
        [sys.executable, LONG_RUN, str(epochs), tmp_path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    memory, programs = found["memory"], found["programs"]
    assert len(memory) == epochs
    before, after = memory[warm_up], max(memory[warm_up:])
    print(
        f"{epochs} epochs, {found['seconds']:.0f} s of the processor: {before / 2**20:.1f} MiB "
        f"after {warm_up}, at most {after / 2**20:.1f} MiB, {programs[-1]} programs"
    )
    assert after <= 1.02 * before
    assert programs[warm_up] == programs[-1] > 0


def test_a_long_log_is_parsed_once_a_line(tmp_path, full):
    fields = ("batch_loss", "batch_accuracy", "train_loss", "test_loss", "test_accuracy")
    numbers = {name: 1 / (7 + place) for place, name in enumerate(fields)}
    path = tmp_path / "metrics.jsonl"
    lines = 100_000 if full else 2_000
    path.write_text(
        "".join(json.dumps({"epoch": e + 1, "step": 2 * e, **numbers}) + "\n" for e in range(lines))
    )
    loads, parsed = json.loads, []

    def count(text, **options):
        parsed.append(len(text))
        return loads(text, **options)

    with mock.patch.object(json, "loads", count):
        found = records.read(path)
    assert len(found) == lines and found[-1]["epoch"] == lines
    assert len(parsed) == lines and sum(parsed) <= path.stat().st_size
    start = time.process_time()
    records.read(path)
    print(f"{lines} lines: {time.process_time() - start:.2f} s of the processor", file=sys.stderr)
