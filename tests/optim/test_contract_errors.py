"""Every misuse of a transformation is refused with a message that says what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import RHO, arguments, assert_trees_equal, state_at, update
from contract_table import METHODS, in_m_sam, named, over

from sam_jax import optim, pytree

(SAM,) = named("sam")


def kernels_only(params):
    return jax.tree.map(lambda w: w.ndim > 1, params)


@pytest.mark.parametrize("missing, name", [("grad_fn", "grad_fn"), ("params", "parameters")])
@over("passes")
def test_a_missing_argument_is_named(case, missing, name):
    problem = problems.dense_net()
    tx = case.make(RHO)
    given = {"params": problem.params, "grad_fn": problem.grad_fn, **arguments(problem)}
    del given[missing]
    with pytest.raises(ValueError, match=f"needs.*{name}.*tx.update"):
        tx.update(problem.grad_fn(problem.params), tx.init(problem.params), **given)


@over("a coefficient")
def test_a_negative_coefficient_is_refused(case):
    with pytest.raises(ValueError, match=f"{case.coefficient} must be zero or positive, got -0.1"):
        case.make(-0.1)


@over("a coefficient")
def test_an_optimiser_in_the_place_of_the_coefficient_is_refused(case):
    with pytest.raises(ValueError, match=f"{case.coefficient} must be a number or a schedule"):
        case.make(optax.sgd(0.1))


@over("passes")
def test_a_grad_fn_with_auxiliary_outputs_is_sent_to_the_pure_function(case):
    problem, tx = problems.dense_net(), case.make(RHO)
    state = state_at(tx, problem, case.perturbs)
    with pytest.raises(ValueError, match="tx.gradient, whose grad_fn returns"):
        update(tx, problem, state, grad_fn=problem.aux_grad_fn)


@over("passes")
def test_optax_masked_is_sent_to_the_mask_argument(case):
    problem = problems.dense_net()
    tx = optax.masked(case.make(RHO), kernels_only)
    with pytest.raises(ValueError, match="(?s)optax.masked hides leaves.*mask=mask"):
        update(tx, problem)


def without_bias(tree):
    return tree | {"Dense_0": {"kernel": tree["Dense_0"]["kernel"]}}


def with_bias(value):
    return lambda tree: tree | {"Dense_0": tree["Dense_0"] | {"bias": value}}


WRONG_GRADIENTS = {  # name -> (what becomes of a gradient, what the error says)
    "a leaf less": (without_bias, r"returned none at \['Dense_0'\]\['bias'\]"),
    "a leaf more": (lambda tree: tree | {"other": 0.0}, r"returned one at \['other'\]"),
    "another shape": (
        with_bias(jnp.zeros(7)),
        r"\['bias'\] wanted one of the shape \(2,\).*shape \(7,\)",
    ),
    "integers": (with_bias(jnp.zeros(2, jnp.int32)), r"\['bias'\].*dtype int32"),
    "complex": (with_bias(jnp.zeros(2, jnp.complex64)), r"\['bias'\].*dtype complex64"),
    "text": (with_bias("bias"), r"\['bias'\].*got a str"),
    "none": (lambda tree: None, "structure of the parameters"),
    "one number": (lambda tree: jnp.zeros(()), "structure of the parameters"),
}


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
@over("passes")
def test_gradients_that_do_not_fit_are_refused_wherever_they_come_from(case, name):
    change, message = WRONG_GRADIENTS[name]
    problem, tx = problems.dense_net(), case.make(RHO)
    state = tx.init(problem.params)

    def grad_fn(params, batch=None, term=None):
        return change(problem.grad_fn(params, batch, term))

    late = state_at(tx, problem, case.perturbs)
    with pytest.raises(ValueError, match=f"grad_fn must return.*{message}"):
        update(tx, problem, late, grad_fn=grad_fn)
    given = {"grad_fn": problem.grad_fn, **arguments(problem)}
    with pytest.raises(ValueError, match=f"grad_fn must return.*{message}"):
        tx.update(change(problem.grad_fn(problem.params)), state, problem.params, **given)


@over("passes")
def test_gradients_in_the_place_of_grad_fn_are_refused(case):
    problem, tx = problems.dense_net(), case.make(RHO)
    gradient = problem.grad_fn(problem.params)
    with pytest.raises(ValueError, match="grad_fn must be a function.*got a dict"):
        update(tx, problem, grad_fn=gradient)


def shapes(state):
    return jax.tree.structure(state), [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]


def tx_state(case, problem):
    return case.make(RHO).init(problem.params)


@over()
def test_a_state_of_another_method_is_refused(case):
    problem = problems.dense_net()
    tx, others = case.make(RHO), {"": (), "a chain": (tx_state(SAM, problem), optax.EmptyState())}
    for other in METHODS:
        others[other.name] = tx_state(other, problem)
    wanted = shapes(tx.init(problem.params))
    refused = [name for name, state in others.items() if shapes(state) != wanted]
    assert len(refused) > len(METHODS) / 2
    for name in refused:
        with pytest.raises(ValueError, match="The state is not one.*tx.init"):
            update(tx, problem, others[name])
    if case.memory:  # which has the shapes of the parameters, or of what the method was told
        params = jax.tree.map(lambda w: jnp.zeros((*w.shape, 2)), problem.params)
        if shapes(tx.init(params)) != wanted:
            with pytest.raises(ValueError, match="it wants the shape"):
                update(tx, problem, tx.init(params))


@over()
def test_an_own_state_is_taken_as_arrays_of_numpy(case):
    """As a checkpoint may give it back."""
    problem, tx = problems.dense_net(), case.make(RHO)
    state = tx.init(problem.params)
    restored = jax.tree.map(lambda x: x if pytree.is_key(x) else np.asarray(x), state)
    update(tx, problem, restored)


SGD = optax.sgd(0.1)
BAD_CALLS = {
    "m does not divide": (lambda: in_m_sam(SAM, m=3).make(RHO), "divisors of 8"),
    "m above the batch": (lambda: in_m_sam(SAM, m=16).make(RHO), "divisors of 8"),
    "m zero": (lambda: in_m_sam(SAM, m=0).make(RHO), "m must be a positive int, got 0"),
    "m traced": (
        lambda: optax.inject_hyperparams(optim.m_sam)(optim.sam(RHO), m=2),
        "static_args",
    ),
    "strategy": (lambda: in_m_sam(SAM, strategy="loop").make(RHO), '"vmap" or "scan", got \'loop'),
    "inner": (lambda: optim.m_sam(optax.sgd(0.1), 2), "optax.chain"),
    "inner chain": (lambda: optim.m_sam(optax.chain(optim.sam(RHO)), 2), "optax.chain"),
    "m a boolean": (
        lambda: optim.m_sam(optim.sam(RHO), True),
        "m must be a positive int, got True",
    ),
    "sharpness_aware(0.1)": (
        lambda: optim.sharpness_aware(0.1),
        "perturbation must be an optax transformation, got 0.1.*sam_jax.sam",
    ),
    "sharpness_aware(optax.scale)": (
        lambda: optim.sharpness_aware(optax.scale),
        "perturbation must be an optax transformation, got <function",
    ),
    "sharpness_aware(sam)": (lambda: optim.sharpness_aware(optim.sam(RHO)), "a whole method"),
    "a number for a combination": (
        lambda: optim.sharpness_aware(optax.scale(0.1), 0.5),
        "combination must be a function.*got 0.5",
    ),
    "a number for a schedule": (
        lambda: optim.sharpness_aware(optax.scale(0.1), None, 3),
        "schedule must be a sam_jax.Schedule, got 3",
    ),
    "decoupled_wsam(0.05)": (
        lambda: optim.decoupled_wsam(0.05),
        "optimiser must be an optax transformation, got 0.05.*optax.sgd",
    ),
    "decoupled_wsam without a rate": (
        lambda: optim.decoupled_wsam(SGD),
        "needs learning_rate.*learning_rate=0.1",
    ),
    "momentum_sam(0.05)": (
        lambda: optim.momentum_sam(0.05),
        "optimiser must be an optax transformation, got 0.05.*momentum=0.9",
    ),
    "momentum_sam without rho": (lambda: optim.momentum_sam(SGD), "needs rho"),
    "between, turned round": (
        lambda: optim.between(optim.sam(RHO), start=5, end=3),
        "end must not lie before start, got start = 5 and end = 3",
    ),
    "a mask of numbers": (
        lambda: optim.sam(RHO, mask=lambda params: params),
        r"mask must hold one boolean a leaf, got Array.*\['Dense_0'\]\['bias'\]",
    ),
    "a mask of text": (lambda: optim.sam(RHO, mask="bias"), "boolean a leaf, got 'bias'.*leaves_w"),
    "a schedule of vectors": (
        lambda: optim.sam(lambda count: jnp.ones(3)),
        r"A schedule must return one number, got an array of the shape \(3,\)",
    ),
    "norm_order": (lambda: optim.sam(RHO, norm_order=1.0), "norm_order must lie in"),
    "eta": (lambda: optim.asam(RHO, eta=-0.01), "eta must be zero or positive"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_argument_says_what_to_do(name):
    make, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        update(make(), problems.dense_net())


@pytest.mark.parametrize("batch", [None, {"x": jnp.zeros((8, 3)), "y": jnp.zeros((4, 1))}, 0.0])
def test_m_sam_asks_for_a_batch_with_one_leading_axis(batch):
    problem = problems.dense_net()
    tx = in_m_sam(SAM).make(RHO)
    batch = batch if batch is None or isinstance(batch, dict) else jnp.zeros(())
    with pytest.raises(ValueError, match="(?s)m_sam needs batch.*batch=batch"):
        tx.update(
            problem.params,
            tx.init(problem.params),
            problem.params,
            grad_fn=problem.grad_fn,
            batch=batch,
        )


@pytest.mark.parametrize("m", [2, 8])
def test_m_sam_refuses_an_empty_batch(m):
    problem, tx = problems.dense_net(), in_m_sam(SAM, m=m).make(RHO)
    with pytest.raises(ValueError, match=r"at least one example, and batch is empty.*\(0, 3\)"):
        update(tx, problem, batch=jax.tree.map(lambda x: x[:0], problem.batch))


@pytest.mark.parametrize("weights", [jnp.array([1.0, 1.0, 1.0, -1.0]), "abcd"])
def test_m_sam_refuses_weights_that_are_none(weights):
    problem, tx = problems.dense_net(), in_m_sam(SAM).make(RHO)
    with pytest.raises(ValueError, match="weights must be numbers, zero or positive"):
        update(tx, problem, weights=weights)


SAF_INDICES = {
    "above": ([0, 9], r"\[0, 8\).*got 9"),
    "negative": ([0, -1], r"\[0, 8\).*got -1"),
    "twice": ([3, 3], "3 stands there 2 times"),
}


@pytest.mark.parametrize("name", SAF_INDICES)
def test_an_index_out_of_the_range_of_saf(name):
    problem = problems.dense_net(examples=2)
    indices, message = SAF_INDICES[name]
    tx = optim.saf(examples=8, classes=2, epochs_back=1, start_epoch=0)
    with pytest.raises(ValueError, match=f"indices must.*{message}"):
        update(tx, problem, indices=jnp.array(indices))

    # Under jit it cannot be seen: it reads no memory and writes none, of whichever example.
    step = jax.jit(lambda state, indices: update(tx, problem, state, indices=indices))
    if name == "twice":
        return
    state = tx.init(problem.params)
    for _ in range(2):
        _, state = step(state, jnp.array([6, 7]))
    full = state._replace(visits=state.visits.at[0].set(2))  # every other example has a memory
    result, state = step(full, jnp.array(indices))
    wanted, other = step(full, jnp.array([0, 8]))
    assert_trees_equal((result, state), (wanted, other))
    assert state.visits.tolist() == [3, 0, 0, 0, 0, 0, 2, 2]


def test_average_sam_asks_for_one_typed_key():
    for key in (jax.random.PRNGKey(0), jax.random.split(jax.random.key(0)), 0, None):
        with pytest.raises(TypeError, match=r"one typed key such as jax.random.key\(0\)"):
            optim.average_sam(RHO, key)


def test_an_average_of_other_parameters_is_not_handed_out():
    with pytest.raises(ValueError, match="The average is of other parameters"):
        optim.averaged_params(optim.swa().init(problems.dense_net().params), {"w": jnp.ones(3)})
