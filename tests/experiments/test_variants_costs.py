"""Costs are read off the programs that train."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from configs.variants import digits
from experiments.variants import costs
from experiments.variants.methods import Method, training_config
from sam_jax.training import build
from sam_jax.training.trained import Trained


@functools.cache
def trained(method, *overrides):
    """Return the config and the untrained model of a method, on artificial data."""
    config = digits.get_config("smoke")
    training = training_config(config, Method(method, method, overrides), seed=0)
    source, data = build.load_data(training)
    program = build.make_program(training, source, len(data.train_labels))
    return training, Trained(program.init(jax.random.key(0)), program, data, source, 0)


def flops(method):
    return costs.step_costs(*trained(method))["flops"]


@pytest.fixture(scope="module")
def plain():
    return costs.step_costs(*trained("none"))


def test_sam_takes_two_gradients(plain):
    # Augmentation and update are a few per cent of a step on the four examples of a device.
    assert flops("sam") / plain["flops"] == pytest.approx(2.0, abs=0.1)


def test_average_sam_takes_one(plain):
    # And the noise of all weights. A second gradient takes at least 220 operations a weight, on
    # the four examples of one of eight devices.
    weights = sum(x.size for x in jax.tree.leaves(trained("none")[1].state.params))
    noise = flops("average_sam") - plain["flops"]
    assert 100 < noise / weights < 200 < plain["flops"] / weights


def test_sub_batches_take_as_many_gradients_as_the_whole(plain):
    # In a loop over the sub-batches XLA would count one of them. Each has norms of its own.
    found = costs.step_costs(*trained("sam", ("m", 1)))
    assert 1.9 < found["flops"] / plain["flops"] < 2.5
    assert math.isnan(found["compiled_flops"])  # there they are in a loop


def test_a_step_is_counted_once_however_many_a_call_makes(plain):
    """What the compiled call says of its scan over the steps is said of one step."""
    config, model = trained("none")
    calls = costs.calls_of(config, model)
    assert calls.steps == 2  # of 32 among 64 examples
    images, labels, order, *rest = calls.arguments
    single = calls._replace(arguments=(images, labels, order[:2], *rest))
    flops = single.traced().lower().cost_analysis()["flops"]
    assert flops == pytest.approx(plain["flops"], rel=1e-5)  # what a call does apart from its steps
    compiled = single.run_steps.lower(single.states[0], *single.arguments).compile()
    # The loop's own counter is among the operations, and older XLA fuses a loop of one otherwise.
    rel = 1e-5 if jax.__version_info__ >= (0, 10) else 0.1
    assert compiled.cost_analysis()["flops"] == pytest.approx(plain["compiled_flops"], rel=rel)


def test_memory_has_the_state(plain):
    _, model = trained("none")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.state.params))
    statistics = sum(leaf.size for leaf in jax.tree.leaves(model.state.batch_stats))
    # Weights and momentum in float32, batch norm's statistics, the counts of step and schedule.
    assert plain["state_bytes"] == pytest.approx(4 * (2 * parameters + statistics), abs=100)
    assert plain["method_state_bytes"] < 100 < plain["temporary_bytes"]


def test_passes_are_read_from_the_state():
    assert costs.passes(trained("sam")[1].state) is None
    _, model = trained("looksam")
    assert costs.passes(model.state) == 0


def test_calls_in_turns_leave_the_state_and_count_passes():
    config, model = trained("looksam")
    own = costs.calls_of(config, model)
    other = costs.calls_of(*trained("none"))
    found = costs.timed_side_by_side(own, other, rounds=3, warmup=1)
    for name in ("seconds", "reference_seconds"):
        assert len(found[name]) == 3 and all(len(pair) == 2 for pair in found[name])
        assert all(second > 0 for pair in found[name] for second in pair)
    assert found["call_passes"] == [1, 1]  # of two steps, the first of every five
    assert (found["call_steps"], found["images"]) == (2, 64)
    assert int(model.state.step) == 0  # not given away


@pytest.mark.parametrize(
    ("function", "looped"),
    [
        (lambda x: x @ x, False),
        (lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=3)[0], True),
        (lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=1)[0], False),
        (lambda x: jax.lax.scan(lambda c, _: (c + x, None), x, length=3)[0], False),
        (lambda x: jax.lax.fori_loop(0, 3, lambda i, c: jax.jit(jnp.dot)(c, x), x), True),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x, lambda: x), False),
        (lambda x: jax.vmap(lambda row: x @ row)(x), False),
    ],
)
def test_loops_whose_body_is_counted_once_are_found(function, looped):
    jaxpr = jax.make_jaxpr(function)(jnp.ones((2, 2))).jaxpr
    assert costs.has_loop_over_products(jaxpr) == looped


def test_an_inner_loop_is_not_counted_wrongly():
    # Every device divides the four examples that it has.
    found = costs.step_costs(*trained("entropy_sgd", ("m", 0), ("entropy_sgd.steps", 2)))
    assert math.isnan(found["flops"]) and math.isnan(found["compiled_flops"])
