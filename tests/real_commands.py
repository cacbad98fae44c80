"""Real commands in processes of their own, and finished runs that tests of all workers share.

What a command says before it works is tried without a process: flags, `--help` and what it refuses.
"""

import contextlib
import fcntl
import io
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import traceback
import unittest.mock
import warnings

import submitit  # noqa: F401 - its first import closes what absl logs to where that is redirected
from absl import flags

ROOT = pathlib.Path(__file__).parents[1]


def environment(devices=1):
    """Return the suite's variables, its compilation cache included, with so many CPU devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    return os.environ | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}"}


def python(*arguments, interpreter=()):
    """Return the command line of a module or of `-c` with a program."""
    start = () if arguments[0] == "-c" else ("-m",)
    return [sys.executable, *interpreter, *start, *map(str, arguments)]


def run(*arguments, devices=1, timeout=400, interpreter=(), **options):
    """Run `python -m ARGUMENTS` to its end, with further options of the interpreter."""
    settings = {"cwd": ROOT, "env": environment(devices), "capture_output": True, "text": True}
    command = python(*arguments, interpreter=interpreter)
    return subprocess.run(command, timeout=timeout, check=False, **(settings | options))


def run_here(module, *arguments):
    """Run `python -m MODULE ARGUMENTS` in this process, for commands that end at once."""
    result = subprocess.CompletedProcess([module, *map(str, arguments)], 0)
    output, errors = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors)
    with streams[0], streams[1], no_flags(), warnings.catch_warnings(action="ignore"):
        try:
            with unittest.mock.patch.object(sys, "argv", result.args), contextlib.chdir(ROOT):
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            result.returncode = end.code or 0
        except Exception:
            result.returncode = 1
            traceback.print_exc()  # as the interpreter does at its end
    result.stdout, result.stderr = output.getvalue(), errors.getvalue()
    return result


@contextlib.contextmanager
def no_flags():
    """Hide the flags that commands of the project have defined, and forget those of the block."""

    def take_ours():
        absls = {
            flag.name
            for module, defined in flags.FLAGS.flags_by_module_dict().items()
            if module.startswith("absl.")
            for flag in defined
            if not flag.name.startswith("config.")  # ml_collections defines them there
        }
        ours = {name: flags.FLAGS[name] for name in flags.FLAGS if name not in absls}
        for name in ours:
            delattr(flags.FLAGS, name)
        return ours

    before = take_ours()
    try:
        yield
    finally:
        take_ours()
        for name, flag in before.items():
            flags.FLAGS[name] = flag


def output_of(*arguments, **options):
    """Return what a command that has to succeed prints."""
    result = run(*arguments, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def kill_when(reached, *arguments, timeout=300):
    """Start a command, and kill it without warning as soon as `reached()` is true."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(python(*arguments), cwd=ROOT, env=environment(), **quiet)
    deadline = time.monotonic() + timeout
    while not reached():
        assert process.poll() is None, "the command ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def read_lines(path):
    """Return the JSON lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def made_once(tmp_path_factory, name, make):
    """Return a folder, and the text, that `make(folder)` makes once for all workers of a session.

    No test may change what the folder holds: copy it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / name, shared / f"{name}.done"
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            done.write_text(make(folder))
    return folder, done.read_text()
