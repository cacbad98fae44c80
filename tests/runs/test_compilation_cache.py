"""The commands keep compiled programs on disk, where the user wants it and the disk lets them."""

import os

import jax
import pytest
from real_commands import run

from sam_jax.runs import compilation_cache

FOLDER, SIZE = "jax_compilation_cache_dir", "jax_compilation_cache_max_size"
SECONDS = "jax_persistent_cache_min_compile_time_secs"
ENABLE = "jax_enable_compilation_cache"
COMMAND = """
import jax
from sam_jax.runs.flags import run_command
run_command(lambda argv: print(jax.jit(lambda x: 3 * x)(2)))
"""


@pytest.fixture
def nothing_chosen(monkeypatch, tmp_path):
    """Nothing set by the user, whose caches lie in a temporary folder, which it returns."""
    before = {name: getattr(jax.config, name) for name in (FOLDER, SIZE, SECONDS, ENABLE)}
    jax.config.update(FOLDER, None)
    for name in before:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    yield tmp_path / "caches"
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_default_folder(nothing_chosen, monkeypatch, tmp_path):
    assert compilation_cache.default_folder().parents[1] == nothing_chosen
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compilation_cache.default_folder().parents[1] == tmp_path / ".cache"


def test_it_is_on_and_bounded(nothing_chosen):
    compilation_cache.turn_on()
    folder = compilation_cache.default_folder()
    assert getattr(jax.config, FOLDER) == str(folder) and folder.is_dir()
    assert 0 < getattr(jax.config, SIZE) < 10**10


def test_what_the_user_chose_stays(nothing_chosen, monkeypatch):
    monkeypatch.setenv(SIZE.upper(), "1000")  # which JAX has read when it was imported
    jax.config.update(SIZE, 1000)
    compilation_cache.turn_on()
    assert getattr(jax.config, SIZE) == 1000
    jax.config.update(FOLDER, "elsewhere")
    compilation_cache.turn_on()
    assert getattr(jax.config, FOLDER) == "elsewhere"


def test_it_can_be_turned_off(nothing_chosen):
    jax.config.update(ENABLE, False)
    compilation_cache.turn_on()
    assert getattr(jax.config, FOLDER) is None and not nothing_chosen.exists()


def test_a_folder_that_cannot_be_written_is_a_warning(nothing_chosen, caplog):
    nothing_chosen.write_text("a file in its place")
    compilation_cache.turn_on()
    assert getattr(jax.config, FOLDER) is None
    (warning,) = caplog.messages
    assert str(nothing_chosen) in warning and "JAX_COMPILATION_CACHE_DIR" in warning


@pytest.mark.commands
def test_a_command_finds_what_another_compiled(tmp_path):
    # The suite itself keeps every program, however fast it was compiled.
    theirs = {n: v for n, v in os.environ.items() if n != FOLDER.upper()}
    written = []
    for _ in range(2):
        result = run("-c", COMMAND, env=theirs | {"XDG_CACHE_HOME": str(tmp_path)})
        assert (result.returncode, result.stdout, result.stderr) == (0, "6\n", "")
        written.append({p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*-cache")})
    first, second = written
    assert first and second == first  # nothing is compiled again
