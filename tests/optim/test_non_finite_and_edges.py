"""Steps that went wrong once, gradients of other dtypes, and parameters of unusual shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from jax.sharding import Mesh, PartitionSpec

from sam_jax import optim

RHO = 0.2
REMEMBERING = {
    "vasso": lambda: optim.vasso(RHO),
    "friendly_sam": lambda: optim.friendly_sam(RHO),
    "friendly_sam, code": lambda: optim.friendly_sam(RHO, order="code"),
    "extrap_sgd": lambda: optim.extrap_sgd(RHO),
    "ae_sam": lambda: optim.ae_sam(RHO),
    "looksam": lambda: optim.looksam(RHO, k=2),
}


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("bad_step", [0, 1])
@pytest.mark.parametrize("name", REMEMBERING)
def test_one_gradient_that_is_not_finite_does_not_end_the_training(name, bad_step, value):
    problem = problems.tanh_net()
    tx = REMEMBERING[name]()
    state = tx.init(problem.params)
    for step in range(4):
        factor = value if step == bad_step else 1.0

        def grad_fn(params, factor=factor):
            return jax.tree.map(lambda g: factor * g, problem.grad_fn(params))

        update, state = tx.update(grad_fn(problem.params), state, problem.params, grad_fn=grad_fn)
        is_finite = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(update))
        assert is_finite == (step != bad_step)


@pytest.mark.parametrize("lmbda", [0.6, 0.9, 0.95])
def test_friendly_sam_finds_nothing_of_its_own_in_equal_gradients(lmbda):
    params = jnp.array([0.1, 0.7, -0.3])
    tx, gradient = optim.friendly_sam(RHO, lmbda=lmbda), jnp.array([0.1, 0.37, 1.3])
    state, seen = tx.init(params), []
    for _ in range(5):
        _, state = tx.update(gradient, state, params, grad_fn=lambda w: seen.append(w) or gradient)
    assert all(bool(jnp.all(w == params)) for w in seen) and len(seen) == 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.looksam(RHO, k=2),
        lambda: optim.interval_sam(RHO, k=2),
        lambda: optim.ss_sam(RHO),
        lambda: optim.ae_sam(RHO),
    ],
)
def test_scheduled_methods_take_unscaled_gradients_of_another_dtype(make):
    problem = problems.tanh_net(dtype=jnp.bfloat16)
    tx = make()

    @jax.jit
    def step(state):
        accumulated = jax.tree.map(jnp.float32, problem.grad_fn(problem.params))
        return tx.update(accumulated, state, problem.params, grad_fn=problem.grad_fn)

    state = tx.init(problem.params)
    for _ in range(3):
        update, state = step(state)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(update))


def test_looksam_keeps_a_direction_of_bfloat16_gradients():
    # g_v is 5 % of g here: far above the rounding of bfloat16, which is 0.4 % of g.
    hessian = jnp.diag(jnp.array([1.0, 1.5], jnp.bfloat16))
    params = jnp.array([1.0, 1.0], jnp.bfloat16)
    tx = optim.looksam(0.6, k=2)
    _, state = tx.update(hessian @ params, tx.init(params), params, grad_fn=lambda w: hessian @ w)
    np.testing.assert_allclose(jnp.linalg.norm(state.schedule.direction), 1.0, rtol=1e-3)


@pytest.mark.parametrize("params", [{}, {"a": None}])
@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.sam(RHO),
        lambda: optim.sam(RHO, norm_order=jnp.inf),
        lambda: optim.average_sam(RHO, jax.random.key(0)),
        lambda: optim.smooth_out(RHO, jax.random.key(0)),
        lambda: optim.looksam(RHO),
    ],
)
def test_no_parameters_are_no_problem(make, params):
    tx = make()
    update, _ = tx.update(params, tx.init(params), params, grad_fn=lambda w: w)
    assert update == params


def test_complex_parameters_are_refused():
    params = jnp.array([3 + 4j])
    tx = optim.sam(RHO)
    with pytest.raises(ValueError, match="complex parameters are not perturbed"):
        tx.update(params, tx.init(params), params, grad_fn=lambda w: w)


def test_a_plain_number_is_a_parameter():
    update, _ = optim.sam(0.5).update(2.0, optim.sam(0.5).init(1.0), 1.0, grad_fn=lambda w: 2 * w)
    assert float(update) == 3.0


def test_averages_of_several_runs_at_once():
    tx = optax.chain(optax.sgd(0.1), optim.swa(start=1))
    params = {"w": jnp.arange(12.0).reshape(4, 3), "b": jnp.arange(4.0)[:, None]}
    states = jax.vmap(tx.init)(params)
    for _ in range(2):
        _, states = jax.vmap(tx.update)(params, states, params)
    together = optim.averaged_params(states, params)
    one_by_one = jax.vmap(optim.averaged_params)(states, params)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(one_by_one), strict=True):
        assert a.shape == b.shape and bool(jnp.all(a == b))


@pytest.mark.devices
@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.esam(RHO, gamma=0.5),
        lambda: optim.entropy_sgd(1.0, jax.random.key(0), steps=2),
    ],
)
def test_a_method_that_divides_its_batch_wants_it_on_one_device(make):
    problem = problems.tanh_net(examples=16)
    mesh = Mesh(np.array(jax.devices()[:8]), ("devices",))
    tx = optim.m_sam(make(), 4, axis_name="devices")  # of two examples a device

    def step(params, state, batch):
        return tx.update(
            params, state, params, grad_fn=problem.grad_fn, batch=batch, losses_fn=problem.losses
        )[0]

    split, whole = PartitionSpec("devices"), PartitionSpec()
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(whole, whole, split), out_specs=whole, check_vma=False
    )
    with pytest.raises(ValueError, match="one device.*m = 4 is spread over 2.*2 examples"):
        mapped(problem.params, tx.init(problem.params), problem.batch)
