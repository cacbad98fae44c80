"""Each optimiser against a NumPy loop, with weight decay in each place and on each part."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_problems import NormNet, global_norm, random_batch, tiny_config

from sam_jax.training import build
from sam_jax.training.losses import make_functions
from sam_jax.training.optimiser import OPTIMISERS, make_optimiser
from sam_jax.training.weight_decay import decayed, weight_decay_of

LR, DECAY, CLIP = 0.1, 0.2, 0.7


class RmsProp:
    """TensorFlow 1's RMSProp of EfficientNet, with the learning rate outside of the momentum."""

    def __init__(self, params):
        self.mean = {k: np.ones_like(w) for k, w in params.items()}
        self.buffer = {k: np.zeros_like(w) for k, w in params.items()}

    def step(self, params, gradient, decay):
        new = {}
        for k, w in params.items():
            g = gradient[k] + decay[k] * w
            self.mean[k] = 0.9 * self.mean[k] + 0.1 * g**2
            self.buffer[k] = 0.9 * self.buffer[k] + g / np.sqrt(self.mean[k] + 0.001)
            new[k] = w - LR * self.buffer[k]
        return new


class AdamW:
    def __init__(self, params):
        self.first = {k: np.zeros_like(w) for k, w in params.items()}
        self.second = {k: np.zeros_like(w) for k, w in params.items()}
        self.t = 0

    def step(self, params, gradient, decay):
        self.t += 1
        new = {}
        for k, w in params.items():
            g = gradient[k]
            self.first[k] = 0.8 * self.first[k] + 0.2 * g
            self.second[k] = 0.99 * self.second[k] + 0.01 * g**2
            mean = self.first[k] / (1 - 0.8**self.t)
            scale = np.sqrt(self.second[k] / (1 - 0.99**self.t)) + 1e-3
            new[k] = w - LR * (mean / scale + decay[k] * w)
        return new


class Sgd:
    def __init__(self, params):
        self.buffer = {k: np.zeros_like(w) for k, w in params.items()}

    def step(self, params, gradient, decay):
        new = {}
        for k, w in params.items():
            g = gradient[k] + decay[k] * w
            self.buffer[k] = 0.9 * self.buffer[k] + g
            new[k] = w - LR * (g + 0.9 * self.buffer[k])
        return new


REFERENCES = {"sgd": Sgd, "rmsprop": RmsProp, "adamw": AdamW}
ADAMW = {"adamw__beta1": 0.8, "adamw__beta2": 0.99, "adamw__epsilon": 1e-3}


def settings(**fields):
    fields = {"clip_norm": CLIP, "weight_decay": DECAY, **ADAMW} | fields
    return tiny_config(**{f"optimiser__{k}": v for k, v in fields.items()}).optimiser


def problem():
    random = np.random.default_rng(1)
    return [
        {"kernel": random.normal(size=(3, 2)), "bias": 0.1 * random.normal(size=4)}
        for _ in range(5)
    ]


def test_the_references_are_all():
    assert set(REFERENCES) == set(OPTIMISERS)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("place", ["update", "loss"])
@pytest.mark.parametrize("on", ["all", "not_norms"])
def test_an_optimiser_is_its_formula_after_clipping(name, place, on):
    gradients = problem()
    start = {k: 2 * g for k, g in gradients[0].items()}
    wanted, reference = start, REFERENCES[name](start)
    size = DECAY if place == "update" else 0.0
    decay = {"kernel": size, "bias": size if on == "all" else 0.0}
    with jax.enable_x64(True):
        c = settings(name=name, weight_decay_in=place, weight_decay_on=on)
        optimiser = make_optimiser(c, LR)
        params = jax.tree.map(jnp.asarray, start)
        state = optimiser.init(params)
        for gradient in gradients:
            updates, state = optimiser.update(jax.tree.map(jnp.asarray, gradient), state, params)
            params = optax.apply_updates(params, updates)
            factor = min(1.0, CLIP / global_norm(gradient))
            clipped = {k: factor * g for k, g in gradient.items()}
            wanted = reference.step(wanted, clipped, decay)
    for k, w in wanted.items():
        np.testing.assert_allclose(params[k], w, rtol=1e-10)


