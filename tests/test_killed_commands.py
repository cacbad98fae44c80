"""Trainings that are killed without warning, and go on where they were."""

import numpy as np
import pytest
from real_commands import kill_when, read_lines, run

from sam_jax.training.trained import load_trained

SMOKE = "--config=configs/digits.py:smoke"
EPOCHS = 12
pytestmark = pytest.mark.e2e


def newest_checkpoint(workdir):
    names = [p.name for p in workdir.glob("checkpoints/*") if p.name.isdigit()]
    return max(map(int, names), default=0)


def bits(state):
    import jax

    def one(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(x) if is_key else x)
        return array.dtype.str, array.shape, array.tobytes()

    paths, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path): one(leaf) for path, leaf in paths}


@pytest.mark.parametrize("method", ["sam", "average_sam"])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path, method):
    def arguments(workdir):
        return (
            "sam_jax.train",
            SMOKE,
            f"--workdir={workdir}",
            f"--config.epochs={EPOCHS}",
            f"--config.method.name={method}",
            "--config.checkpoint.every_epochs=1",
        )

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(*arguments(whole)).returncode == 0
    kill_when(lambda: newest_checkpoint(cut) >= 3, *arguments(cut))
    epoch = newest_checkpoint(cut)
    assert 3 <= epoch < EPOCHS
    assert len(read_lines(cut / "metrics.jsonl")) < EPOCHS
    resumed = run(*arguments(cut))
    assert resumed.returncode == 0, resumed.stderr
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert len(read_lines(cut / "metrics.jsonl")) == EPOCHS
    states = [load_trained(folder)[1] for folder in (whole, cut)]
    assert [state.epoch for state in states] == [EPOCHS, EPOCHS]
    a, b = (bits(state.state) for state in states)
    assert len(a) > 10 and a == b
    assert all(np.isfinite(v) for v in read_lines(whole / "metrics.jsonl")[-1].values())
