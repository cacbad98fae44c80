"""What stands in for grad_fn in other trainers: the same steps as the chain's, bit for bit."""

import jax
import jax.numpy as jnp
import optax
import problems
import pytest
from contract_runs import (
    RHO,
    arguments,
    assert_trees_close,
    assert_trees_equal,
    state_at,
    trees_close,
    update,
)
from contract_table import named, over
from flax import nnx
from flax.training.train_state import TrainState

import sam_jax
from sam_jax import optim

SGD = optax.sgd(0.1, momentum=0.9)
as_pure = nnx.as_pure if hasattr(nnx, "as_pure") else nnx.pure  # its name in older Flax


# --- value_and_grad ---------------------------------------------------------------------------


def values_of(problem):
    """(params, ...) -> ((loss, outputs), gradient); the loss is that of `params` alone."""

    def value_and_grad_fn(params, batch=None, term=None):
        loss = problem.loss_fn(params, problem.or_whole(batch))
        return (loss, {"at": params}), problem.grad_fn(params, batch, term)

    return value_and_grad_fn


@jax.disable_jit()
@over("passes")
def test_value_and_grad_gives_the_methods_gradient_and_state(case):
    problem, tx = problems.dense_net(), case.make(RHO)
    state = state_at(tx, problem, case.perturbs)
    wanted, wanted_state = update(tx, problem, state)
    value_and_grad = sam_jax.value_and_grad(tx, values_of(problem))
    (_, gradient), new = value_and_grad(problem.params, state, **arguments(problem))
    assert_trees_close(gradient, wanted)
    assert jax.tree.structure(new) == jax.tree.structure(wanted_state)


@jax.disable_jit()
@over(cases=named("sam", "gsam", "interval_sam", "average_sam"))
def test_the_value_is_that_at_the_parameters_where_the_method_passes_there(case):
    problem, tx = problems.dense_net(), case.make(RHO)
    value_and_grad = sam_jax.value_and_grad(tx, values_of(problem))
    ((loss, outputs), gradient), _ = value_and_grad(problem.params, tx.init(problem.params))
    assert loss == problem.loss_fn(outputs["at"], problem.batch)
    if case.needs_clean:
        assert_trees_equal(outputs["at"], problem.params)
    else:
        assert_trees_equal(gradient, problem.grad_fn(outputs["at"]))


def test_the_value_and_grad_of_jax_and_a_batch_for_m_sam():
    problem = problems.dense_net()
    tx = sam_jax.m_sam(sam_jax.sam(RHO), 2)
    value_and_grad = sam_jax.value_and_grad(tx, jax.value_and_grad(problem.loss_fn))
    state = tx.init(problem.params)
    (loss, gradient), _ = value_and_grad(problem.params, state, batch=problem.batch)
    assert_trees_close(gradient, update(tx, problem)[0])
    assert loss == pytest.approx(float(problem.loss_fn(problem.params, problem.batch)), rel=1e-6)


def test_value_and_grad_refuses_a_chain():
    with pytest.raises(ValueError, match="takes a sharpness-aware transformation.*optimiser"):
        sam_jax.value_and_grad(optax.chain(sam_jax.sam(RHO), SGD), jax.value_and_grad(jnp.sum))


# --- Flax's TrainState ------------------------------------------------------------------------


class State(TrainState):
    """With a field and an apply_gradients of its own, as trainers have them."""

    steps_twice: int = 0

    def apply_gradients(self, *, grads, **fields):
        new = super().apply_gradients(grads=grads, **fields)
        return new.replace(steps_twice=new.steps_twice + 2)


def train_state(tx, problem):
    return State.create(apply_fn=None, params=problem.params, tx=tx)


