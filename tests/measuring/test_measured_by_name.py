"""Worst-case sharpness and the spectral density, against losses and ascents made by hand."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from measured_models import (
    KEY,
    SAME,
    M,
    columns_are_numbers,
    make_loss_fn,
    make_settings,
    make_trained,
    take_all,
)
from records_readme import differences
from training_problems import count_compilations

from sam_jax import metrics
from sam_jax.measuring import registry
from sam_jax.measuring.measure import measurements
from sam_jax.runs.randomness import stream

BALLS = (("l2", False, 0.1), ("l2", True, 0.3), ("linf", False, 0.01), ("linf", True, 0.1))


@pytest.fixture(scope="module")
def models():
    return make_trained(0), make_trained(1)


def worst_case_settings(**changed):
    settings = make_settings()
    settings.worst_case_sharpness.update({"m": M, "balls": BALLS, **changed})
    return settings


def take_worst_case(model, preset="sound", **changed):
    return take_all(model, worst_case_settings(**changed), (preset,), ("worst_case_sharpness",))


def ascent(gradient, params, norm, adaptive, rho):
    """One step of the length rho in a ball, over all weights as one vector."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    g = jax.flatten_util.ravel_pytree(gradient)[0]
    c = jnp.abs(flat) if adaptive else jnp.ones_like(flat)
    step = c * jnp.sign(g) if norm == "linf" else c**2 * g / jnp.linalg.norm(c * g)
    return unravel(flat + rho * step)


@pytest.mark.parametrize("preset", ["sound", "published"])
def test_one_fixed_step_in_every_ball(models, preset):
    trained = models[0]
    loss_fn = make_loss_fn(trained, preset == "published")
    gradient_fn, loss_fn = jax.jit(jax.grad(loss_fn)), jax.jit(loss_fn)
    found = take_worst_case(trained, preset, step_rule="fixed", steps=1)
    other = take_all(trained, make_settings(), (preset,), ("adversarial_sharpness",))
    batches = {record["m"]: record["per_batch_loss"] for record in other}
    assert [(r["norm"], r["adaptive"], r["measured_rho"]) for r in found] == [*BALLS, *BALLS]
    assert all(differences(record) == [] for record in found)
    params = trained.state.params
    for record in found:
        assert columns_are_numbers(record)
        np.testing.assert_allclose(record["per_batch_loss"], batches[record["m"]], **SAME)
    # The first two are SAM's own step, which the adversarial sharpness takes.
    for m in M:
        (own,) = (r for r in found if (r["m"], r["norm"], r["adaptive"]) == (m, "l2", False))
        (sam,) = (r for r in other if (r["m"], r["measured_rho"]) == (m, 0.1))
        for name in ("perturbed_loss", "sharpness", "stderr", "n", "examples"):
            np.testing.assert_allclose(own[name], sam[name], **SAME)
    # All balls by hand, on the one batch of all examples that both presets see.
    examples = trained.data.train_images, trained.data.train_labels
    settings = worst_case_settings(m=(64,), step_rule="fixed", steps=1, batches=1)
    settings.examples = 64
    losses = []
    for record in take_all(trained, settings, (preset,), ("worst_case_sharpness",)):
        ball = record["norm"], record["adaptive"], record["measured_rho"]
        moved = ascent(gradient_fn(params, examples), params, *ball)
        np.testing.assert_allclose(record["perturbed_loss"], loss_fn(moved, examples), **SAME)
        losses.append(record["perturbed_loss"])
    assert np.min(np.abs(np.diff(np.sort(losses)))) > 10 * SAME["atol"]  # no two are one


def test_fixed_steps_have_a_share_of_rho(models):
    """Two linf steps of 0.4 rho; where the signs agree they add up to 0.8 rho."""
    trained = models[1]
    loss_fn = make_loss_fn(trained, published=False)
    ball, examples = ("linf", False, 0.01), (trained.data.train_images, trained.data.train_labels)
    settings = worst_case_settings(
        m=(64,), balls=(ball,), step_rule="fixed", steps=2, step_size=0.4
    )
    settings.examples = 64
    (record,) = take_all(trained, settings, ("sound",), ("worst_case_sharpness",))
    params = trained.state.params
    for _ in range(2):
        gradient = jax.jit(jax.grad(loss_fn))(params, examples)
        params = ascent(gradient, params, "linf", False, 0.4 * ball[2])
    np.testing.assert_allclose(record["perturbed_loss"], loss_fn(params, examples), **SAME)
    assert record["step_size"] == 0.4
    # Of two steps the second one is in the fourth quarter but one: at a half of the first.
    settings.worst_case_sharpness.step_rule = "halved"
    (halved,) = take_all(trained, settings, ("sound",), ("worst_case_sharpness",))
    params = trained.state.params
    for length in (0.4, 0.2):
        gradient = jax.jit(jax.grad(loss_fn))(params, examples)
        params = ascent(gradient, params, "linf", False, length * ball[2])
    np.testing.assert_allclose(halved["perturbed_loss"], loss_fn(params, examples), **SAME)
    assert halved["perturbed_loss"] < record["perturbed_loss"] - 1e-4


