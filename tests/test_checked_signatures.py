"""The checks of the public signatures find what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked_signatures import checked, public_functions

from sam_jax import metrics, optim
from sam_jax.typing import AnyArray, Array, Float, Num, Scalar


def scaled(x: Num[AnyArray, " n"], factor: Scalar = 1.0) -> Float[Array, " n"]:
    return jnp.asarray(x, jnp.float32) * factor


def test_public_functions_can_be_checked():
    for room in (metrics, optim):
        functions = public_functions(room)
        assert len(functions) > 20
        assert all(checked(f).__wrapped__ is f for f in functions.values())
    curve = checked(metrics.loss_curve)
    assert curve(jnp.sum, jnp.ones(2), jnp.ones(2), np.arange(3.0)).shape == (3,)


@pytest.mark.parametrize("factor", [1, 2.0, np.float64(2), jnp.float32(3)])
def test_what_is_annotated_passes(factor):
    assert checked(scaled)(np.arange(3), factor).shape == (3,)
    jax.jit(checked(scaled))(jnp.arange(3.0), factor)
    jax.vmap(checked(scaled))(jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ((np.ones((2, 3)),), "x"),
        (([1.0, 2.0],), "x"),
        ((np.ones(3), np.ones(3)), "factor"),
    ],
)
def test_other_arguments_do_not(arguments, wrong):
    with pytest.raises(TypeError, match=f"scaled: {wrong}"):
        checked(scaled)(*arguments)


def test_another_result_does_not():
    def shorter(x: Num[AnyArray, " n"]) -> Num[AnyArray, " n"]:
        return x[1:]

    def fields(x: Num[AnyArray, " points"]) -> metrics.LossLine:
        return metrics.LossLine(x, x[1:])

    with pytest.raises(TypeError, match="shorter: the result: not as annotated"):
        checked(shorter)(np.ones(3))
    with pytest.raises(TypeError, match="fields: the field distances of the result"):
        checked(fields)(np.ones(3))


def test_the_words_of_the_function_come_first():
    def refuses(x: float) -> float:
        raise ValueError("x must be a number")

    with pytest.raises(ValueError, match="x must be a number"):
        checked(refuses)("three")
