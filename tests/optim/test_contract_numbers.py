"""Rules over the table: coefficients of every kind of number, norms over the range of float32."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import problems
import pytest
from contract_runs import (
    RHO,
    assert_trees_close,
    assert_trees_equal,
    epsilon_length,
    state_at,
    update,
)
from contract_table import METHODS, named, over
from test_contract import constant_gradient

from sam_jax import optim, pytree

# --- coefficients -------------------------------------------------------------------------------

NUMBERS = {
    "int": 1,
    "float": 0.25,
    "numpy": np.float64(0.25),
    "bfloat16": ml_dtypes.bfloat16(0.25),
    "array": np.array(0.25),
    "jax": jnp.bfloat16(0.25),
}
REFUSED = {
    "inf": (jnp.inf, "{} must be finite, got inf"),
    "nan": (jnp.float32(jnp.nan), "{} must be finite, got nan"),
    "vector": (jnp.array([0.1, 0.2]), r"{} must be one number, got an array of the shape \(2,\)"),
    "text": ("0.1", "{} must be a number or a schedule, got '0.1'"),
    "boolean": (np.bool_(True), "{} must be a number or a schedule, got"),
    "complex": (0.1j, "{} must be a number or a schedule, got 0.1j"),
    "none": (None, "{} must be a number or a schedule, got None"),
}


@jax.disable_jit()
@pytest.mark.parametrize("kind", NUMBERS)
@over("a coefficient", METHODS)
def test_every_kind_of_number_is_a_coefficient(case, kind):
    problem = problems.dense_net()
    number = NUMBERS[kind]
    results = []
    for rho in (number, float(number)):
        tx = case.make(rho)
        results.append(update(tx, problem, state_at(tx, problem, case.perturbs))[0])
    # The arithmetic is that of float32 for each.
    assert_trees_close(*results, tolerance=1e-6)


@pytest.mark.parametrize("kind", REFUSED)
@over("a coefficient", METHODS)
def test_what_is_no_coefficient_is_refused(case, kind):
    value, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message.format(case.coefficient)):
        case.make(value)


@pytest.mark.parametrize("where", ["from outside", "made inside"])
@over("a coefficient", METHODS)
def test_a_transformation_can_be_built_inside_jit(case, where):
    """A jnp coefficient is known there when it comes from outside; both are taken."""
    outside = jnp.float32(RHO)
    params = problems.dense_net().params
    shapes = jax.eval_shape(case.make(RHO).init, params)

    @jax.eval_shape
    def init():
        rho = outside if where == "from outside" else jnp.float32(RHO)
        return case.make(rho).init(params)

    assert init == shapes


@over("a coefficient", METHODS)
def test_a_known_coefficient_is_checked_inside_jit(case):
    negative = jnp.float32(-0.1)
    with pytest.raises(ValueError, match="must be zero or positive, got -0.1"):
        jax.eval_shape(lambda: case.make(negative).init(problems.dense_net().params))


KNOWN_ARGUMENTS = {
    "norm_order": lambda x: optim.sam(RHO, norm_order=x + 2),
    "alpha": lambda x: optim.gsam(RHO, alpha=x / 4),
    "k": lambda x: optim.looksam(RHO, k=jnp.int32(2)),
    "theta": lambda x: optim.vasso(RHO, theta=x / 4),
    "tau": lambda x: optim.mesa(tau=x),
    "gsam_rho": lambda x: optim.gsam(optim.gsam_rho(0.1, x / 8, x / 4, x / 8, x / 4)),
    "every": lambda x: optim.swa(every=jnp.int32(2)),
    "decay": lambda x: optim.weight_ema(x / 2),
    "mask": lambda x: optim.sam(RHO, mask={"Dense_0": x > 0, "LayerNorm_0": True}),
}


@pytest.mark.parametrize("name", KNOWN_ARGUMENTS)
def test_known_arguments_are_taken_inside_jit(name):
    outside = jnp.float32(1.0)
    problem = problems.dense_net()

    @jax.eval_shape
    def result():
        tx = KNOWN_ARGUMENTS[name](outside)
        return update(tx, problem, tx.init(problem.params))[0]

    assert result == jax.eval_shape(lambda: problem.params)


# --- the range of float32 -----------------------------------------------------------------------

SIZES = [1e-37, 1e-30, 1e-18, 1e18, 1e30, 1e37]


@jax.disable_jit()
@pytest.mark.parametrize("entry", SIZES)
@over("a length")
def test_epsilon_has_length_rho_whatever_the_size_of_the_gradient(case, entry):
    params = problems.dense_net().params
    problem = constant_gradient(params, jax.tree.map(lambda w: jnp.full_like(w, entry), params))
    assert bool(jnp.sum(jnp.square(jnp.float32(entry))) in (0, jnp.inf)) or 1e-19 < entry < 1e19
    length = epsilon_length(case, case.make(RHO), problem)
    assert length == pytest.approx(RHO, rel=3e-6)


COMBINED = named("gsam", "wsam", "stable_sam", "looksam", "decoupled_wsam")


@jax.disable_jit()
@pytest.mark.parametrize("factor", [2.0**-100, 2.0**100])
@over(cases=COMBINED)
def test_combinations_scale_with_the_loss(case, factor):
    """A loss times a power of two gives the result times that power, bit for bit."""
    problem = problems.dense_net()

    class Scaled(problems.Problem):
        def grad_fn(self, params, batch=None, term=None):
            return pytree.scale(problem.grad_fn(params, batch, term), factor)

    scaled = Scaled(None, problem.params, problem.batch)
    tx = case.make(RHO)
    state, scaled_state = tx.init(problem.params), tx.init(problem.params)
    for _ in range(2):
        result, state = update(tx, problem, state)
        of_scaled, scaled_state = update(tx, scaled, scaled_state)
        assert_trees_equal(of_scaled, pytree.scale(result, factor))


def test_ascent_of_the_largest_numbers_is_a_unit_vector():
    # The norm itself is more than float32 holds: all entries have the largest finite size.
    tree = {"a": jnp.full(100, 3e38), "b": -jnp.full(44, 3e38)}
    np.testing.assert_allclose(pytree.norm(pytree.normalise(tree)), 1, rtol=1e-6)


def test_fisher_sam_moves_where_the_squared_gradient_overflows():
    params = {"w": jnp.ones(2)}
    gradient = {"w": jnp.array([3e30, 4e30])}
    tx = optim.fisher_sam(RHO, eta=0.25)
    points = []

    def grad_fn(params):
        points.append(params["w"])
        return gradient

    tx.update(gradient, tx.init(params), params, grad_fn=grad_fn)
    # F^-1/2 g is (1, 1) / sqrt(eta): a unit vector times F^-1/2, which is 1 / (sqrt(eta) g).
    wanted = 1 + RHO / np.sqrt(2) / (0.5 * np.array([3e30, 4e30]))
    np.testing.assert_allclose(points[0], wanted, rtol=1e-6)
