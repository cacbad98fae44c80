"""Real commands that are killed at chosen and at random moments, and run again to their end."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
from real_commands import ROOT, environment, run

from sam_jax.runs import checkpoints

MOMENTS = ("operation", "line", "checkpoint", "time", "signal")
SMOKE = "--config=configs/digits.py:smoke"
STUDY = """
from configs.{study} import digits

def get_config(variant=""):
    config = digits.get_config("smoke")
    with config.unlocked():
{changes}
    return config.lock()
"""
CHANGES = {
    "even_better": """        config.seeds = (0,)
        config.models = (("sgd", "small", 0.0, 1), ("sam", "small", 0.1, 1))
        config.curve.pairs = ((config.models[1], config.models[0]),)
        config.plane.points, config.curve.points, config.curve.plane_points = 3, 5, 3
        config.presets = ("sound",)
        config.training.epochs, config.training.checkpoint.every_epochs = 3, 1
        config.training.steps_per_call = 1""",
    "variants": """        config.seeds = (0,)
        config.equal_compute = ()
        config.training.model.features, config.training.model.strides = (4,), (2,)
        config.training.epochs, config.training.checkpoint.every_epochs = 6, 2
        config.training.steps_per_call = 1""",
}


class Command:
    """A command in a folder of its own, and how it ends where nothing disturbs it."""

    def __init__(self, name, folder):
        """Take "train", "evaluate" or the name of a study, and a folder for all that is written."""
        self.name, self.folder = name, folder
        folder.mkdir(parents=True)
        if name in CHANGES:
            config = folder / "config.py"
            config.write_text(STUDY.format(study=name, changes=CHANGES[name]))
            self.arguments = (f"experiments.{name}", f"--config={config}")
        elif name == "train":
            settings = ("epochs=8", "steps_per_call=1", "checkpoint.every_epochs=2")
            method = ("method.name=looksam", "checkpoint.keep=2")
            self.arguments = ("sam_jax.train", SMOKE, *(f"--config.{x}" for x in settings + method))
        else:
            trained = run("sam_jax.train", SMOKE, f"--workdir={folder / 'trained'}")
            assert trained.returncode == 0, trained.stderr
            self.arguments = ("sam_jax.evaluate",)
        start = time.monotonic()
        self.whole = self.begin("whole")
        counted = self.call(self.whole, "count", 0)
        self.seconds = time.monotonic() - start
        assert counted.returncode == 0, counted.stderr
        operations, lines = re.search(r"^counted (\d+) (\d+)$", counted.stdout, re.M).groups()
        self.counts = {"operation": int(operations), "line": int(lines)}
        assert min(self.counts.values()) > 5

    def begin(self, name):
        """Return a folder in which the command has not run yet."""
        workdir = self.folder / name
        if self.name == "evaluate":
            shutil.copytree(self.folder / "trained", workdir)
        return workdir

    def line(self, workdir, moment, number):
        """Return the command line of a command that kills itself."""
        arguments = (*self.arguments, f"--workdir={workdir}")
        kill_at = ROOT / "tests" / "kill_at.py"
        return [sys.executable, kill_at, moment, str(number), workdir, *arguments]

    def call(self, workdir, moment, number, **options):
        """Run the command, to its end or to that moment."""
        settings = {"cwd": ROOT, "env": environment(), "capture_output": True, "text": True}
        line = self.line(workdir, moment, number)
        return subprocess.run(line, timeout=400, check=False, **(settings | options))

    def kill(self, workdir, moment, share, draw):
        """Start the command, end it at a moment that is drawn, and say whether it was ended.

        Args:
          workdir: its folder.
          moment: of MOMENTS.
          share: of its work, in which it is ended.
          draw: a random.Random.
        """
        if moment in self.counts:
            number = draw.randint(1, max(1, int(share * self.counts[moment])))
            code = self.call(workdir, moment, number).returncode
            assert code in (-signal.SIGKILL, 0)
            return code != 0
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(
            self.line(workdir, "count", 0), cwd=ROOT, env=environment(), **quiet
        )
        started = time.monotonic()
        wait = draw.uniform(0.4, 0.9) * self.seconds
        in_writing = draw.randint(1, 2)
        seen = set()
        while process.poll() is None:
            if moment == "checkpoint":
                seen |= set(workdir.rglob("*.orbax-checkpoint-tmp"))
                if len(seen) >= in_writing:
                    break
            elif time.monotonic() - started > wait:
                break
            time.sleep(0.0005)
        number = signal.SIGTERM if moment == "signal" else signal.SIGKILL
        process.send_signal(number)
        code = process.wait(timeout=60)
        assert code in (-number, 0, 128 + number)
        return code != 0

    def finish(self, workdir):
        """Run the command to its end."""
        done = run(*self.arguments, f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr

    def end(self, workdir):
        """Return all that the command leaves, as far as it is the same each time."""
        found = {}
        for path in sorted(workdir.rglob("*.jsonl")):
            if path.name not in ("costs.jsonl", "speed.jsonl"):  # seconds
                found[str(path.relative_to(workdir))] = path.read_bytes()
        for config in sorted(workdir.rglob("checkpoints")):
            found[str(config.relative_to(workdir))] = saved_bits(config.parent)
        return found


def saved_bits(workdir):
    """Return the bytes of all arrays of all checkpoints of a run, by epoch and path."""
    found = {}
    names = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for epoch in names:
        with warnings.catch_warnings(action="ignore"):
            _, state = checkpoints.read(workdir, epoch, sharding)
        for path, leaf in jax.tree.flatten_with_path(state)[0]:
            array = np.asarray(leaf)
            found[epoch, jax.tree_util.keystr(path)] = array.dtype.str, array.tobytes()
    return found


def survive(command, name, moments, seed):
    """End a command at these moments, one after the other in one folder, and run it to its end.

    Returns:
      The moments at which it was ended, each as often.
    """
    draw = random.Random(seed)
    workdir = command.begin(name)
    share = 1 / len(moments)
    ended = [moment for moment in moments if command.kill(workdir, moment, share, draw)]
    command.finish(workdir)
    whole, found = command.end(command.whole), command.end(workdir)
    assert found.keys() == whole.keys()
    for what in whole:
        assert found[what] == whole[what], (what, ended, seed)
    return ended
