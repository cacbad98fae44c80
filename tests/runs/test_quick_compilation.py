"""A process that compiles many small programs does so quickly, as far as the user lets it."""

import gc
import importlib.metadata
import os
import subprocess
import sys

import pytest
from real_commands import ROOT

from sam_jax.runs import quick_compilation

NAME = "--xla_cpu_use_fusion_emitters"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{NAME}=false"),
        ("--xla_dump_to=there", f"--xla_dump_to=there {NAME}=false"),
        (f"{NAME}=true", f"{NAME}=true"),
    ],
)
def test_small_nets_do_without_the_newer_emitters_unless_the_user_wants_them(
    monkeypatch, before, after
):
    monkeypatch.setenv("XLA_FLAGS", before)
    quick_compilation.for_small_nets()
    assert os.environ["XLA_FLAGS"] == after


@pytest.mark.commands
def test_the_library_here_starts_with_the_flag():
    code = "from sam_jax.runs import quick_compilation as q; q.for_small_nets(); import jax; "
    result = subprocess.run(
        [sys.executable, "-c", code + "print(jax.devices())"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and "Device" in result.stdout, result.stderr


def test_a_library_that_may_not_know_the_flag_gets_none(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.1.0")
    quick_compilation.for_small_nets()
    assert not os.environ["XLA_FLAGS"]


def test_garbage_is_searched_for_less_often():
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        gc.set_threshold(700, 10, 10)  # Python's own
        quick_compilation.collect_seldom()
        assert gc.get_threshold() == (50_000, 10, 10) and gc.get_freeze_count() > frozen
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
