"""Five steps of the methods that differ in their perturbation, against NumPy float64.

Every case has controls: its own formula with its own term left out, or with a known mistake; these
must miss the trajectory by far.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from numpy_problem import flat, jax_trajectory, largest_difference, numpy_trajectory
from perturbation_formulas import (
    RHO,
    SEED,
    adaptive,
    at,
    fisher,
    friendly,
    gaussian,
    layer,
    masked_after_the_norm,
    multi_step,
    norm_layer_sam,
    previous_batch,
    projected_usam,
    remembering,
    sam,
    sphere,
    stable,
    unified,
    usam,
    vasso,
)

from sam_jax import optim

EXAMPLES = 8

# --- the same net under other names, shapes and arguments --------------------------------------


def with_view(transformation, to, back):
    """Let a transformation see the parameters as to(params)."""

    def update(updates, state, params, *, grad_fn, **extra_args):
        def viewed(view, *batch):
            return to(grad_fn(back(view), *batch))

        updates, state = transformation.update(
            to(updates), state, to(params), grad_fn=viewed, **extra_args
        )
        return back(updates), state

    return optax.GradientTransformationExtraArgs(lambda p: transformation.init(to(p)), update)


def reshaped(shape):
    def reshape(params):
        kernel = params["first"]["kernel"].reshape(shape)
        return params | {"first": params["first"] | {"kernel": kernel}}

    return reshape


def as_convolution(transformation):
    return with_view(transformation, reshaped((1, 3, 4)), reshaped((3, 4)))


def as_norm_layer(transformation):
    return with_view(
        transformation,
        lambda p: {"Dense_0": p["first"], "BatchNorm_0": p["second"]},
        lambda p: {"first": p["Dense_0"], "second": p["BatchNorm_0"]},
    )


def with_previous_batch(transformation):
    before = problems.tanh_net(seed=1, dtype=jnp.float64).batch

    def update(*arguments, **keywords):
        return transformation.update(*arguments, previous_batch=before, **keywords)

    return optax.GradientTransformationExtraArgs(transformation.init, update)


# --- the table ---------------------------------------------------------------------------------


class Case(NamedTuple):
    """A method, its formula, and formulas that it must not follow."""

    make: Callable[[], Any]
    formula: Callable[..., Any]  # (x, y, m) -> gradient_of(w, step)
    controls: list[Callable[..., Any]]
    one_sub_batch: bool = False  # m-SAM has no meaning, or refuses it
    view: Callable[[Any], Any] = lambda transformation: transformation


def constant(value):
    return lambda step: value


CASES = {
    # The last control scales by 1 / (number of sub-batches), as a loss already divided would.
    "usam": Case(
        lambda: optim.usam(RHO), at(usam), [at(sam), at(functools.partial(usam, factor=0.25))]
    ),
    # On the way the gradient is at times longer than one and at times shorter.
    "usam, project": Case(
        lambda: optim.usam(RHO, project=True), at(projected_usam), [at(usam), at(sam)]
    ),
    "unified_sam": Case(
        lambda: optim.unified_sam(RHO, 0.3),
        at(functools.partial(unified, constant(0.3))),
        [at(sam), at(usam)],
    ),
    "unified_sam, 1/t": Case(
        lambda: optim.unified_sam(RHO, lambda count: 1 / jnp.float64(count + 1)),
        at(functools.partial(unified, lambda step: 1 / (step + 1))),
        [at(sam), at(functools.partial(unified, lambda step: 1 - 1 / (step + 1)))],
    ),
    "fisher_sam": Case(
        lambda: optim.fisher_sam(RHO, eta=3.0),
        at(functools.partial(fisher, 3.0)),
        [at(functools.partial(fisher, 0.0)), at(functools.partial(fisher, 3.0), -1.0)],
    ),
    "layer_sam": Case(lambda: optim.layer_sam(RHO), at(layer), [at(sam), at(layer, -1.0)]),
    "asam, filter": Case(
        lambda: optim.asam(RHO, 0.05, rescaling="filter"),
        at(functools.partial(adaptive, kind="filter")),
        [at(adaptive), at(sam)],
        view=as_convolution,
    ),
    "sam_on": Case(
        lambda: optim.sam_on(RHO),
        at(norm_layer_sam),
        [at(sam), at(masked_after_the_norm)],
        view=as_norm_layer,
    ),
    "average_sam, gaussian": Case(
        lambda: optim.average_sam(RHO, jax.random.key(SEED), distribution="gaussian"),
        at(gaussian),
        [at(sphere), at(gaussian, 0.0)],
    ),
    "stable_sam": Case(lambda: optim.stable_sam(RHO), stable, [at(sam), at(sam, 0.0)]),
    "multi_step_sam": Case(
        lambda: optim.multi_step_sam(RHO, steps=3),
        multi_step(3, RHO),
        [multi_step(1, RHO), multi_step(2, RHO), multi_step(3, RHO, project=False)],
    ),
    "multi_step_sam, unnormalised": Case(
        lambda: optim.multi_step_sam(RHO, steps=3, step_size=0.4 * RHO, normalised=False),
        multi_step(3, 0.4 * RHO, normalised=False),
        [
            multi_step(3, 0.4 * RHO),
            multi_step(2, 0.4 * RHO, normalised=False),
            multi_step(3, 0.4 * RHO, project=False, normalised=False),
        ],
    ),
    "multi_step_sam, step size": Case(
        lambda: optim.multi_step_sam(RHO, steps=2, step_size=0.7 * RHO),
        multi_step(2, 0.7 * RHO),
        [multi_step(1, RHO), multi_step(2, RHO), multi_step(2, 0.7 * RHO, project=False)],
    ),
    "previous_batch_sam": Case(
        lambda: optim.previous_batch_sam(RHO),
        previous_batch,
        [at(sam), at(sam, 0.0)],
        view=with_previous_batch,
    ),
    "friendly_sam, paper": Case(
        lambda: optim.friendly_sam(RHO, 0.8, 0.6),
        remembering(friendly, 0.8, 0.6, "paper"),
        [at(sam), remembering(friendly, 0.8, 0.6, "code")],
        one_sub_batch=True,
    ),
    "friendly_sam, code": Case(
        lambda: optim.friendly_sam(RHO, 0.8, 0.6, order="code"),
        remembering(friendly, 0.8, 0.6, "code"),
        [at(sam), remembering(friendly, 0.8, 0.6, "code", "what is left of it")],
        one_sub_batch=True,
    ),
    "vasso": Case(
        lambda: optim.vasso(RHO, 0.4),
        remembering(vasso, 0.4),
        [at(sam), remembering(vasso, 0.4, True)],
        one_sub_batch=True,
    ),
}
RUNS = [(name, EXAMPLES) for name in CASES] + [
    (name, 2) for name, case in CASES.items() if not case.one_sub_batch
]


@pytest.mark.parametrize(("name", "m"), RUNS)
def test_five_steps_follow_the_formula(name, m):
    case = CASES[name]
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        transformation = case.make() if m == EXAMPLES else optim.m_sam(case.make(), m)
        result = jax_trajectory(case.view(transformation), problem)
        x, y = map(np.asarray, (problem.batch["x"], problem.batch["y"]))

        def difference(gradient_with):
            wanted = numpy_trajectory(gradient_with(x, y, m), flat(problem.params))
            return largest_difference(result, wanted)

        assert difference(case.formula) < 1e-10
        assert min(difference(control) for control in case.controls) > 1e-4
