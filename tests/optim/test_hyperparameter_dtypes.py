"""Numbers close to 1 that a low precision rounds to 1: a warning, and the way to keep them."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest

from sam_jax import optim

# What counts by its distance from 1: (constructor with that argument, its name, a usual value).
CLOSE_TO_ONE = {
    "weight_ema": (optim.weight_ema, "decay", 0.999),
    "mesa": (optim.mesa, "decay", 0.9995),
    "friendly_sam": (optim.friendly_sam, "lmbda", 0.999),
    "ae_sam": (optim.ae_sam, "decay", 0.999),
    "wsam": (optim.wsam, "gamma", 0.999),
}
WARNING = "is 0.*hyperparam_dtype=jnp.float32"
close_to_one = pytest.mark.parametrize("name", CLOSE_TO_ONE)


def build(name, value):
    constructor, argument, _ = CLOSE_TO_ONE[name]
    return constructor(**{argument: value})


@pytest.fixture
def silence():
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def bfloat16_params():
    return problems.tanh_net(dtype=jnp.bfloat16).params


@close_to_one
def test_a_number_that_its_dtype_rounds_to_one_is_told(name):
    constructor, argument, usual = CLOSE_TO_ONE[name]
    for rounded in (jnp.asarray(usual, jnp.bfloat16), np.float32(1 - 1e-9)):
        with pytest.warns(UserWarning, match=f"{argument} is 1 in .*{WARNING}"):
            if name in ("mesa", "wsam"):  # which cannot take a 1 at all
                with pytest.raises(ValueError, match=argument):
                    build(name, rounded)
            else:
                build(name, rounded)


@close_to_one
def test_the_dtype_of_a_traced_number_tells(name):
    constructor, argument, usual = CLOSE_TO_ONE[name]

    def trace(value):
        jax.eval_shape(lambda value: build(name, value) and value, value)

    for dtype, largest in ((jnp.bfloat16, "0.9961"), (jnp.float8_e4m3fn, "0.9375")):
        message = f"{argument} is kept in {jnp.dtype(dtype)}, where numbers above {largest} "
        with pytest.warns(UserWarning, match=message + f".*{WARNING}"):
            trace(jnp.asarray(usual, dtype))


@pytest.mark.usefixtures("silence")
@close_to_one
def test_what_is_not_rounded_to_one_passes_in_silence(name):
    usual = CLOSE_TO_ONE[name][2]
    for value in (usual, 0.5, np.float64(usual), jnp.float32(usual), jnp.asarray(0.5, "bfloat16")):
        build(name, value)
    jax.eval_shape(lambda value: build(name, value) and value, jnp.float32(usual))
    optim.weight_ema(1), optim.weight_ema(1.0)  # as the user says, an average that stays


@close_to_one
def test_inject_hyperparams_with_bfloat16_parameters(name):
    constructor, argument, usual = CLOSE_TO_ONE[name]
    params = bfloat16_params()
    injected = optax.inject_hyperparams(constructor)(**{argument: usual})
    with pytest.warns(UserWarning, match=WARNING):
        jax.eval_shape(injected.init, params)  # traced, so that also mesa takes it
    wide = optax.inject_hyperparams(constructor, hyperparam_dtype=jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = wide(**{argument: usual}).init(params)
    assert state.hyperparams[argument] == np.float32(usual) != 1


def averaged_after(updates, **keywords):
    """The average of parameters that start at 1 and rise by 1 an update, decay 0.999."""
    params = jnp.ones((), jnp.bfloat16)
    tx = optax.inject_hyperparams(optim.weight_ema, **keywords)(decay=0.999)
    state = tx.init(params)
    for _ in range(updates):
        _, state = tx.update(jnp.ones_like(params), state, params)
        params = optax.apply_updates(params, jnp.ones_like(params))
    return float(state.inner_state.average)


def test_the_average_moves_only_with_the_wider_dtype():
    # After the first update the parameters are 2, and 2 + 0.001 after the second.
    with pytest.warns(UserWarning, match=WARNING):
        assert averaged_after(2) == 2.0
    assert averaged_after(2, hyperparam_dtype=jnp.float32) == pytest.approx(2.001, abs=1e-6)


def test_the_warning_is_shown_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            inspect.unwrap(optim.weight_ema)(jnp.asarray(0.999, jnp.bfloat16))
    assert len(caught) == 1 and caught[0].filename == __file__


def test_a_weight_of_the_new_gradient_is_not_rounded():
    # vasso's theta and entropy_sgd's alpha are small numbers, which bfloat16 keeps to 0.4 %.
    gradient, params = jnp.array([1.0, 0.0]), jnp.zeros(2)
    tx = optim.vasso(0.1, theta=jnp.asarray(0.001, jnp.bfloat16))
    _, state = tx.update(gradient, tx.init(params), params, grad_fn=lambda w: gradient)
    _, state = tx.update(2 * gradient, state, params, grad_fn=lambda w: gradient)
    np.testing.assert_allclose(state.average[0], 1.001, rtol=1e-5)
