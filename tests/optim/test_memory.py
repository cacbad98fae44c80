"""The memory of a step, as the compiled program tells it, in copies of the parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_close, trees_close

from sam_jax import optim, pytree

KEY = jax.random.key(0)
# Twelve layers, so that a layer is small beside the parameters, and few examples: the activations
# are a fiftieth of them.
DEEP = problems.dense_net((128,) * 13, examples=32)
COPY = 4 * pytree.size(DEEP.params)
# Copies of the parameters above the step of SGD that clips, which holds its gradient once. What a
# layer takes while it is computed comes on top, a twelfth of a copy for each of its arrays. Live at
# one time are: of sam and its like w + epsilon, whose place the gradient had; of gsam both
# gradients, which its scalars need whole; of m_sam the sum and w + epsilon of a sub-batch. LookSAM
# needs both gradients and their difference: in float32 their products do not tell its norm.
EXTRA = {
    "sam": (lambda: optim.sam(0.1), 0.3),
    "asam": (lambda: optim.asam(0.1), 0.3),
    "stable_sam": (lambda: optim.stable_sam(0.1), 1.1),  # the rescaled gradient
    "gsam": (lambda: optim.gsam(0.1), 1.3),
    "looksam": (lambda: optim.looksam(0.1, 2), 2.3),
    "average_sam": (lambda: optim.average_sam(0.1, KEY), 0.3),
    "smooth_out": (lambda: optim.smooth_out(0.1, KEY), 0.3),
    "weight_noise": (lambda: optim.weight_noise(0.1, KEY, relative=0.1), 0.3),
    "m_sam": (lambda: optim.m_sam(optim.sam(0.1), 8, "scan"), 1.3),
}
# The figures are those of jax 0.10; 0.8 takes up to a copy more, 0.12 the noise of average_sam too.
OTHER_XLA = 0.0 if jax.__version_info__[:2] == (0, 10) else 1.75


def step_of(method, problem, clips=True):
    after = optax.chain(optax.clip_by_global_norm(1.0) if clips else optax.identity(), optax.sgd(1))
    tx = after if method is None else optax.chain(method, after)

    def step(params, state, batch):
        here = problem._replace(params=params, batch=batch)
        gradient = jax.grad(problem.loss_fn)(params, batch)
        extra = {} if method is None else {"grad_fn": here.grad_fn, "batch": batch}
        updates, state = tx.update(gradient, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return tx, step


@functools.cache
def copies(name):
    """Return the temporaries of a step that donates its parameters and its state."""
    tx, step = step_of(EXTRA[name][0]() if name else None, DEEP)
    step = jax.jit(step, donate_argnums=(0, 1))
    program = step.lower(DEEP.params, tx.init(DEEP.params), DEEP.batch).compile()
    return program.memory_analysis().temp_size_in_bytes / COPY


@pytest.mark.parametrize("name", EXTRA)
def test_the_copies_of_the_parameters_above_those_of_sgd(name):
    extra = copies(name) - copies(None)
    assert extra < EXTRA[name][1] + OTHER_XLA


def test_the_count_of_copies_tells_a_method_that_takes_more():
    assert copies("gsam") > copies("sam") + 0.7
    assert 0.8 < copies(None) < 1.5


# ---------------------------------------------------------------------------- over sub-batches

M = 4
WAYS = {
    "one perturbation for all": lambda grad_fn, batch, params: n_sam(grad_fn, batch, params),
    "one for each sub-batch": lambda grad_fn, batch, params: scanned(grad_fn, batch, params),
}


def n_sam(grad_fn, batch, params, m=M):
    tx, by_parts = optim.sam(0.1), optim.accumulated(grad_fn, m)
    gradient = by_parts(params, batch)
    return tx.update(
        gradient, tx.init(params), params, grad_fn=lambda params: by_parts(params, batch)
    )[0]


def scanned(grad_fn, batch, params):
    tx = optim.m_sam(optim.sam(0.1), M, "scan")
    return tx.update(params, tx.init(params), params, grad_fn=grad_fn, batch=batch)[0]


def temporaries(gradient, sub_batches):
    problem = problems.dense_net((64, 32, 4), examples=M * sub_batches)
    grad_fn = jax.grad(problem.loss_fn)
    program = jax.jit(lambda params, batch: gradient(grad_fn, batch, params))
    analysis = program.lower(problem.params, problem.batch).compile().memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize("way", WAYS)
def test_a_scan_takes_the_memory_of_one_sub_batch_however_many_there_are(way):
    few, many = (temporaries(WAYS[way], count) for count in (4, 1250))  # 16 and 5,000 examples
    assert many < few + 8 * 1250  # a number or two for each sub-batch


def test_the_memory_of_the_whole_set_at_once_would_show():
    def at_once(grad_fn, batch, params):
        return n_sam(grad_fn, batch, params, len(batch["x"]))

    assert temporaries(at_once, 1250) > temporaries(at_once, 4) + 4 * 32 * 4 * 1200


def test_accumulated_gradients_are_those_of_the_whole_batch():
    problem = problems.dense_net((4, 8, 2), examples=16)
    grad_fn = jax.grad(problem.loss_fn)

    def with_aux(params, batch):
        return grad_fn(params, batch), {"x": batch["x"], "count": jnp.int32(len(batch["x"]))}

    wanted = grad_fn(problem.params, problem.batch)
    run = jax.jit(optim.accumulated(grad_fn, 4))
    assert_trees_close(run(problem.params, problem.batch), wanted)
    gradient, aux = jax.jit(
        lambda *given: optim.accumulated(
            with_aux, 4, has_aux=True, combine={"x": "concatenate", "count": "sum"}
        )(*given)
    )(problem.params, problem.batch)
    assert_trees_close(gradient, wanted)
    np.testing.assert_array_equal(aux["x"], problem.batch["x"])
    assert aux["count"] == 16
    tx = optim.sam(0.1)
    whole, _ = tx.update(
        wanted,
        tx.init(problem.params),
        problem.params,
        grad_fn=lambda params: grad_fn(params, problem.batch),
    )
    found = jax.jit(lambda *given: n_sam(grad_fn, given[1], given[0]))
    assert_trees_close(found(problem.params, problem.batch), whole)
    assert not trees_close(whole, scanned(grad_fn, problem.batch, problem.params), 1e-3)
    with pytest.raises(ValueError, match="m = 5 does not divide the batch, 16 examples"):
        optim.accumulated(grad_fn, 5)(problem.params, problem.batch)