def test_the_default_is_the_sgd_of_before_with_its_state():
    optimiser = make_optimiser(settings(), LR)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    before = optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.add_decayed_weights(DECAY),
        optax.sgd(LR, momentum=0.9, nesterov=True),
    )
    states = optimiser.init(params), before.init(params)
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])  # of checkpoints
    gradient = jax.tree.map(lambda w: 3 * w, params)
    results = (
        optimiser.update(gradient, states[0], params),
        before.update(gradient, states[1], params),
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, *results))


def test_a_schedule_reaches_every_optimiser():
    for name in OPTIMISERS:
        zero_first = make_optimiser(settings(name=name), lambda step: 0.1 * step)
        params = {"w": jnp.ones((2, 2))}
        state, moved = zero_first.init(params), []
        for _ in range(2):
            updates, state = zero_first.update({"w": jnp.ones((2, 2))}, state, params)
            moved.append(bool(jnp.any(updates["w"])))
        assert moved == [False, True]


@pytest.mark.parametrize("on", ["all", "not_norms"])
def test_the_penalty_in_the_loss_is_half_the_squared_norm_of_what_decays(on):
    images, labels = random_batch()
    model = NormNet()
    variables = model.init(jax.random.key(0), jnp.asarray(images, jnp.float32), train=False)
    # No number is zero, so that a penalty on a part that should have none is seen.
    params = jax.tree.map(lambda w: w + 0.5, variables["params"])
    batch = jnp.asarray(images, jnp.float32), jnp.asarray(labels)

    def gradient(size, on):
        functions = make_functions(
            model, variables["batch_stats"], weight_decay=size, weight_decay_on=on
        )
        return functions.grad_fn(params, batch)[0]

    difference = jax.tree.map(jnp.subtract, gradient(DECAY, on), gradient(0.0, on))
    wanted = jax.tree.map(lambda w: DECAY * w if on == "all" or w.ndim > 1 else 0 * w, params)
    ranks = {w.ndim for w in jax.tree.leaves(params)}
    assert 1 in ranks and max(ranks) > 1
    for found, expected in zip(*map(jax.tree.leaves, (difference, wanted)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_decays():
    params = {"norm": {"scale": jnp.ones(3), "bias": jnp.ones(3)}, "kernel": jnp.ones((3, 2))}
    assert decayed(params, "all") is params
    assert jax.tree.leaves(jax.tree.map(jnp.shape, decayed(params, "not_norms"))) == [3, 2]
    loss = weight_decay_of(settings(weight_decay_in="loss", weight_decay_on="not_norms"))
    assert loss == (DECAY, 0.0, "not_norms") and loss.links() == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "adam"},
            "optimiser.name must be one of sgd, rmsprop, adamw, got 'adam'. .*'adamw'",
        ),
        ({"clip_norm": -1.0}, "optimiser.clip_norm must be a finite number of 0 or more, got -1.0"),
        ({"momentum": 1.0}, r"optimiser.momentum must be a number in \[0, 1\), got 1.0"),
        ({"rmsprop__decay": -0.1}, r"optimiser.rmsprop.decay must be a number in \[0, 1\)"),
        (
            {"rmsprop__epsilon": 0.0},
            "optimiser.rmsprop.epsilon must be a finite number above 0, got 0.0",
        ),
        (
            {"rmsprop__initial": -1.0},
            "optimiser.rmsprop.initial must be a finite number of 0 or more",
        ),
        ({"adamw__beta1": 1.0}, r"optimiser.adamw.beta1 must be a number in \[0, 1\)"),
        ({"adamw__beta2": 2.0}, r"optimiser.adamw.beta2 must be a number in \[0, 1\)"),
        ({"adamw__epsilon": -1e-8}, "optimiser.adamw.epsilon must be a finite number above 0"),
        ({"weight_decay": -1.0}, "optimiser.weight_decay must be a finite number of 0 or more"),
        ({"weight_decay_on": "kernels"}, "optimiser.weight_decay_on must be one of all, not_norms"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build.check(tiny_config(**{f"optimiser__{k}": v for k, v in fields.items()}))
