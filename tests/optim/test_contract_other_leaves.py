"""Only floating-point leaves that the mask chooses are parameters; all others stay, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import RHO, arguments, assert_trees_equal, state_at, update
from contract_table import METHODS, in_m_sam, named, over

from sam_jax import optim, pytree

OTHERS = {
    "drop": jax.random.PRNGKey(123456789),  # raw key data, which float32 would round
    "key": jax.random.key(7),
    "ids": jnp.arange(8),
    "codes": jnp.full((2, 2), -128, jnp.int8),
    "flag": jnp.array(True),
    "count": 3,
    "nothing": None,
}


def bits(tree):
    """Return every leaf as (dtype, bytes), to compare also NaN and the sign of zero."""

    def of(x):
        x = jax.random.key_data(x) if pytree.is_key(x) else x
        return str(np.asarray(x).dtype), np.asarray(x).tobytes()

    return [of(x) for x in jax.tree.leaves(tree)]


# What grad_fn returns at leaves that have no gradient.
RETURNED = {
    "float0": lambda x: np.zeros(np.shape(x), jax.dtypes.float0),
    "zeros": lambda x: jnp.zeros(np.shape(x), jnp.int8),
    "None": lambda x: None,
}


def with_others(problem, returned, seen):
    """Return the problem with further leaves, whose bits grad_fn notes."""

    def split(params):
        seen.append(bits(params["others"]))
        return params["net"]

    class WithOthers(problems.Problem):
        def grad_fn(self, params, batch=None, term=None):
            net = problem.grad_fn(split(params), self.or_whole(batch), term)
            return {"net": net, "others": jax.tree.map(returned, OTHERS)}

        def losses(self, params, batch=None):
            return problem.losses(split(params), self.or_whole(batch))

        def logits(self, params, batch=None):
            return problem.logits(split(params), self.or_whole(batch))

    return WithOthers(None, {"net": problem.params, "others": OTHERS}, problem.batch)


def frozen_elsewhere(method):
    """Return an optimiser's method whose optimiser leaves the further leaves alone."""
    if not method.wraps:
        return method.make
    optimiser = optax.masked(method.wraps, {"net": True, "others": False})
    return {
        "decoupled_wsam": lambda rho: optim.decoupled_wsam(optimiser, 0.5, rho, gamma=0.75),
        "momentum_sam": lambda rho: optim.momentum_sam(optimiser, rho),
    }[method.name]


@jax.disable_jit()
@pytest.mark.parametrize("returned", RETURNED)
@over(cases=[*METHODS, *(in_m_sam(method) for method in named("sam", "average_sam"))])
def test_leaves_that_are_no_parameters_stay_and_do_not_count(case, returned):
    seen, plain = [], problems.dense_net()
    problem = with_others(plain, RETURNED[returned], seen)
    tx, wanted_tx = frozen_elsewhere(case)(RHO), case.make(RHO)
    state, wanted_state = tx.init(problem.params), wanted_tx.init(plain.params)
    for _ in range(2):
        result, state = update(tx, problem, state)
        wanted, wanted_state = update(wanted_tx, plain, wanted_state)
        assert_trees_equal(result["net"], wanted)
        given = problem.grad_fn(problem.params)["others"]
        assert bits(result["others"]) == bits(given)
    assert len(seen) > 2 and all(found == bits(OTHERS) for found in seen)


@over("a mask", METHODS)
def test_leaves_that_the_mask_leaves_out_reach_grad_fn_bit_for_bit(case):
    # -0 + 0 is 0, and a NaN or a tiny number may change on its way through float32.
    odd = jnp.array([-0.0, jnp.nan, 1e-40, 2.0], jnp.float32)
    left_out = {"odd": odd, "complex": jnp.array([1 + 2j]), "half": jnp.array([1.1], jnp.bfloat16)}
    seen, net = [], problems.dense_net()

    class LeftOut(problems.Problem):
        def grad_fn(self, params, batch=None, term=None):
            seen.append(bits(params["left_out"]))
            gradient = net.grad_fn(params["net"], self.or_whole(batch), term)
            return {"net": gradient, "left_out": jax.tree.map(jnp.ones_like, left_out)}

        def losses(self, params, batch=None):
            return net.losses(params["net"], self.or_whole(batch))

        def logits(self, params, batch=None):
            return net.logits(params["net"], self.or_whole(batch))

    problem = LeftOut(None, {"net": net.params, "left_out": left_out}, net.batch)
    with jax.disable_jit():
        tx = case.make(RHO, mask={"net": True, "left_out": False})
        update(tx, problem, state_at(tx, problem, case.perturbs))
    assert len(seen) > 1 and all(found == bits(left_out) for found in seen)


def test_a_chosen_complex_leaf_is_refused():
    params = {"w": jnp.array([1 + 2j])}
    tx = optim.sam(RHO)
    with pytest.raises(ValueError, match=r"split \['w'\] in two real arrays, or leave it out"):
        tx.update(params, tx.init(params), params, grad_fn=lambda params: params)


def test_no_rho_is_the_plain_gradient_of_mixed_leaves():
    params = {"w": jnp.array([1.0, -0.0]), "drop": jax.random.PRNGKey(123456789)}

    def loss(params):
        noise = jax.random.normal(params["drop"], (2,))
        return jnp.sum((params["w"] + noise) ** 2)

    grad_fn = jax.grad(loss, allow_int=True)
    plain = jax.jit(grad_fn)(params)

    @jax.jit
    def step(params):
        tx = optim.sam(0.0)
        return tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]

    result = step(params)
    assert result["w"].tobytes() == plain["w"].tobytes()
    assert result["drop"].dtype == jax.dtypes.float0
    # The key decides: rounded through float32 it would give another gradient.
    rounded = params | {"drop": params["drop"].astype(jnp.float32).astype(jnp.uint32)}
    assert bool(jnp.any(grad_fn(rounded)["w"] != plain["w"]))


