"""What every epoch records beside its losses: rates, norms, sharpness, and speeds apart."""

import json
import math

import ml_collections
import numpy as np
import pytest
from training_problems import tiny_config

from sam_jax.mistakes import UserMistake
from sam_jax.runs import records, speed_log, workdirs
from sam_jax.training import methods
from sam_jax.training.train_and_evaluate import train_and_evaluate

RATE, RHO = 0.1, 0.05
STEPS, EPOCHS = 2, 2  # of an epoch of 64 images; of the training


def trained(workdir, **changes):
    """The records of a training with a cosine from 0.1 and no warm-up."""
    changes = {"optimiser__learning_rate": RATE, "method__rho": RHO} | changes
    train_and_evaluate(tiny_config(epochs=EPOCHS, **changes), workdir)
    return records.read(workdir / "metrics.jsonl")


def cosine(step):
    return RATE / 2 * (1 + math.cos(math.pi * step / (STEPS * EPOCHS)))


def test_the_learning_rate_is_that_of_the_last_step(tmp_path):
    found = [record["learning_rate"] for record in trained(tmp_path)]
    np.testing.assert_allclose(found, [cosine(1), cosine(3)], rtol=1e-6)


RADII = {
    "sam": (RHO, RHO),
    "none": (0, 0),
    # from rho at the highest learning rate to rho_min = 0.01 at zero
    "gsam": tuple(0.01 + (RHO - 0.01) * cosine(step) / RATE for step in (1, 3)),
    "saf": (math.nan, math.nan),
}


@pytest.mark.parametrize("name", RADII)
def test_rho_is_that_of_the_method_at_the_last_step(tmp_path, name):
    found = trained(tmp_path, method__name=name, method__gsam__rho_min=0.01)
    np.testing.assert_allclose([record["rho"] for record in found], RADII[name], rtol=1e-6)


def test_rho_and_the_norm_are_zero_outside_of_the_methods_part(tmp_path):
    first, second = trained(tmp_path, method__until_share=0.5)
    assert first["rho"] == np.float32(RHO) and second["rho"] == 0
    assert first["perturbation_norm"] == pytest.approx(RHO, rel=1e-4)
    assert second["perturbation_norm"] == 0


def test_methods_without_a_radius_do_not_read_it():
    """A method is in the list exactly where what makes it does not read rho."""
    for name, make in methods.METHODS.items():  # each a function of its arguments
        reads = "rho" in make.__code__.co_names
        assert reads == (name not in (*methods.WITHOUT_RHO, "none")), name


def test_the_norms_are_means_over_the_steps_that_were_taken(tmp_path):
    sam, usam = (trained(tmp_path / name, method__name=name) for name in ("sam", "usam"))
    for record in sam:
        assert record["perturbation_norm"] == pytest.approx(RHO, rel=1e-4)
        assert record["gradient_norm"] > 0
    # In usam epsilon is rho g. Where a step hardly moves, the gradient at w + epsilon is near it.
    still = trained(
        tmp_path / "still", method__name="usam", optimiser__learning_rate=0.0, method__rho=1e-4
    )
    for record in still:
        wanted = 1e-4 * record["gradient_norm"]
        assert record["perturbation_norm"] == pytest.approx(wanted, rel=1e-2)
    assert usam[0]["perturbation_norm"] != pytest.approx(RHO, rel=1e-2)


def test_sharpness_comes_at_the_chosen_epochs_and_the_last(tmp_path):
    changes = {
        "instruments__adversarial": {"m": (16, 8), "rho": (0.2, 0.1)},
        "evaluation__test_every_epochs": 0,
    }
    every = trained(tmp_path / "all", evaluation__sharpness_every_epochs=1, **changes)
    some = trained(tmp_path / "some", evaluation__sharpness_every_epochs=3, **changes)
    never = trained(tmp_path / "never", **changes)
    assert ["sharpness" in record for record in every] == [True, True]
    assert ["sharpness" in record for record in some] == [False, True]
    assert ["sharpness" in record for record in never] == [False, False]
    assert some[1]["sharpness"] == every[1]["sharpness"] > 0
    assert some[1]["sharpness_stderr"] > 0
    for with_it, without in zip(every, never, strict=True):  # it changes nothing else
        assert with_it["batch_loss"] == without["batch_loss"]
        assert with_it.keys() - without.keys() == {"sharpness", "sharpness_stderr"}


