"""SWA and the moving average of the parameters against NumPy, in chains and under transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_equal, trees_close
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import optim

STEPS = 12


def optimiser(*links):
    return optax.chain(optim.sam(0.1), optax.sgd(0.05, momentum=0.9), *links)


def trajectory(tx, problem, steps=STEPS):
    """Return the parameters after every step, the updates of every step and the last state."""

    @jax.jit
    def step(params, state):
        gradient = problem.grad_fn(params)
        updates, state = tx.update(gradient, state, params, grad_fn=problem.grad_fn)
        return optax.apply_updates(params, updates), updates, state

    params, state = problem.params, tx.init(problem.params)
    path, all_updates = [], []
    for _ in range(steps):
        params, updates, state = step(params, state)
        path.append(params)
        all_updates.append(updates)
    return path, all_updates, state


def numbers(average, values, dtype=jnp.float32):
    """Return the averages after each of the scalar parameters `values`, and the last state."""
    tx = average
    params = jnp.zeros((), dtype)
    state, averages = tx.init(params), []
    update = jax.jit(tx.update)
    for value in values:
        updates = jnp.asarray(value, dtype) - params
        _, state = update(updates, state, params)
        params = optax.apply_updates(params, updates)
        averages.append(float(optim.averaged_params(state, params)))
    return averages, state


@pytest.mark.parametrize(("start", "every"), [(0, 1), (5, 1), (2, 3), (9, 4)])
def test_swa_is_the_mean_of_the_parameters_it_names(start, every):
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        path, _, state = trajectory(optimiser(optim.swa(start, every)), problem)
        chosen = range(start, STEPS, every)
        result = optim.averaged_params(state, path[-1])
        wanted = jax.tree.map(lambda *w: np.mean([w[i] for i in chosen], axis=0), *path)
        assert trees_close(result, wanted, 1e-14)
        assert int(state[-1].averaged) == len(chosen) and int(state[-1].count) == STEPS
        # Negative control: an average that is one update early or late.
        for shift in (-1, 1):
            shifted = jax.tree.map(
                lambda *w, s=shift: np.mean([w[np.clip(i + s, 0, STEPS - 1)] for i in chosen], 0),
                *path,
            )
            assert not trees_close(result, shifted, 1e-3)


def test_the_moving_average_is_the_recursion():
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        path, _, state = trajectory(optimiser(optim.weight_ema(0.8)), problem)

        def recursion(*w):
            mean = w[0]
            for new in w[1:]:
                mean = 0.8 * mean + 0.2 * new
            return mean

        result = optim.averaged_params(state, path[-1])
        assert trees_close(result, jax.tree.map(recursion, *path), 1e-14)
        # Negative controls: the average that starts at zero, and the last parameters.
        from_zero = jax.tree.map(lambda *w: recursion(np.zeros_like(w[0]), *w), *path)
        assert not trees_close(result, from_zero, 1e-2)
        assert not trees_close(result, path[-1], 1e-2)


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8),
    start=st.integers(0, 4),
    every=st.integers(1, 3),
)
def test_swa_of_any_numbers(values, start, every):
    averages, _ = numbers(optim.swa(start, every), values)
    for i, average in enumerate(averages):
        chosen = values[start : i + 1 : every]
        # Each of at most 8 steps rounds numbers up to 200 at 2^-24.
        wanted = np.mean(chosen) if chosen else values[i]
        assert average == pytest.approx(wanted, abs=8 * 200 * 2**-24)


def test_updates_pass_through_bitwise():
    for link in (optim.swa(), optim.weight_ema()):
        updates = {"a": jnp.ones(2)}
        assert link.update(updates, link.init(updates), updates)[0] is updates


def test_the_first_average_is_exactly_the_parameters():
    problem = problems.tanh_net()
    for link, steps in ((optim.swa(), 1), (optim.swa(start=3), 4), (optim.weight_ema(), 1)):
        path, _, state = trajectory(optimiser(link), problem, steps)
        assert_trees_equal(optim.averaged_params(state, path[-1]), path[-1])


def test_before_the_start_the_current_parameters_are_returned():
    averages, state = numbers(optim.swa(start=2), [3.0, 5.0, 7.0, 9.0])
    assert averages == [3.0, 5.0, 7.0, 8.0]
    assert float(state.average) == 8.0


def test_a_schedule_of_the_decay_is_read_at_the_number_of_updates():
    decays = jnp.array([0.9, 0.5, 0.0, 0.25])
    averages, _ = numbers(optim.weight_ema(lambda count: decays[count]), [1.0, 3.0, 5.0, 9.0])
    assert averages == [1.0, 2.0, 5.0, 8.0]


def test_the_warm_up_of_the_decay_is_the_recursion():
    values = np.round(16 * np.random.default_rng(0).normal(size=40)) / 16  # sums are exact
    start, decay = 3, 0.6  # (1 + t) / (10 + t) reaches it at t = 12.5
    average, wanted = values[0], []
    for count, value in enumerate(values):
        since = count - start
        tau = 0.0 if since < 0 else min(decay, (1 + since) / (10 + since))
        average = tau * average + (1 - tau) * value
        wanted.append(average)
    averages, _ = numbers(optim.weight_ema(decay, warm_up=True, start=start), values)
    np.testing.assert_allclose(averages, wanted, atol=1e-5)
    assert averages[:3] == values[:3].tolist()
    # Negative controls: without either, and a start one update later.
    for other in (optim.weight_ema(decay), optim.weight_ema(decay, warm_up=True, start=4)):
        assert np.abs(np.subtract(numbers(other, values)[0], wanted)).max() > 1e-2

    @jax.jit  # a start that is traced
    def last_average(start):
        tx = optim.weight_ema(decay, warm_up=True, start=start)
        state = tx.init(jnp.zeros(()))
        for value in values[:8]:
            _, state = tx.update(jnp.asarray(value), state, jnp.zeros(()))
        return state.average

    np.testing.assert_allclose(last_average(start), wanted[7], atol=1e-5)


def test_the_average_is_wide_and_of_the_rounded_parameters():
    # In bfloat16 256 + 1 is 256 and 256 + 2 is 258: the mean of many of both is not a bfloat16.
    values = [256.0, 258.0, 258.0, 258.0] * 50
    for link, wanted in ((optim.swa(), 257.5), (optim.swa(every=4), 256.0)):
        _, state = numbers(link, values, jnp.bfloat16)
        assert state.average.dtype == jnp.float32
        np.testing.assert_allclose(float(state.average), wanted, rtol=1e-6)
        assert optim.averaged_params(state, jnp.zeros((), jnp.bfloat16)).dtype == jnp.bfloat16
    # params + update is rounded as optax.apply_updates does it, before it is averaged.
    link, w, update = optim.swa(), jnp.bfloat16(256), jnp.bfloat16(1)
    _, state = link.update(update, link.init(w), w)
    assert float(state.average) == float(optax.apply_updates(w, update)) == 256.0
    with jax.enable_x64(True):
        state = link.init(jnp.zeros(2, jnp.float64))
        assert state.average.dtype == jnp.float64


def test_a_broken_step_that_is_not_averaged_leaves_no_trace():
    link, w = optim.swa(every=2), jnp.zeros(())
    state = link.init(w)
    for update in (1.0, jnp.nan, 3.0):
        _, state = link.update(jnp.asarray(update), state, w)
    assert float(state.average) == 2.0


def test_the_state_is_found_wherever_the_chain_put_it():
    problem = problems.tanh_net()
    wanted = None
    for tx in (
        optimiser(optim.swa(1)),
        optax.chain(optim.sam(0.1), optax.chain(optax.sgd(0.05, momentum=0.9), optim.swa(1))),
        optax.named_chain(
            ("sam", optim.sam(0.1)), ("sgd", optax.sgd(0.05, momentum=0.9)), ("swa", optim.swa(1))
        ),
        optimiser(optax.inject_hyperparams(optim.swa)(start=1)),
    ):
        path, _, state = trajectory(tx, problem, 4)
        result = optim.averaged_params(state, path[-1])
        wanted = result if wanted is None else wanted
        assert trees_close(result, wanted, 1e-6)
        assert jax.eval_shape(lambda s=state: s) == jax.eval_shape(tx.init, problem.params)


def test_no_average_and_several_are_refused():
    params = {"w": jnp.ones(2)}
    both = optax.chain(optax.sgd(0.1), optim.swa(), optim.weight_ema())
    state = both.init(params)
    with pytest.raises(ValueError, match="holds 2 averages.*state\\[-1\\]"):
        optim.averaged_params(state, params)
    assert_trees_equal(optim.averaged_params(state[-1], params), params)
    with pytest.raises(ValueError, match="holds 0 averages.*last link"):
        optim.averaged_params(optax.sgd(0.1).init(params), params)


def test_wrong_arguments_are_named():
    for make, match in (
        (lambda: optim.swa(start=-1), "start must be"),
        (lambda: optim.swa(every=0), "every must be a whole number"),
        (lambda: optim.weight_ema(1.5), "decay must lie"),
        (lambda: optim.weight_ema(-0.5), "decay must lie"),
        (lambda: optim.weight_ema(start=-1), "start must be"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
    link = optim.swa()
    with pytest.raises(ValueError, match="state, params"):
        link.update(jnp.ones(2), link.init(jnp.ones(2)))


@pytest.mark.devices
def test_scan_donation_and_shared_devices():
    tx = optax.chain(optax.sgd(0.1), optim.weight_ema(0.5))
    params = jnp.array([1.0, 2.0])

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(params, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = params, tx.init(params)
    (last, state), _ = jax.lax.scan(step, start, length=3)
    donating = jax.jit(lambda carry: step(carry, None)[0], donate_argnums=0)
    carry = jnp.copy(params), tx.init(params)
    for _ in range(3):
        carry = donating(carry)
    assert_trees_equal(
        optim.averaged_params(carry[1], carry[0]), optim.averaged_params(state, last)
    )
    spec = jax.sharding.PartitionSpec()
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("devices",))
    replicated = jax.shard_map(
        lambda params, state: step((params, state), None)[0],
        mesh=mesh,
        in_specs=(spec, spec),
        out_specs=spec,
    )
    shared = jax.jit(replicated)(*start)
    assert_trees_equal(shared, step(start, None)[0])