def test_the_pure_function_gives_float0_where_no_pass_was_made_at_w():
    params = {"w": jnp.ones(2), "ids": jnp.arange(3)}

    def grad_fn(params):
        return {"w": 2 * params["w"], "ids": None}, params["ids"]

    tx = optim.average_sam(RHO, jax.random.key(0))
    result, _ = tx.gradient(grad_fn, params, tx.init(params))
    assert result.gradient["ids"].dtype == jax.dtypes.float0
    assert result.gradient["ids"].shape == (3,)
    assert bits(result.perturbed_aux) == bits(params["ids"])


# --- numbers for arrays -------------------------------------------------------------------------


def numbers_problem(params):
    def loss_fn(params, batch):
        return jnp.mean((batch["x"] * params["a"] + params["b"] - batch["y"]) ** 2)

    def logits_fn(params, batch):
        line = batch["x"] * params["a"] + params["b"]
        return jnp.stack([line, -line], axis=-1)

    x = jnp.arange(8.0) / 4
    batch = {"x": x, "y": jnp.sin(x)[:, None] * jnp.ones((1, 2))}

    class Numbers(problems.Problem):
        def grad_fn(self, params, batch=None, term=None):
            def loss(params):
                logits = logits_fn(params, self.or_whole(batch))
                value = jnp.mean((logits - self.or_whole(batch)["y"]) ** 2)
                return value + (0 if term is None else term(logits))

            return jax.grad(loss)(params)

    return Numbers(loss_fn, params, batch, logits_fn)


@over(cases=[method for method in METHODS if not method.name.startswith("sam_on")])
def test_a_python_number_stands_for_an_array(case):
    with jax.disable_jit():
        tx = case.make(RHO)
        results = []
        for params in (
            {"a": 0.5, "b": np.float32(-0.25)},
            {"a": jnp.float32(0.5), "b": jnp.float32(-0.25)},
        ):
            problem, state = numbers_problem(params), tx.init(params)
            for _ in range(2):
                result, state = update(tx, problem, state)
            results.append(result)
    np.testing.assert_array_equal(*(np.stack(jax.tree.leaves(r)) for r in results))


@over()
def test_init_takes_shapes_in_the_place_of_arrays(case):
    params = problems.dense_net().params
    tx = case.make(RHO)
    wanted = jax.eval_shape(tx.init, params)
    shapes = jax.eval_shape(lambda: params)
    assert jax.eval_shape(tx.init, shapes) == wanted
    assert jax.eval_shape(lambda: tx.init(shapes)) == wanted


# --- what fits ----------------------------------------------------------------------------------


def refused_gradients():
    params = problems.dense_net().params
    good = problems.dense_net().grad_fn(params)
    kernel = good["Dense_0"]["kernel"]

    def replaced(leaf):
        return good | {"Dense_0": good["Dense_0"] | {"kernel": leaf}}

    return {
        "none": (replaced(None), r"\['Dense_0'\]\['kernel'\].*\(4, 2\).*float32, got None"),
        "shape": (replaced(kernel.T), r"\['kernel'\].*got one of the shape \(2, 4\)"),
        "dtype": (replaced(kernel.astype(int)), r"\['kernel'\].*got one of the dtype int32"),
        "missing": ({"Dense_0": good["Dense_0"]}, r"returned none at \['LayerNorm_0'\]\['bias'\]"),
        "unknown": (good | {"extra": kernel}, r"returned one at \['extra'\], where params"),
        "containers": (list(good.values()), r"returned none at \['Dense_0'\]\['bias'\]"),
    }


@pytest.mark.parametrize("name", refused_gradients())
def test_the_first_gradient_that_does_not_fit_is_named(name):
    gradient, message = refused_gradients()[name]
    problem = problems.dense_net()
    tx = optim.sam(RHO)
    given = {"grad_fn": lambda params: gradient, **arguments(problem)}
    for clean in (gradient, problem.grad_fn(problem.params)):
        with pytest.raises(ValueError, match=message):
            tx.update(clean, tx.init(problem.params), problem.params, **given)


@over("passes")
def test_an_unfiltered_module_is_sent_to_its_parameters(case):
    params = {"w": jnp.ones(2), "activation": jnp.tanh}
    with pytest.raises(ValueError, match=r"at \['activation'\].*eqx.filter\(model"):
        case.make(RHO).init(params)


def test_a_mask_that_can_be_called_but_is_a_tree_is_read():
    import equinox as eqx

    class Model(eqx.Module):
        norm: eqx.nn.LayerNorm
        dense: eqx.nn.Linear

        def __call__(self, x):
            return self.dense(self.norm(x))

    model = Model(eqx.nn.LayerNorm(3), eqx.nn.Linear(3, 2, key=jax.random.key(0)))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def grad_fn(params):
        return jax.grad(lambda p: jnp.sum(eqx.combine(p, static)(jnp.arange(3.0)) ** 2))(params)

    moved = []

    def noting(params):
        moved.append(params)
        return grad_fn(params)

    tx = optim.sam(RHO, mask=optim.norm_layers(params))
    tx.update(grad_fn(params), tx.init(params), params, grad_fn=noting)
    assert bits(moved[0].dense) == bits(params.dense)
    assert bits(moved[0].norm) != bits(params.norm)
