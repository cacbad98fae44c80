"""A method in a part of the training, and perturbations over one, several and all devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_problems import tiny_config

from sam_jax.runs import machine
from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.losses import make_functions
from sam_jax.training.step import epoch_order

PLAIN_SGD = {"optimiser__momentum": 0.0, "optimiser__nesterov": False, "optimiser__clip_norm": 0.0}
PLAIN_SGD |= {"optimiser__weight_decay": 0.0, "optimiser__schedule": "constant"}
RHO = 0.5


def config_of(**changes):
    return tiny_config(method__rho=RHO, data__augmentation=(), **PLAIN_SGD | changes)


def train(config, epochs=1):
    """Return the parameters at the start and after every step."""
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    state = program.init(key)
    path = [jax.tree.map(np.asarray, state.params)]
    for epoch in range(epochs):
        order = epoch_order(stream(key, "order"), epoch, 64, config.batch_size)
        for rows in order:
            state, _ = program.run_steps(
                state,
                data.train_images,
                data.train_labels,
                jnp.stack([rows, rows]),
                stream(key, "augmentation"),
                build.traced_hyperparameters(config),
            )
            path.append(jax.tree.map(np.asarray, state.params))
    return path


def distance(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)))


@pytest.mark.parametrize("name", ["sam", "gsam", "esam", "entropy_sgd", "average_sam", "saf"])
def test_a_method_in_a_part_of_the_training(name):
    def path(**changes):
        return train(config_of(epochs=4, method__name=name, **changes), epochs=4)

    plain = train(config_of(epochs=4, method__name="none"), epochs=4)
    always, part = path(), path(method__from_share=0.25, method__until_share=0.75)
    assert [distance(a, b) for a, b in zip(plain[:3], part, strict=False)] == pytest.approx(
        [0, 0, 0], abs=1e-6
    )
    first = 4 if name == "saf" else 3  # SAF has no predictions to compare with before an epoch
    assert distance(plain[first], part[first]) > 1e-5
    assert distance(always[-1], part[-1]) > 1e-6
    late = path(method__from_share=0.75)
    assert distance(late[6], plain[6]) < 1e-6


def test_the_last_part_without_the_method():
    config = config_of(epochs=4, method__name="sam", method__until_share=0.5)
    early, always = train(config, epochs=4), train(config_of(epochs=4), epochs=4)
    for step in range(5):
        assert distance(early[step], always[step]) < 1e-6
    assert distance(early[5], always[5]) > 1e-4


def by_definition(config, devices, group):
    """Take one step: every device perturbs by the mean gradient over its group of devices."""
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    state = program.init(key)
    rows = epoch_order(stream(key, "order"), 0, 64, config.batch_size)[0]
    grad_fn = jax.jit(make_functions(program.model, state.batch_stats).grad_fn)
    shares = [
        (program.inputs(data.train_images[share]), data.train_labels[share])
        for share in np.asarray(rows).reshape(devices, -1)
    ]

    def mean(trees):
        return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *trees)

    clean = [grad_fn(state.params, share)[0] for share in shares]
    perturbed = []
    for device, share in enumerate(shares):
        first = device // group * group
        g = mean(clean[first : first + group])
        norm = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(g)))
        at = jax.tree.map(lambda w, e: w + RHO * e / norm, state.params, g)  # noqa: B023
        perturbed.append(grad_fn(at, share)[0])
    rate = config.optimiser.learning_rate
    return jax.tree.map(lambda w, g: w - rate * g, state.params, mean(perturbed))


@pytest.mark.devices
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_a_perturbation_of_a_device_a_group_and_all():
    found, wanted = {}, {}
    for synchronise, group in (("local", 1), ("2", 2), ("4", 4), ("all", 8)):
        config = config_of(method__synchronise=synchronise)
        build.check(config)
        assert machine.this_machine(config).m == 4 * group
        found[group] = train(config)[1]
        wanted[group] = by_definition(config, 8, group)
        assert distance(found[group], wanted[group]) < 2e-6
    # Each is another step than the others.
    for group in found:
        others = [distance(found[group], wanted[other]) for other in found if other != group]
        assert min(others) > 1e-5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"synchronise": "some"}, "method.synchronise must be 'local', 'all' or a number .*'some'"),
        ({"synchronise": "0"}, "method.synchronise must be"),
        ({"synchronise": "3000"}, "method.synchronise must be .* divides the"),
        ({"synchronise": "all", "m": 4}, "method.synchronise = 'all' and method.m = 4 both say"),
        ({"from_share": -0.1}, r"method.from_share must be a number in \[0, 1\), got -0.1"),
        ({"from_share": 1.0}, r"method.from_share must be a number in \[0, 1\), got 1.0"),
        ({"until_share": 1.1}, r"method.until_share must be a number in \(0, 1\], got 1.1"),
        (
            {"from_share": 0.5, "until_share": 0.5},
            r"until_share must be a number in \(0.5, 1\], got 0.5",
        ),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build.check(tiny_config(**{f"method__{k}": v for k, v in fields.items()}))


def test_a_run_that_synchronises_all_devices_goes_on_on_any_number(tmp_path):
    config = tiny_config(method__synchronise="all")
    here = machine.this_machine(config)
    assert here.m == config.batch_size
    elsewhere = here._replace(device_count=4 * here.device_count)
    machine.check_same_m(tmp_path, config, elsewhere._asdict())
    local = elsewhere._replace(m=here.m // 4)
    with pytest.raises(ValueError, match="m ="):
        machine.check_same_m(tmp_path, tiny_config(), local._asdict())
