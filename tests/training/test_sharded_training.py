"""Trainings with split parameters: the numbers of shard_map in an eighth of the memory."""

import dataclasses
import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from training_problems import assert_same_bits, run_two_steps, tiny_config

from sam_jax.measuring import measure
from sam_jax.runs import checkpoints, machine
from sam_jax.runs.mesh_axes import mesh_axes
from sam_jax.training import build, device_data, placement
from sam_jax.training.placement import Placement, spec_of
from sam_jax.training.program import compile_program
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained, restore_state

eight_devices = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
ROUNDING = 1e-5  # of float32, which batch norm over four examples amplifies
FSDP = {"split_parameters": ("data",)}
TWO_AXES = {"mesh": (("data", 4), ("model", 2)), "split_parameters": ("data", "model")}


class RandomNet(nn.Module):
    """Two dense layers, with all that depends on the shares: batch norm and random numbers."""

    width: int = 64
    dtype: object = jnp.float32
    use_fast_variance: bool = True

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(self.width, use_bias=False)(images.reshape(len(images), -1))
        x = jnp.tanh(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        if train:
            keep = jax.random.bernoulli(self.make_rng("model"), 0.8, x.shape)
            x = jnp.where(keep, x / 0.8, 0)
        return nn.Dense(10)(x)


def program_of(config, width=64, **changes):
    build.check(config)
    source, data = build.load_data(config)
    spec = build.program_spec(config, source, len(data.train_labels))
    spec = dataclasses.replace(spec, model=RandomNet(width), **changes)
    return data, compile_program(spec)


def two_steps(config, **changes):
    """The state after two steps and their metrics, from NumPy arrays."""
    data, program = program_of(config, **changes)
    return run_two_steps(program, data, config)


def numbers(result):
    state, metrics = jax.device_get(result)
    return state.params, state.batch_stats, state.optimiser_state, metrics


def distance(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(a, float) - b), initial=0)) for a, b in pairs)


METHODS = {
    "a device": {"method__name": "sam"},
    "two examples": {"method__name": "asam", "method__m": 2},
    "groups of devices": {"method__name": "gsam", "method__synchronise": "2"},
    "all, drawn at random, with mixup": {
        "method__name": "average_sam",
        "method__synchronise": "all",
        "data__mixup": 1.0,
        "data__augmentation": ("crop_zero", "cutout"),
        "data__cutout_size": 2,
        "weight_average__name": "ema",
    },
    "the predictions of past epochs": {"method__name": "saf", "method__synchronise": "all"},
}


@eight_devices
@pytest.mark.devices
@pytest.mark.parametrize("fields", METHODS.values(), ids=METHODS)
def test_split_parameters_give_the_numbers_of_whole_ones(fields):
    whole, split = tiny_config(**fields), tiny_config(**fields, **FSDP)
    wanted, found = two_steps(whole), two_steps(split)
    assert distance(numbers(found), numbers(wanted)) < ROUNDING
    kernels = [x for x in jax.tree.leaves(found[0]) if x.shape == (64, 64)]
    assert len(kernels) == 2 + ("weight_average__name" in fields)  # of weights, momentum, average
    assert {x.sharding.spec for x in kernels} == {PartitionSpec(None, "data")}
    other = tiny_config(**fields | {"seed": 1}, **FSDP)
    assert distance(numbers(two_steps(other)), numbers(wanted)) > 1e-3


