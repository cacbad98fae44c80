"""Checkpoints of other Flax programs: what a run's own measurement gives, formats, and refusals."""

import dataclasses

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import own_targets
import pytest
import records_readme
from flax import nnx
from measured_models import make_settings, make_trained, take_all
from real_commands import read_lines, run_here

from experiments.examples import own_checkpoint
from sam_jax import pytree
from sam_jax.measuring.measure_checkpoint import measure_checkpoint
from sam_jax.measuring.target import Target, fitted
from sam_jax.mistakes import UserMistake
from sam_jax.runs import flax_checkpoints

# One of each way in which an instrument sees the sets.
MEASURES = ("evaluation", "adversarial_sharpness", "asymmetry_factor", "hessian", "loss_line")


def write(path, tree):
    path.write_bytes(flax.serialization.to_bytes(tree))
    return path


def train_state(scale=1.0):
    """What a Flax program keeps: weights among much else."""
    state = make_trained(0).state
    params = jax.tree.map(lambda x: scale * x, state.params)
    moments = optax.adam(0.1).init(params)
    return {"step": 3, "params": params, "opt_state": moments, "batch_stats": state.batch_stats}


def test_it_measures_what_a_run_does_and_once(tmp_path):
    path, workdir = write(tmp_path / "model.msgpack", train_state()), tmp_path / "measured"
    arguments = ("own_targets:linen", workdir, ("sound",), MEASURES)
    found = measure_checkpoint(path, *arguments)
    settings = make_settings()
    settings.loss_line.update({"num_directions": 1, "points": 3})
    expected = take_all(make_trained(0), settings, ("sound",), MEASURES, tmp_path / "run")
    assert len(found) == len(expected) > 6
    for record, own in zip(found, expected, strict=True):
        for name in own.keys() - {"folder"}:
            if isinstance(own[name], str):
                assert record[name] == own[name]
            else:
                np.testing.assert_allclose(record[name], own[name], rtol=2e-3, atol=2e-5)
    assert {path.name for path in (workdir / found[-1]["folder"]).iterdir()} >= {
        *("line_0.jsonl", "losses.png", "losses.svg")
    }
    of_its_own = records_readme.named(records_readme.TEXT, "Of a checkpoint of one's own").keys()
    assert found[0].keys() - expected[0].keys() == {*of_its_own, "settings"}
    identity = {record["checkpoint_digest"] for record in found}
    assert len(identity) == 1 and {record["checkpoint"] for record in found} == {str(path)}

    file = workdir / "evaluations.jsonl"
    before = file.read_bytes()
    assert measure_checkpoint(path, *arguments) == found and file.read_bytes() == before
    write(path, train_state(1.5))  # other weights in the same place
    (other,) = measure_checkpoint(path, *arguments[:-1], ("evaluation",))
    assert other["train_loss"] != found[0]["train_loss"]
    assert file.read_bytes().startswith(before) and len(read_lines(file)) == len(found) + 1


def test_the_command_and_the_checkpoint_of_a_flax_program(tmp_path):
    state = own_checkpoint.write(tmp_path, epochs=1)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    result = run_here(
        "sam_jax.evaluate",
        f"--checkpoint={tmp_path / 'checkpoint'}",
        f"--target={own_checkpoint.NAME}",
        f"--workdir={tmp_path / 'measured'}",
        "--measures=evaluation",
    )
    assert result.returncode == 0, result.stderr
    (record,) = read_lines(tmp_path / "measured/evaluations.jsonl")
    _, test = own_checkpoint.digits.load()
    accuracy = np.mean(own_checkpoint.correct(variables, test))
    loss = np.mean(own_checkpoint.losses(variables, test))
    np.testing.assert_allclose(record["test_accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(record["test_loss"], loss, rtol=1e-4)
    opening, measured, *_ = result.stdout.splitlines()
    assert opening.startswith("checkpoint: measured with the loss and the data of ")
    assert measured.startswith("evaluation: train_loss ")


def test_the_weights_of_nnx_are_a_tree_like_any_other(tmp_path):
    state = nnx.state(own_targets.linear(), nnx.Param)
    paths = (
        orbax(tmp_path / "nnx_model", state),
        msgpack(tmp_path / "plain", nnx.to_pure_dict(state)),
    )
    measures = ("adversarial_sharpness", "asymmetry_index")
    of_nnx, plain = (
        measure_checkpoint(path, f"own_targets:{path.name}", tmp_path / "out", measures=measures)
        for path in paths
    )
    assert len(of_nnx) == len(plain) > 1
    for record, other in zip(of_nnx, plain, strict=True):
        assert record["checkpoint_digest"] == other["checkpoint_digest"]
        for name in record.keys() - {"checkpoint", "target"}:
            assert record[name] == other[name]


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("linen", {"presets": ("published",)}, "batch norm by 'batch'.* preset sound"),
        ("linen", {"measures": ("trajectory_plane",)}, "trajectory_plane needs .* run"),
        ("without_a_test_set", {"measures": ("loss_line",)}, "loss_line .* test set"),
        ("wrong_setting", {}, "settings of own_targets:wrong_setting.*'hessian.steps'"),
        ("wrong_value", {}, "hessian.steps must be a whole number from 1 on, got 0"),
    ],
)
def test_what_an_instrument_needs_and_is_not_there(target, options, words, tmp_path):
    tree = {"params": {"dense": {"kernel": jnp.ones((2, 3))}}}
    path = write(tmp_path / "m", tree if target.startswith("wrong") else train_state())
    with pytest.raises(UserMistake, match=words):
        measure_checkpoint(path, f"own_targets:{target}", tmp_path / "measured", **options)
    assert not (tmp_path / "measured").exists()