def test_apply_gradients_hands_grad_fn_to_the_chain():
    problem = problems.dense_net()
    tx = optax.chain(sam_jax.sam(RHO), SGD)
    state, traces = train_state(tx, problem), []

    @jax.jit
    def step(state, batch):
        traces.append(None)
        local = problem._replace(batch=batch)
        return sam_jax.apply_gradients(state, local.grad_fn(state.params), grad_fn=local.grad_fn)

    params, opt_state = problem.params, tx.init(problem.params)
    for _ in range(3):
        state = step(state, problem.batch)
        updates, opt_state = update(tx, problem, opt_state, params)
        params = optax.apply_updates(params, updates)
    assert_trees_close(state.params, params)
    assert (int(state.step), int(state.steps_twice)) == (3, 6)
    assert state.tx is tx and len(traces) == 1  # no closure of a step stays behind


def test_apply_gradients_of_flax_alone_misses_grad_fn():
    problem = problems.dense_net()
    state = train_state(optax.chain(sam_jax.sam(RHO), SGD), problem)
    with pytest.raises(ValueError, match="needs grad_fn"):
        state.apply_gradients(grads=problem.grad_fn(problem.params))


def test_a_train_state_whose_tx_is_the_optimiser_alone():
    problem, method = problems.dense_net(), sam_jax.sam(RHO)
    value_and_grad = sam_jax.value_and_grad(
        method, jax.value_and_grad(lambda params: problem.loss_fn(params, problem.batch))
    )
    (_, grads), _ = value_and_grad(problem.params, method.init(problem.params))
    state = train_state(SGD, problem).apply_gradients(grads=grads)
    chain = train_state(optax.chain(method, SGD), problem)
    wanted = sam_jax.apply_gradients(
        chain, problem.grad_fn(problem.params), grad_fn=problem.grad_fn
    )
    assert_trees_close(state.params, wanted.params)


# --- Flax NNX ---------------------------------------------------------------------------------

X = jax.random.normal(jax.random.key(1), (32, 3))
Y = jnp.sum(X, axis=-1, keepdims=True)


