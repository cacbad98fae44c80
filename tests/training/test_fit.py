"""The loop of every training: what it computes next never waits for what is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.runs.randomness import stream
from sam_jax.training import fit
from sam_jax.training.step import StepMetrics, TrainState, epoch_order, order_after_previous


class Shown:
    """A progress that keeps what it is told."""

    def __init__(self):
        self.told = []

    def advance(self, images, loss, accuracy):
        self.told.append((images, loss, accuracy))


@pytest.fixture
def happened():
    return []


def train(happened, rounds, save_every):
    """Train two calls of two steps a round, whose losses count up, and note what happens when."""

    def run_steps(state, number):
        happened.append(f"call {number}")
        losses = jnp.array([4.0, 5.0]) * number
        metrics = StepMetrics(losses, losses / 64, losses, losses / 2, losses > -1, losses < -1)
        return state._replace(step=state.step + 2, params=state.params + 1), metrics

    def hook(done):
        happened.append(f"round {done.number}")
        return lambda: happened.append(f"wrote {done.number} {done.step} {done.means()}")

    def save(done):
        happened.append(f"saved {done.number} {float(done.state.params)}")

    progress = Shown()
    state = TrainState(jnp.array(6), jnp.array(10.0), {}, {}, {})
    state = fit.fit(
        state,
        rounds,
        lambda index: [(run_steps, (2 * index,)), (run_steps, (2 * index + 1,))],
        batch_size=32,
        progress=progress,
        hooks=(hook, lambda done: None),
        save=save,
        save_every=save_every,
    )
    return state, progress.told


def test_a_round_is_written_while_the_next_one_computes(happened):
    state, told = train(happened, range(3, 6), save_every=2)
    assert happened == [
        "call 6",
        "call 7",
        "round 4",
        "call 8",
        "wrote 4 10 (29.25, 0.45703125)",  # (4.5 * 6 + 4.5 * 7) / 2
        "saved 4 12.0",  # as it was before call 8
        "call 9",
        "round 5",
        "call 10",
        "wrote 5 14 (38.25, 0.59765625)",
        "call 11",
        "round 6",
        "wrote 6 18 (47.25, 0.73828125)",
        "saved 6 16.0",
    ]
    assert int(state.step) == 18
    assert told[0] == (64, 27.0, 27 / 64) and len(told) == 6


def test_a_large_state_is_saved_before_the_next_call_takes_its_memory(happened, monkeypatch):
    monkeypatch.setattr(fit, "COPIED", 0)
    train(happened, range(2), save_every=1)
    at = happened.index
    assert at("call 1") < at("round 1") < at("wrote 1 10 (2.25, 0.03515625)") < at("saved 1 12.0")
    assert at("saved 1 12.0") < at("call 2")


def test_nothing_is_saved_after_a_record_that_failed(happened):
    def fail(done):
        def write():
            raise KeyboardInterrupt

        return write

    saved = []
    metrics = StepMetrics(*(jnp.ones(1),) * 4, jnp.ones(1, bool), jnp.zeros(1, bool))
    with pytest.raises(KeyboardInterrupt):
        fit.fit(
            TrainState(jnp.array(0), {}, {}, {}, {}),
            range(2),
            lambda index: [(lambda state: (state, metrics), ())],
            batch_size=1,
            progress=Shown(),
            hooks=(fail,),
            save=saved.append,
        )
    assert not saved


def test_the_order_of_an_epoch_follows_the_last_batch_of_the_one_before():
    key = jax.random.key(3)
    orders = [np.asarray(order_after_previous(key, epoch, 50, 8)) for epoch in range(3)]
    for epoch, order in enumerate(orders):
        own = np.asarray(epoch_order(stream(key, "order"), epoch, 50, 8))
        np.testing.assert_array_equal(order[1:], own)
        before = orders[epoch - 1][-1] if epoch else own[0]
        np.testing.assert_array_equal(order[0], before)
