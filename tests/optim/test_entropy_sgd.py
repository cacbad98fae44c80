"""Entropy-SGD: its fixed point, its inner steps and the batch that they share."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from contract_runs import trees_close

from sam_jax import optim

STEPS = 4


def key():
    return jax.random.key(3)


def test_entropy_sgd_on_a_quadratic_is_the_gradient_of_the_moreau_envelope():
    # Without noise x goes to the minimum of w'Hw / 2 + gamma / 2 ||x - w||^2.
    with jax.enable_x64(True):
        loss_fn, hessian, w = problems.quadratic()
        gamma = 0.7
        tx = optim.entropy_sgd(gamma, key(), steps=400, step_size=0.2, noise=0.0, split_batch=False)
        result, _ = tx.update(jnp.zeros_like(w), tx.init(w), w, grad_fn=jax.grad(loss_fn))
        minimum = np.linalg.solve(hessian + gamma * np.eye(len(w)), gamma * w)
        # The slowest factors are (1 - 0.2 * 1.7)^400 and 0.75^400.
        np.testing.assert_allclose(result, gamma * (w - minimum), rtol=1e-12)
        assert not np.allclose(result, jax.grad(loss_fn)(w), rtol=0.1)


def test_entropy_sgd_hears_steps_below_the_rounding_of_the_parameters():
    # In bfloat16 neighbours of 1 are 2^-8 or more apart, and each step is of 1e-4.
    w = jnp.ones(4, jnp.bfloat16)
    tx = optim.entropy_sgd(
        1.0, key(), steps=3, step_size=1e-4, noise=0.0, alpha=1.0, split_batch=False
    )
    result, _ = tx.update(w, tx.init(w), w, grad_fn=jnp.ones_like)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(result), 3e-4, rtol=2**-8)


def test_entropy_sgd_returns_the_mean_of_what_the_inner_passes_return():
    tx = optim.entropy_sgd(1.0, key(), steps=4, noise=0.0)
    w, batch = jnp.zeros(()), jnp.arange(8.0)
    result, _ = tx.gradient(
        lambda w, part: (w, {"sum": jnp.sum(part), "size": len(part)}), w, tx.init(w), batch=batch
    )
    assert result.clean_aux is None
    assert float(result.perturbed_aux["sum"]) == 7.0 and float(result.perturbed_aux["size"]) == 2.0


def test_each_inner_step_of_entropy_sgd_draws_examples_of_its_own():
    # Four fresh batches, as the published algorithm draws them, are the parts of one; the same
    # batch four times is another algorithm.
    problem, seen = problems.tanh_net(), []

    def grad_fn(params, batch=None):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), problem.or_whole(batch)["x"])
        return problem.grad_fn(params, batch), None

    def run(**keywords):
        seen.clear()
        tx = optim.entropy_sgd(0.5, key(), STEPS, **keywords)
        state = tx.init(problem.params)
        result, _ = tx.gradient(grad_fn, problem.params, state, batch=problem.batch)
        jax.block_until_ready(result)
        jax.effects_barrier()
        return result.gradient

    fresh = run()
    wanted = [problem.batch["x"][i::STEPS] for i in range(STEPS)]
    np.testing.assert_array_equal(np.stack(seen), np.stack(wanted))
    assert len(seen) == STEPS
    same = run(split_batch=False)
    assert len(seen) == STEPS and all(np.array_equal(x, problem.batch["x"]) for x in seen)
    assert not trees_close(fresh, same, 0.1)


@pytest.mark.parametrize("batch", [None, jnp.zeros(7), (jnp.zeros(8), jnp.zeros(4)), jnp.zeros(())])
def test_a_batch_that_cannot_be_split_is_refused(batch):
    tx, w = optim.entropy_sgd(0.1, key(), steps=4), jnp.ones(2)
    with pytest.raises(ValueError, match="4 equal parts.*split_batch=False"):
        tx.update(w, tx.init(w), w, grad_fn=lambda w, part: w, batch=batch)
