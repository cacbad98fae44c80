"""Whole runs in one process: what an epoch reports, and runs that were cut."""

import json
import math
import shutil

import damaging
import jax
import ml_collections
import numpy as np
import optax
import pytest
from real_commands import run as run_command
from training_problems import assert_same_bits, count_compilations, tiny_config

from sam_jax.runs import machine, records
from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.step import epoch_order
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained


@pytest.mark.devices
def test_loss_and_accuracy_of_an_epoch_by_hand(tmp_path):
    """With a learning rate of zero the weights stay, and every batch can be taken by itself."""
    config = tiny_config(
        epochs=1,
        batch_size=24,  # 64 examples: two batches, and 16 rest
        data__augmentation=(),
        optimiser__learning_rate=0.0,
        method__rho=0.3,
        steps_per_call=1,
    )
    record = train_and_evaluate(config, tmp_path)
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    variables = program.init(key)
    order = epoch_order(stream(key, "order"), 0, 64, 24)
    assert order.shape == (2, 24)
    x = (np.asarray(data.train_images, np.float32) / 255 - source.mean) / source.std
    losses, hits = [], []
    shares = jax.device_count()  # batch norm sees the share of a device
    for rows in np.asarray(order).reshape(-1, 24 // shares):
        labels = np.asarray(data.train_labels)[rows]
        logits, _ = program.model.apply(
            {"params": variables.params, "batch_stats": variables.batch_stats},
            x[rows].astype(np.float32),
            train=True,
            mutable=["batch_stats"],
        )
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        losses.append(float(each.mean()))
        hits.append(float(np.mean(np.argmax(logits, axis=1) == labels)))
    # The loss is that of the clean pass at w, whatever rho is.
    assert record["batch_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert record["batch_accuracy"] == pytest.approx(np.mean(hits))
    assert record["epoch"] == 1 and record["step"] == 2


def run(config, workdir):
    record = train_and_evaluate(config, workdir)
    return record, load_trained(workdir)[1].state


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["sam", "average_sam"])
def test_a_run_that_lost_its_last_epochs_equals_an_uninterrupted_one(tmp_path, method):
    config = tiny_config(
        method__name=method, epochs=4, checkpoint__every_epochs=1, checkpoint__keep=9
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    record, state = run(config, whole)
    shutil.copytree(whole, cut)
    for epoch in (3, 4):
        shutil.rmtree(cut / "checkpoints" / str(epoch))
    with (cut / "metrics.jsonl").open("a") as log:
        log.write('{"epoch": 5, "st')
    with count_compilations() as compiled:
        resumed_record, resumed = run(config, cut)
    assert_same_bits(resumed, state)
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert str(resumed_record) == str(record)  # NaN included
    assert not any(seconds > 1 for seconds in compiled)  # the epoch is not compiled anew
    # Done: nothing is run again.
    before = sorted((p, p.stat().st_mtime_ns) for p in cut.rglob("*") if p.is_file())
    assert str(train_and_evaluate(config, cut)) == str(record)
    after = sorted((p, p.stat().st_mtime_ns) for p in cut.rglob("*") if p.is_file())
    assert [b for b in before if b[0].name != "config.json"] == [
        a for a in after if a[0].name != "config.json"
    ]


def train_on(devices, workdir, *flags):
    """The command in a process of its own, on so many devices."""
    settings = ("--config.checkpoint.every_epochs=1", "--config.checkpoint.keep=2")
    start = ("sam_jax.train", "--config=configs/digits.py:smoke", f"--workdir={workdir}")
    return run_command(*start, *settings, *flags, devices=devices)


@pytest.mark.commands
def test_a_run_goes_on_with_its_m_on_another_number_of_devices(tmp_path):
    # Processes of their own, for a process cannot change its devices.
    result = train_on(2, tmp_path)
    assert result.returncode == 0, result.stderr
    machine = {"m": 16, "device_count": 2, "process_count": 1}
    history = records.read(tmp_path / "metrics.jsonl")
    assert all(machine.items() <= record.items() for record in history)
    assert train_on(1, tmp_path).returncode == 0  # nothing is left to do
    shutil.rmtree(tmp_path / "checkpoints" / "2")  # cut after the first epoch
    config = (tmp_path / "config.json").read_bytes()
    for flags in ((), ("--accept_config_changes",)):
        refused = train_on(1, tmp_path, *flags)
        assert refused.returncode != 0
        message = " ".join(refused.stderr.split())
        assert "m = 16 on 2 devices" in message and "on the 1 device here it is 32" in message
        assert "set --config.method.m=16 and" in message and "--accept_config_changes" in message
        assert (tmp_path / "config.json").read_bytes() == config
        assert records.read(tmp_path / "metrics.jsonl") == history
    accepted = train_on(1, tmp_path, "--config.method.m=16", "--accept_config_changes")
    assert accepted.returncode == 0, accepted.stderr
    first, second = records.read(tmp_path / "metrics.jsonl")
    assert first == history[0]
    assert machine | {"device_count": 1} == {name: second[name] for name in machine}


def test_a_run_without_m_in_its_records_goes_on(tmp_path):
    # As runs were written before their records named the machine.
    config = tiny_config(epochs=2, checkpoint__every_epochs=1, checkpoint__keep=2)
    whole = train_and_evaluate(config, tmp_path)
    fields = set(machine.Machine._fields)
    path = tmp_path / "metrics.jsonl"
    old = [
        {name: value for name, value in record.items() if name not in fields}
        for record in records.read(path)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in old))
    damaging.as_before(tmp_path)
    assert train_and_evaluate(config, tmp_path) == old[1]  # done, and read as it is
    shutil.rmtree(tmp_path / "checkpoints" / "2")
    assert load_trained(tmp_path)[1].epoch == 1
    assert train_and_evaluate(config, tmp_path) == whole
    assert records.read(path) == [old[0], whole]


@pytest.mark.devices
def test_which_machines_are_told_apart(tmp_path):
    here = machine.this_machine(tiny_config(batch_size=32))
    assert here == (32 // jax.device_count(), jax.device_count(), jax.process_count())
    assert machine.this_machine(tiny_config(method__m=4)).m == 4
    more = here._replace(device_count=2 * here.device_count, m=here.m // 2, process_count=2)
    check = lambda record, **changes: machine.check_same_m(  # noqa: E731
        tmp_path, tiny_config(batch_size=32, **changes), record
    )
    with pytest.raises(ValueError, match=f"m = {more.m} on {more.device_count} devices in 2 proc"):
        check(more._asdict())
    check(more._asdict(), method__m=more.m)
    check(more._asdict(), method__m=1)  # chosen, and hence a change of the config
    check(here._asdict())
    check(here._replace(m=7)._asdict())  # the same devices: another batch size, which was accepted
    check(more._replace(m=here.m)._asdict())  # other devices, the same m
    check({"epoch": 1})
    check(None)


def test_calls_of_few_steps_equal_one_call_an_epoch(tmp_path):
    config = tiny_config(epochs=1, batch_size=16)  # four steps
    _, whole = run(config, tmp_path / "whole")
    config.steps_per_call = 3  # and one that remains
    _, parts = run(config, tmp_path / "parts")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        whole.params,
        parts.params,
    )


def test_what_is_watched_and_saved_changes_no_weight(tmp_path):
    def trained(name, **changes):
        config = tiny_config(epochs=2, batch_size=16, method__name="average_sam", **changes)
        return run(config, tmp_path / name)[1]

    plain = trained("plain", evaluation__test_every_epochs=1)
    watched = trained(
        "watched",
        evaluation__test_every_epochs=0,
        evaluation__train_every_epochs=1,
        evaluation__batch_size=7,
        checkpoint__every_epochs=1,
        checkpoint__keep=2,
    )
    assert_same_bits(watched, plain)
    in_calls = trained("in_calls", steps_per_call=2)
    assert_same_bits(in_calls, plain)
    other = trained("other", seed=1)
    with pytest.raises(AssertionError):
        assert_same_bits(other, plain)


def test_what_is_evaluated_and_saved_when(tmp_path):
    config = tiny_config(epochs=3, checkpoint__every_epochs=0)
    config.evaluation.test_every_epochs, config.evaluation.train_every_epochs = 2, 0
    last = train_and_evaluate(config, tmp_path)
    history = records.read(tmp_path / "metrics.jsonl")
    assert [r["epoch"] for r in history] == [1, 2, 3] and [r["step"] for r in history] == [2, 4, 6]
    assert [math.isnan(r["test_loss"]) for r in history] == [True, False, False]
    assert [math.isnan(r["train_accuracy"]) for r in history] == [True, True, False]
    assert history[-1] == last
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]
    # Fewer epochs than there are, accepted by the flag: nothing is left to do.
    config.epochs = 2
    assert train_and_evaluate(config, tmp_path, accept_config_changes=True) == last
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="Line 1 of .*metrics.jsonl is damaged: it is missing"):
        train_and_evaluate(config, tmp_path, accept_config_changes=True)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"model__name": "vision_transformer"},
            "patches of 16x16 pixels do not tile",
        ),
        ({"data__name": "digit"}, "Did you mean 'digits'"),
        ({"batch_size": 4096}, "batch_size = 4096 is larger than the training set"),
    ],
)
def test_what_does_not_fit_writes_nothing(tmp_path, changes, message):
    changes |= {"data__synthetic_examples": 0} if "data__name" in changes else {}
    config = tiny_config(**changes)
    config.model = ml_collections.ConfigDict({"name": config.model.name, "dtype": "float32"})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_cannot_be_measured(tmp_path):
    config = tiny_config()
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load_trained(tmp_path)
    from sam_jax.runs import workdirs

    workdirs.claim(tmp_path, config)
    with pytest.raises(FileNotFoundError, match="no checkpoint yet.*sam_jax.train"):
        load_trained(tmp_path)