@eight_devices
@pytest.mark.devices
def test_each_form_tells_the_sizes_of_m_apart():
    found = [
        numbers(two_steps(tiny_config(method__synchronise=group, **FSDP)))
        for group in ("local", "2", "all")
    ]
    assert min(distance(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-4


@eight_devices
@pytest.mark.devices
def test_one_two_and_eight_devices_agree(monkeypatch):
    found = {}
    for count in (8, 2, 1):  # m = 4 is the share of one of eight devices
        mesh = Mesh(np.array(jax.devices()[:count]), ("devices",))
        for module in (placement, device_data):
            monkeypatch.setattr(module, "device_mesh", lambda mesh=mesh: mesh)
        config = tiny_config(method__m=4, data__augmentation=())
        axes = Placement((("data", count),), (), "shard_map")
        found[count] = numbers(two_steps(config, placement=axes))
    assert distance(found[2], found[8]) < ROUNDING and distance(found[1], found[8]) < ROUNDING


@eight_devices
@pytest.mark.devices
@pytest.mark.parametrize("synchronise", ["local", "all"])
def test_an_axis_of_the_model_leaves_the_numbers_of_fewer_devices(synchronise, monkeypatch):
    config = tiny_config(method__synchronise=synchronise, **TWO_AXES)
    assert machine.this_machine(config).m == {"local": 8, "all": 32}[synchronise]
    found = two_steps(config)
    kernel = found[0].params["Dense_0"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec("model", "data")
    # The reference: shard_map on four devices, which know no other axis.
    mesh = Mesh(np.array(jax.devices()[:4]), ("devices",))
    for module in (placement, device_data):
        monkeypatch.setattr(module, "device_mesh", lambda: mesh)
    wanted = two_steps(config, placement=Placement((("data", 4),), (), "shard_map"))
    assert distance(numbers(found), numbers(wanted)) < ROUNDING


@eight_devices
@pytest.mark.devices
def test_a_split_run_is_streamed_saved_evaluated_and_measured(tmp_path):
    changes = {"model__features": (16, 32), "model__strides": (2, 2), "evaluation__batch_size": 30}
    found = {}
    for how in ("never", "always"):
        config = tiny_config(**changes, **FSDP, data__streaming=how)
        found[how] = train_and_evaluate(config, tmp_path / how)
    for name, number in found["never"].items():
        assert found["always"][name] == pytest.approx(number, rel=1e-5, nan_ok=True), name
    _, trained = load_trained(tmp_path / "never")
    state, test_images = trained.state, trained.data.test_images
    split = [x for x in jax.tree.leaves(state) if x.size == 9 * 16 * 32]
    assert len(split) == 2 and {len(x.addressable_shards) for x in split} == {8}
    assert {x.addressable_shards[0].data.size for x in split} == {9 * 16 * 32 // 8}
    with checkpoints.open_manager(tmp_path / "never", 1) as manager:
        whole = checkpoints.restore(manager, state, 2)  # on the first device
        again = restore_state(trained.program, jax.random.key(0), manager, 2)
    assert_same_bits(whole, again)
    whole = jax.device_get(state)

    def logits_of(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        return trained.program.model.apply(variables, trained.program.inputs(images), train=False)

    labels = np.asarray(trained.data.test_labels)
    log_p = jax.nn.log_softmax(logits_of(whole.params, whole.batch_stats, np.asarray(test_images)))
    loss = -np.mean(np.asarray(log_p)[np.arange(len(labels)), labels])
    assert found["never"]["test_loss"] == pytest.approx(loss, rel=1e-6)
    # Each device evaluates a share of the images: two of the 16.
    weights = state.params, state.batch_stats
    all_flops = flops(logits_of, *weights, test_images)
    assert flops(trained.program.evaluate, *weights, test_images, labels) < 0.5 * all_flops
    measured = [
        [m.take() for m in measure.measurements(model, config.instruments, ("sound",), NAMES)]
        for model in (trained, trained._replace(state=whole))
    ]
    assert len(measured[0]) >= len(NAMES)
    for split_record, whole_record in zip(*measured, strict=True):
        for name, number in whole_record.items():
            if isinstance(number, float):
                expected = pytest.approx(number, rel=1e-3, abs=1e-6, nan_ok=True)
                assert split_record[name] == expected, name
    start = {"fine_tune__workdir": str(tmp_path / "never"), "weight_average__name": "ema"}
    config = tiny_config(**changes, **FSDP, **start, epochs=1)
    tuned = train_and_evaluate(config, tmp_path / "tuned")
    assert tuned["test_loss"] < found["never"]["test_loss"]
    assert json.loads((tmp_path / "tuned/fine_tune.json").read_text())["not_restored"] == []


NAMES = ("evaluation", "adversarial_sharpness", "average_sharpness")


def flops(function, *arguments):
    """Return the floating-point operations of a device."""
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@eight_devices
@pytest.mark.devices
def test_each_device_holds_an_eighth_of_the_state_and_is_never_given_more():
    bytes_of = {}
    for name, fields in (("whole", {}), ("split", FSDP)):
        config = tiny_config(method__synchronise="all", **fields)
        data, program = program_of(config, width=512)
        key = jax.random.key(0)
        state = program.init(key)
        first = jax.devices()[0]
        held = sum(
            shard.data.nbytes
            for x in jax.tree.leaves(state._replace(method_state=()))
            for shard in x.addressable_shards
            if shard.device == first
        )
        order = jnp.zeros((2, 32), jnp.int32)
        traced = build.traced_hyperparameters(config)
        images = np.asarray(data.train_images), np.asarray(data.train_labels)
        program = program.run_steps.lower(state, *images, order, key, traced).compile()
        arguments = program.memory_analysis().argument_size_in_bytes
        bytes_of[name] = held, arguments - sum(x.nbytes for x in images)
    for whole, split in zip(bytes_of["whole"], bytes_of["split"], strict=True):
        # The kernels, 64 x 512 and 512 x 10, are split; vectors of 512 numbers are not.
        assert 0.12 < split / whole < 0.2


# ---------------------------------------------------------------------------- what configs may say


@given(
    st.lists(st.sampled_from([1, 3, 8, 10, 64, 512]), max_size=4),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, 2, 3, 8])),
)
def test_how_an_array_is_split(shape, sizes):
    spec = spec_of(tuple(shape), sizes)
    entries = [(entry,) if isinstance(entry, str) else entry or () for entry in spec]
    named = [name for entry in entries for name in entry]
    assert len(set(named)) == len(named) and all(sizes[name] > 1 for name in named)
    left = list(shape)
    for place, entry in enumerate(entries):
        count = math.prod(sizes[name] for name in entry)
        assert shape[place] % count == 0
        left[place] //= count
    if math.prod(shape) < 2**12:
        assert named == []
    else:  # what is not taken divides nothing that is left
        for name in sizes.keys() - set(named):
            assert sizes[name] == 1 or not [length for length in left if length % sizes[name] == 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mesh": ()}, r"mesh must be pairs of a name and a size.*got \(\)"),
        ({"mesh": (("data",),)}, "mesh must be pairs"),
        ({"mesh": (("data", -1), ("model", -1))}, "at most one of them -1"),
        ({"mesh": (("data", 1), ("data", -1))}, "each name once"),
        ({"mesh": (("data", 0),)}, "sizes positive"),
        ({"mesh": (("data", 77),)}, "do not take the .* devices here"),
        ({"mesh": (("data", -1), ("model", 77))}, "or -1 for one of them"),
        ({"split_parameters": ("modle",)}, "split_parameters must be one of data.*mean 'model'"),
        ({"step_form": "pmap"}, "step_form must be one of auto, shard_map, jit, got 'pmap'"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build.check(tiny_config(**fields))


@eight_devices
@pytest.mark.devices
def test_what_the_devices_do_not_allow_is_refused():
    with pytest.raises(ValueError, match="step_form = 'shard_map' keeps all parameters whole"):
        build.check(tiny_config(step_form="shard_map", **FSDP))
    with pytest.raises(ValueError, match="cannot be split over 4 devices; choose a multiple of 4"):
        build.check(tiny_config(batch_size=30, **TWO_AXES))
    assert build.check(tiny_config(batch_size=36, **TWO_AXES)) is None
    with pytest.raises(ValueError, match="a number of devices that divides the 4"):
        build.check(tiny_config(method__synchronise="8", **TWO_AXES))
    for fields in ({}, FSDP):
        config = tiny_config(method__name="esam", method__synchronise="all", **fields)
        with pytest.raises(ValueError, match="esam divides its sub-batch.*choose method.m up to 4"):
            build.check(config)


def test_the_axes_of_a_mesh():
    assert mesh_axes([["data", -1], ["model", 1]], 8) == {"data": 8, "model": 1}
    assert mesh_axes((("replica", 2), ("data", -1), ("model", 2)), 8)["data"] == 2


def test_both_forms_on_one_device_give_the_same_numbers():
    found = [numbers(two_steps(tiny_config(step_form=form))) for form in ("shard_map", "jit")]
    assert distance(*found) < ROUNDING