def test_more_steps_and_restarts_find_no_less(models):
    balls = {"m": (16,), "balls": (("l2", True, 2.0), ("linf", False, 0.05))}
    one = take_worst_case(models[0], steps=1, **balls)
    with count_compilations() as compiled:
        other = take_worst_case(models[1], steps=1, **balls)
    assert compiled == [] and other != one  # compiled once for two models
    more = take_worst_case(models[0], steps=6, restarts=1, **balls)
    for first, second in zip(one, more, strict=True):
        assert 0 <= 1.02 * first["sharpness"] < second["sharpness"]
        assert (second["steps"], second["restarts"]) == (6, 1)


def test_the_top_eigenvalues(models):
    settings = make_settings()
    settings.top_eigenvalues.update({"steps": 8, "count": 3})
    (record,) = take_all(models[0], settings, ("sound",), ("top_eigenvalues",))
    loss_fn = make_loss_fn(models[0], published=False)
    whole = models[0].data.train_images, models[0].data.train_labels
    direct = jax.jit(
        lambda w: metrics.hessian_eigenvalues(
            lambda w: loss_fn(w, whole),
            w,
            key=stream(KEY, "top eigenvalues"),
            num_eigenvalues=3,
            steps=8,
        )
    )(models[0].state.params)
    np.testing.assert_allclose(record["eigenvalues"], direct.top, rtol=1e-3)
    assert record["top_eigenvalue"] == record["eigenvalues"][0] > record["eigenvalues"][2] > 0
    assert record["ratio"] == pytest.approx(record["top_eigenvalue"] / record["eigenvalues"][2])
    assert columns_are_numbers(record) and differences(record) == []


def test_the_spectral_density(models):
    settings = make_settings()
    settings.spectral_density.update({"steps": 8, "draws": 3, "num_points": 50})
    found = [take_all(m, settings, ("sound",), ("spectral_density",))[0] for m in models]
    for trained, record in zip(models, found, strict=True):
        loss_fn = make_loss_fn(trained, published=False)
        whole = trained.data.train_images, trained.data.train_labels

        def loss(params, loss_fn=loss_fn, whole=whole):
            return loss_fn(params, whole)

        direct = jax.jit(
            lambda w, loss=loss: metrics.spectral_density(
                loss, w, key=stream(KEY, "spectral density"), draws=3, steps=8, num_points=50
            )
        )(trained.state.params)
        # 64 examples in batches of 40: the last one is half empty.
        np.testing.assert_allclose(record["ritz_values"], direct.ritz_values, rtol=1e-3, atol=1e-4)
        values, weights = np.array(record["ritz_values"]), np.array(record["ritz_weights"])
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
        means, negative = (values * weights).sum(axis=1), (weights * (values < 0)).sum(axis=1)
        assert record["mean_eigenvalue"] == pytest.approx(means.mean(), rel=1e-4, abs=1e-7)
        assert record["negative_share"] == pytest.approx(negative.mean(), rel=1e-4)
        stderr = negative.std(ddof=1) / np.sqrt(3)
        assert record["negative_share_stderr"] == pytest.approx(stderr, rel=1e-3)
        assert 0 < record["negative_share"] < 1
        assert columns_are_numbers(record) and differences(record) == []
        assert len(record["density"]) == len(record["grid"]) == 50
    assert found[0]["ritz_values"] != found[1]["ritz_values"]
    settings.spectral_density.width = 0.5
    (wide,) = take_all(models[0], settings, ("sound",), ("spectral_density",))
    assert wide["width"] == 0.5 and wide["ritz_values"] == found[0]["ritz_values"]


def test_they_are_measured_by_name_only(models):
    names = {m.about["measure"] for m in measurements(models[0], make_settings(), ("sound",))}
    others = {"worst_case_sharpness", "top_eigenvalues", "spectral_density", "loss_line"}
    assert names == set(registry.NAMES) - others - {"trajectory_plane"}