def test_a_sharpness_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserMistake, match="batches of m = 65, and there are 64"):
        trained(
            tmp_path / "run",
            evaluation__sharpness_every_epochs=1,
            instruments__adversarial={"m": (65,), "rho": (0.1,)},
        )
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------- speed.jsonl


def test_the_speeds_of_every_epoch(tmp_path):
    trained(tmp_path)
    found = speed_log.read(tmp_path)
    assert [record["epoch"] for record in found] == [1, 2]
    for record in found:
        assert record["images_per_second"] == pytest.approx(64 / record["seconds"], rel=1e-3)
    assert found[0]["time"] <= found[1]["time"]
    assert not any("seconds" in r for r in records.read(tmp_path / "metrics.jsonl"))


def test_an_epoch_that_was_begun_before_counts_its_rest(tmp_path, monkeypatch):
    times = iter([10.0, 12.0, 16.0])
    monkeypatch.setattr(speed_log.time, "perf_counter", lambda: next(times))
    log = speed_log.SpeedLog(tmp_path, 0, images_per_epoch=64, images_done=48)
    assert log.write(1) == {"seconds": 2.0, "images_per_second": 8.0}
    assert log.write(2) == {"seconds": 4.0, "images_per_second": 16.0}


def line(epoch):
    return json.dumps({"epoch": epoch, "seconds": 1.0}) + "\n"


DAMAGE = {
    "torn": (line(1) + line(2) + line(3)[:-4], [1, 2]),
    "foreign": ("[1]\nhello\n" + line(1) + '{"epoch": "1"}\n' + line(2), [1, 2]),
    "bytes": (b"\x00\xff\n" + line(2).encode(), [2]),
    "done again": (line(1) + line(2) + line(3), [1, 2]),
    "empty": ("", []),
}


@pytest.mark.parametrize("text, kept", DAMAGE.values(), ids=DAMAGE)
def test_lost_and_damaged_lines_are_left_out(tmp_path, text, kept):
    path = tmp_path / "speed.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    log = speed_log.SpeedLog(tmp_path, 2, 64)
    assert [record["epoch"] for record in speed_log.read(tmp_path)] == kept
    log.write(3)
    assert [record["epoch"] for record in speed_log.read(tmp_path)] == [*kept, 3]


def test_nothing_of_a_run_depends_on_the_speeds(tmp_path):
    def run(epochs):
        config = tiny_config(epochs=epochs, checkpoint__every_epochs=1)
        return train_and_evaluate(config, tmp_path, accept_config_changes=True)

    first = run(1)
    (tmp_path / "speed.jsonl").write_bytes(b"\x00not a line")
    assert run(1) == first
    assert run(2)["epoch"] == 2
    assert [record["epoch"] for record in speed_log.read(tmp_path)] == [2]


def test_the_config_of_before_measures_no_sharpness(tmp_path):
    """Its digest stays, and so do its folder and its checkpoints."""
    config = tiny_config()
    before = ml_collections.ConfigDict(config.to_dict())
    del before.evaluation["sharpness_every_epochs"]
    workdirs.claim(tmp_path, before)
    (tmp_path / "metrics.jsonl").touch()
    workdirs.refuse_another(tmp_path, config)
    assert workdirs.read_config(tmp_path).evaluation.sharpness_every_epochs == 0
    config.evaluation.sharpness_every_epochs = 1
    with pytest.raises(ValueError, match="sharpness_every_epochs"):
        workdirs.refuse_another(tmp_path, config)
