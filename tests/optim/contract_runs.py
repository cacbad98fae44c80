"""How the rules of the contract run a method: eagerly, or as one compiled update that they share.

Eager runs stand inside `jax.disable_jit()`: the branches of a conditional are then not compiled
anew in every call, and only the one that is taken runs.
"""

import functools

import jax
import jax.numpy as jnp
import optax
import problems

from sam_jax import pytree

RHO = 0.25
UPDATES = 8  # values in the schedule of rho that a compiled update takes


def other_batch(batch):
    """Return another batch of the same shapes."""
    return jax.tree.map(lambda x: x + 1, batch)


def start(problem):
    """Return other parameters: moving averages that begin there differ from the problem's."""
    return jax.tree.map(lambda w: w + 1, problem.params)


def arguments(problem, first=0):
    """Return all that a method may ask for besides the gradients, the state and the parameters."""
    examples = len(jax.tree.leaves(problem.batch)[0])
    return {
        "batch": problem.batch,
        "previous_batch": other_batch(problem.batch),
        "losses_fn": problem.losses,
        "logits_fn": problem.logits,
        "indices": first + jnp.arange(examples),
    }


def update(tx, problem, state=None, params=None, **extra_args):
    """Call `tx.update` on a problem."""
    params = problem.params if params is None else params
    return tx.update(
        problem.grad_fn(params),
        tx.init(start(problem)) if state is None else state,
        params,
        **{"grad_fn": problem.grad_fn, **arguments(problem), **extra_args},
    )


def state_at(tx, problem, updates):
    """Return the state after some updates on another batch."""
    other, state = problem._replace(batch=other_batch(problem.batch)), tx.init(start(problem))
    for _ in range(updates):
        _, state = update(tx, other, state)
    return state


def perturbing_update(case, rho, problem, **extra_args):
    """Return the result of the update that differs from the plain one."""
    tx = case.make(rho)
    return update(tx, problem, state_at(tx, problem, case.perturbs), **extra_args)[0]


def measured(tx, problem, state, measure):
    """Return `measure(perturbed params)`, averaged over the sub-batches of m_sam."""

    def aux_grad_fn(params, batch=None, term=None):
        return problem.grad_fn(params, batch, term), measure(params)

    result, _ = tx.gradient(aux_grad_fn, problem.params, state, **arguments(problem))
    return result.perturbed_aux


def perturbed(case, rho, problem):
    """Return the perturbed parameters of the update that has some."""
    tx = case.make(rho)
    return measured(tx, problem, state_at(tx, problem, case.perturbs), lambda params: params)


def perturbed_and_length(case, rho, problem, mask):
    """Return the perturbed parameters and, where it is rho, the length of epsilon."""

    def measure(perturbed):
        length = epsilon_length_at(case, perturbed, problem.params) if case.length else rho
        return perturbed, jnp.asarray(length)

    tx = case.make(rho, mask=mask)
    return measured(tx, problem, state_at(tx, problem, case.perturbs), measure)


def epsilon_length(case, tx, problem):
    """Return the length of epsilon in the update that has one."""

    def measure(perturbed):
        return epsilon_length_at(case, perturbed, problem.params)

    return measured(tx, problem, state_at(tx, problem, case.perturbs), measure)


def epsilon_length_at(case, perturbed, params):
    epsilon = jax.tree.map(lambda p, w: pytree.widen(p) - pytree.widen(w), perturbed, params)
    return case.length(epsilon, params)


def plain_results(case, problem, updates):
    """Return the results of some updates without any perturbation, one after the other."""
    gradient, results = problem.grad_fn(problem.params), []
    optimiser = case.wraps or optax.identity()
    state = optimiser.init(problem.params)
    for _ in range(updates):
        result, state = optimiser.update(gradient, state, problem.params)
        results.append(result)
    return results


class Compiled:
    """One jitted update on the exact net, which takes all values of a schedule of rho."""

    def __init__(self, case):
        self.problem = problems.exact_net()
        self.traces = 0

        def step(rho, params, state, batch):
            self.traces += 1
            problem = self.problem._replace(batch=batch)
            tx = case.make(lambda count: rho[count])
            if not case.evaluates:
                result, state = update(tx, problem, state, params)
                return result, params, state
            result, state = tx.gradient(
                problem.aux_grad_fn,
                params,
                state,
                clean=problem.aux_grad_fn(params),
                **arguments(problem),
            )
            return result.gradient, result.perturbed_aux, state

        self.init = case.make(RHO).init
        self.donating = jax.jit(step, donate_argnums=(1, 2))

    def start(self):
        return self.init(start(self.problem))

    def __call__(self, rho, state, params=None, batch=None):
        """Return (result, perturbed params, state); nothing is donated."""
        rho = jnp.broadcast_to(jnp.asarray(rho, jnp.float32), UPDATES)
        params = self.problem.params if params is None else params
        params, state = jax.tree.map(jnp.copy, (params, state))
        return self.donating(rho, params, state, self.problem.batch if batch is None else batch)

    def state_at(self, rho, updates):
        """Return the state after some updates on another batch."""
        state = self.start()
        for _ in range(updates):
            state = self(rho, state, batch=other_batch(self.problem.batch))[-1]
        return state


compiled = functools.cache(Compiled)  # one for each case


def counts(state):
    """Return the counts of updates in a state and the states inside it."""
    return [
        int(leaf)
        for path, leaf in jax.tree.leaves_with_path(state)
        if path and path[-1] == jax.tree_util.GetAttrKey("count")
    ]


# --- comparisons ------------------------------------------------------------------------------


def assert_trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert bool(jnp.all(x == y)), (x, y)


def assert_plain(case, result, plain):
    """Hold a result to that of grad_fn: bit for bit, and where a loss has a further term, nearly.

    There two cotangents of the logits are added before they go on, and on some processors a product
    of the sum rounds otherwise than one of the first alone, by one part in 2**24.
    """
    if case.name in ("saf", "mesa"):
        assert_trees_close(result, plain, 2.0**-22)
    else:
        assert_trees_equal(result, plain)


def assert_trees_close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert trees_close(a, b, tolerance), (a, b)


def trees_close(a, b, tolerance=1e-5):
    """Whether leaves agree to `tolerance`, relative to the largest entry of each leaf pair."""
    return all(
        bool(jnp.max(jnp.abs(x - y)) <= tolerance * (jnp.max(jnp.abs(y)) + 1e-30))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def moved(points, params):
    """Whether each leaf differs from that of params."""
    return [
        bool(jnp.any(p != w))
        for p, w in zip(jax.tree.leaves(points), jax.tree.leaves(params), strict=True)
    ]


def all_finite(tree):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))