class Net(nnx.Module):
    """Parameters, running statistics and a random stream."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first, self.second = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)


class Passes:
    """A loss that keeps the mask of dropout in every pass."""

    def __init__(self):
        self.masks = []

    def __call__(self, model, x, y):
        mask = model.dropout(jnp.ones((len(x), 8)))
        self.masks.append(jax.lax.stop_gradient(mask))
        return jnp.mean((model.second(jnp.tanh(model.norm(model.first(x))) * mask) - y) ** 2)


def counts_of(model):
    return [int(leaf) for leaf in jax.tree.leaves(as_pure(nnx.state(model, nnx.RngCount)))]


def test_both_passes_of_an_nnx_model_draw_the_same_mask():
    model, loss_fn = Net(), Passes()
    _, grads, grad_fn = sam_jax.nnx_value_and_grad(loss_fn, model, X, Y)
    params = as_pure(nnx.state(model, nnx.Param))
    after_clean = as_pure(nnx.state(model, nnx.Not(nnx.Param)))
    again = grad_fn(params)
    assert_trees_equal(*loss_fn.masks)
    assert_trees_equal(again, as_pure(grads))  # hence at rho = 0 the plain gradient
    # The statistics and counts are those of the clean pass, and advance by one pass.
    assert_trees_equal(as_pure(nnx.state(model, nnx.Not(nnx.Param))), after_clean)
    assert [a - b for a, b in zip(counts_of(model), counts_of(Net()), strict=True)].count(1) == 1
    sam_jax.nnx_value_and_grad(loss_fn, model, X, Y)
    assert bool(jnp.any(loss_fn.masks[-1] != loss_fn.masks[0]))  # the next step draws anew


def test_nnx_grad_inside_grad_fn_draws_a_second_mask():
    """The control: what the adapter is for."""
    model, loss_fn = Net(), Passes()
    nnx.grad(loss_fn)(model, X, Y)
    nnx.grad(loss_fn)(model, X, Y)
    assert bool(jnp.any(loss_fn.masks[0] != loss_fn.masks[1]))
    optimizer = nnx.Optimizer(model, optax.chain(sam_jax.sam(RHO), SGD), wrt=nnx.Param)
    with pytest.raises(ValueError, match="grad_fn"):  # Param objects for pure arrays

        def grad_fn(params):
            nnx.update(model, params)
            return nnx.grad(loss_fn)(model, X, Y)

        optimizer.update(model, nnx.grad(loss_fn)(model, X, Y), grad_fn=grad_fn)


def nnx_trajectory(tx, steps=3):
    model = Net()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        _, grads, grad_fn = sam_jax.nnx_value_and_grad(Passes(), model, X, Y)
        optimizer.update(model, grads, grad_fn=grad_fn)

    for _ in range(steps):
        step(model, optimizer)
    return model


def plain_trajectory(steps=3):
    model = Net()
    optimizer = nnx.Optimizer(model, SGD, wrt=nnx.Param)
    for _ in range(steps):
        optimizer.update(model, nnx.grad(Passes())(model, X, Y))
    return model


def test_sam_of_an_nnx_model_at_rho_zero_is_the_optimiser_alone():
    plain = as_pure(nnx.state(plain_trajectory()))
    zero = as_pure(nnx.state(nnx_trajectory(optax.chain(sam_jax.sam(0.0), SGD))))
    strong = as_pure(nnx.state(nnx_trajectory(optax.chain(sam_jax.sam(RHO), SGD))))

    def largest(tree):
        numbers = [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype == jnp.float32]
        return jnp.concatenate([leaf.ravel() for leaf in numbers])

    assert jnp.max(jnp.abs(largest(zero) - largest(plain))) < 1e-5
    assert jnp.max(jnp.abs(largest(strong) - largest(plain))) > 1e-3


@pytest.mark.parametrize("pure", [False, True])
def test_param_objects_and_pure_arrays_both_fit(pure):
    model = Net()
    loss_fn = Passes()
    (loss, aux), grads, grad_fn = sam_jax.nnx_value_and_grad(
        lambda model, *batch: (loss_fn(model, *batch), "aux"), model, X, Y, has_aux=True
    )
    assert aux == "aux" and jnp.isfinite(loss)
    params = nnx.state(model, nnx.Param)
    if pure:
        params, grads = as_pure(params), as_pure(grads)
    tx = sam_jax.sam(RHO)
    result, _ = tx.update(grads, tx.init(params), params, grad_fn=grad_fn)
    assert jax.tree.structure(result) == jax.tree.structure(params)


def test_the_parameters_of_an_nnx_filter_and_another_batch():
    model = Net()
    kernels = nnx.All(nnx.Param, nnx.PathContains("kernel"))
    _, grads, grad_fn = sam_jax.nnx_value_and_grad(Passes(), model, X, Y, wrt=kernels)
    params = as_pure(nnx.state(model, kernels))
    assert len(jax.tree.leaves(grads)) == len(jax.tree.leaves(params)) == 2
    half = grad_fn(params, X[:16], Y[:16])
    assert jax.tree.structure(half) == jax.tree.structure(params)
    whole = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grad_fn(params))])
    part = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(half)])
    assert jnp.max(jnp.abs(whole - part)) > 1e-3


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_m_sam_of_an_nnx_model(strategy):
    def loss_fn(model, batch):
        return jnp.mean((model.second(jnp.tanh(model.first(batch["x"]))) - batch["y"]) ** 2)

    batch, model = {"x": X, "y": Y}, Net()
    _, grads, grad_fn = sam_jax.nnx_value_and_grad(loss_fn, model, batch)
    params = as_pure(nnx.state(model, nnx.Param))

    def m_sam(rho):
        tx = sam_jax.m_sam(sam_jax.sam(rho), 8, strategy=strategy)
        given = {"grad_fn": grad_fn, "batch": batch}
        return tx.update(as_pure(grads), tx.init(params), params, **given)[0]

    assert_trees_close(m_sam(0.0), as_pure(grads))  # the mean over sub-batches
    assert not trees_close(m_sam(RHO), m_sam(0.0), 1e-2)


def test_every_adapter_is_exported():
    for name in ("value_and_grad", "apply_gradients", "nnx_value_and_grad"):
        assert getattr(sam_jax, name) is getattr(optim, name)