def test_without_a_test_set_its_losses_are_left_out(tmp_path):
    path = write(tmp_path / "m", train_state())
    (record,) = measure_checkpoint(
        path, "own_targets:without_a_test_set", tmp_path / "out", measures=("evaluation",)
    )
    assert "train_loss" in record and not record.keys() & {"test_loss", "train_accuracy"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    with pytest.raises(UserMistake, match="folder of a run.*another --workdir"):
        measure_checkpoint(path, "own_targets:linen", tmp_path / "run")


# ---------------------------------------------------------------------------- formats


class Net(nnx.Module):
    """Parameters in a list, running statistics, and the counts and keys of dropout."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


def linen_tree():
    tree = train_state()
    return tree, {name: tree[name] for name in ("params", "batch_stats")}


def nnx_tree():
    model = Net(nnx.Rngs(0))
    kinds = {"params": nnx.Param, "batch_stats": nnx.BatchStat}
    return nnx.state(model), {name: nnx.state(model, kind) for name, kind in kinds.items()}


def orbax(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
    return path


def orbax_steps(path, tree):
    with ocp.CheckpointManager(path) as manager:
        for step, scale in ((2, 0), (10, 1)):  # the last one counts
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_scaled(tree, scale)),
                    about=ocp.args.JsonSave({"by": "a program"}),
                ),
            )
    return path


def msgpack(path, tree):
    pure = tree if isinstance(tree, dict) else nnx.to_pure_dict(tree)
    return write(path, jax.tree.map(_data, pure))


def safetensors(path, tree):
    from safetensors.flax import save_file

    path = path.with_suffix(".safetensors")
    arrays = flax_checkpoints.by_names(jax.tree.map(_data, tree))
    save_file({".".join(names): jnp.asarray(x) for names, x in arrays.items()}, path)
    return path


def _scaled(tree, scale):
    return jax.tree.map(lambda x: x if pytree.is_key(x) else x * scale, tree)


def _data(x):
    return jax.random.key_data(x) if pytree.is_key(x) else jnp.asarray(x)


@pytest.mark.filterwarnings("ignore")  # of orbax
@pytest.mark.parametrize("make", [linen_tree, nnx_tree])
@pytest.mark.parametrize("save", [orbax, orbax_steps, msgpack, safetensors])
def test_every_format_gives_the_weights_back(make, save, tmp_path):
    tree, variables = make()
    shapes = jax.eval_shape(lambda: variables)
    found = fitted(
        dataclasses.replace(own_targets.small(), variables=shapes),
        flax_checkpoints.read(save(tmp_path / "checkpoint", tree)),
        "it",
    )
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"params": {"dense": {"kernel": np.ones((2, 4))}}}, r"shape \(2, 4\), .* wants \(2, 3\)"),
        ({"params": {"dense": {"kernal": np.ones((2, 3))}}}, "missing.*'params/dense/kernal'"),
        (
            {"params": {"dense": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}},
            "params/dense/bias is of no use",
        ),
        ({"model": {"dense": {"kernel": np.ones((2, 3))}}}, "missing"),
        ({"a": {str(n): np.ones(1) for n in range(9)}}, "and 7 more"),
    ],
)
def test_what_does_not_fit_is_named(tree, words, tmp_path):
    with pytest.raises(UserMistake, match=words):
        measure_checkpoint(write(tmp_path / "m", tree), "own_targets:small", tmp_path / "measured")
    assert not (tmp_path / "measured").exists()


def test_the_place_of_the_weights_may_be_named():
    kernel = np.arange(6.0, dtype=np.float16).reshape(2, 3)
    arrays = flax_checkpoints.by_names(
        {"params": {"dense": {"kernel": 0 * kernel}}, "ema": {"net": {"dense": {"kernel": kernel}}}}
    )
    target = dataclasses.replace(own_targets.small(), places={"params": "ema/net"})
    assert isinstance(target, Target)
    found = fitted(target, arrays, "it")["params"]["dense"]["kernel"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, kernel)
