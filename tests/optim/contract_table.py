"""The table of methods that the rules of the contract run over.

A new method joins by one line in METHODS. APPLIES says which methods a rule is about;
test_contract_table.py lists the ones that it leaves out, with the reason.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from sam_jax import optim

KEY = jax.random.key(5)  # of every method that draws; ss_sam skips update 0 and perturbs at 1
M = 2  # examples in a sub-batch of the m_sam cases
SGD = optax.sgd(0.5, momentum=0.5)  # what is wrapped; powers of two are exact


class Method(NamedTuple):
    """One method and what the rules need to know about it."""

    name: str
    make: Callable[..., Any]  # make(coefficient, mask=None) -> transformation
    cost: float = 2  # gradients of an update under jit, of one that perturbs
    length: Callable[[Any, Any], jax.Array] | None = None  # of (epsilon, params), where it is rho
    coefficient: str | None = "rho"  # the name of what `make` takes
    plain_at_zero: bool = True  # whether zero there leaves exactly the plain gradient
    perturbs: int = 0  # the update, counted from zero, at which the result is not the plain one
    skips: int | None = None  # an update that, as its state alone tells, costs one gradient
    needs_clean: bool = True  # whether the gradient at w is read
    follows_gradient: bool = True  # whether a zero gradient means a zero epsilon
    masks: bool = True  # whether `make` takes a mask
    memory: str = ""  # what makes m_sam refuse more than one sub-batch
    wraps: Any = None  # the optimiser inside, whose updates are the result
    evaluates: bool = True  # whether it calls grad_fn
    loops: bool = False  # whether its passes are rounds of a loop
    parts: bool = False  # whether it descends on a part of the batch
    epsilon: bool = True  # whether its perturbed point is one, so that there is an epsilon
    m: int | None = None  # examples in a sub-batch; None outside m_sam


# --- lengths of epsilon -----------------------------------------------------------------------


def p_norm(order):
    def length(epsilon, params):
        del params
        entries = jnp.concatenate([e.ravel() for e in jax.tree.leaves(epsilon)])
        return jnp.linalg.norm(entries, order)

    return length


def adaptive_norm(epsilon, params, eta=0.01):
    def entry(path, e, w):
        return e if path and path[-1].key == "bias" else e / (jnp.abs(w.astype(e.dtype)) + eta)

    return p_norm(2)(jax.tree.map_with_path(entry, epsilon, params), params)


def layer_norm(epsilon, params):
    """The largest length of a leaf relative to its weights."""
    ratios = jax.tree.map(
        lambda e, w: jnp.linalg.norm(e) / jnp.linalg.norm(w.astype(e.dtype)), epsilon, params
    )
    return jnp.max(jnp.stack(jax.tree.leaves(ratios)))


# --- the table --------------------------------------------------------------------------------


def drawing(method, **arguments):
    def make(rho, mask=None):
        return method(rho, key=KEY, mask=mask, **arguments)

    return make


def decoupled_wsam(rho, mask=None):
    return optim.decoupled_wsam(SGD, 0.5, rho, gamma=0.75, mask=mask)


def saf(lmbda):
    return optim.saf(examples=4096, classes=2, lmbda=lmbda, epochs_back=1, start_epoch=0)


def entropy_sgd(gamma):
    return optim.entropy_sgd(gamma, KEY, steps=2)


UNUSED = {"needs_clean": False, "follows_gradient": False}  # the gradient at w
ONE_PASS = {"cost": 1, **UNUSED}
# No perturbation but a term of the loss.
TERM = {"coefficient": "lmbda", "masks": False, "epsilon": False}
NO_PASS = {"cost": 1, "evaluates": False, "coefficient": None, "masks": False}
L2 = p_norm(2)

METHODS = [
    Method("sam", optim.sam, length=L2),
    Method("sam_3_norm", partial(optim.sam, norm_order=3.0), length=p_norm(3)),
    Method("asam", optim.asam, length=adaptive_norm),
    Method("average_sam", drawing(optim.average_sam), length=L2, **ONE_PASS),
    Method("usam", optim.usam),
    Method("unified_sam", optim.unified_sam),
    Method("multi_step_sam", optim.multi_step_sam, 3, length=L2),
    Method("previous_batch_sam", optim.previous_batch_sam, length=L2, needs_clean=False),
    Method("fisher_sam", optim.fisher_sam),
    Method("layer_sam", optim.layer_sam, length=layer_norm),
    # The clean pass of sam_on makes the gradient of the norm layers alone, here 0.714 of the whole.
    Method("sam_on", optim.sam_on, 1.714, length=L2),
    Method("stable_sam", optim.stable_sam, length=L2),
    Method(
        "friendly_sam",
        partial(optim.friendly_sam, sigma=0.5),
        length=L2,
        memory="moving average",
    ),
    Method("vasso", optim.vasso, length=L2, memory="moving average"),
    Method("gsam", optim.gsam, length=L2),
    Method("wsam", optim.wsam, length=L2),
    Method("decoupled_wsam", decoupled_wsam, length=L2, memory="optimiser", wraps=SGD),
    Method(
        "momentum_sam",
        lambda rho, mask=None: optim.momentum_sam(SGD, rho, mask),
        length=L2,
        perturbs=1,
        memory="momentum",
        wraps=SGD,
        **ONE_PASS,
    ),
    Method("ss_sam", drawing(optim.ss_sam), length=L2, perturbs=1, skips=0),
    Method("interval_sam", partial(optim.interval_sam, k=2), length=L2, skips=1),
    Method(
        "late_phase_sam", partial(optim.late_phase_sam, start=1), length=L2, perturbs=1, skips=0
    ),
    Method(
        "between",
        lambda rho, mask=None: optim.between(optim.sam(rho, mask=mask), start=1, end=9),
        length=L2,
        perturbs=1,
        skips=0,
    ),
    Method("ae_sam", optim.ae_sam, length=L2, memory="squared gradient norms"),
    Method("looksam", partial(optim.looksam, k=2), length=L2, skips=1, memory="direction"),
    Method("esam", drawing(optim.esam), 1 + 1 / 2 + 1 / 3, parts=True),
    Method("esam_whole_batch", drawing(optim.esam, gamma=1)),
    Method("saf", saf, perturbs=1, memory="predictions", **TERM, **ONE_PASS),
    Method("mesa", partial(optim.mesa, decay=0.5), **TERM, **UNUSED | {"cost": 4 / 3}),
    Method("smooth_out", drawing(optim.smooth_out), coefficient="radius", **ONE_PASS),
    Method(
        "smooth_out_copies",
        drawing(optim.smooth_out, copies=2, adaptive=True),
        coefficient="radius",
        loops=True,
        epsilon=False,
        **UNUSED,
    ),
    Method("weight_noise", drawing(optim.weight_noise), **ONE_PASS),
    Method(
        "weight_noise_relative",
        lambda relative, mask=None: optim.weight_noise(0.0, KEY, relative, mask),
        coefficient="relative",
        **ONE_PASS,
    ),
    Method("awp", optim.awp, coefficient="gamma", length=layer_norm),
    Method("amp", partial(optim.amp, inner_steps=2), 3, coefficient="epsilon"),
    Method(
        "entropy_sgd",
        entropy_sgd,
        coefficient="gamma",
        plain_at_zero=False,
        masks=False,
        loops=True,
        parts=True,
        epsilon=False,
        **UNUSED,
    ),
    Method(
        "extrap_sgd",
        optim.extrap_sgd,
        coefficient="extrapolation",
        perturbs=1,
        memory="previous gradient",
        **ONE_PASS,
    ),
    Method("swa", lambda _: optim.swa(), **NO_PASS),
    Method("weight_ema", lambda _: optim.weight_ema(0.5), **NO_PASS),
]


def named(*names):
    """Return the methods of these names."""
    return [method for method in METHODS if method.name in names]


def in_m_sam(method, m=M, strategy="vmap"):
    """Return the method inside m_sam."""

    def make(rho, **mask):
        return optim.m_sam(method.make(rho, **mask), m, strategy)

    return method._replace(name=f"m_sam({method.name})", make=make, m=m)


# Every stateless method runs inside m_sam in test_m_sam.py. All other rules take one of each kind:
# one that follows the gradient, one that draws, one with a schedule, one that asks for losses.
KINDS = named("sam", "average_sam", "interval_sam", "esam")
CASES = [*METHODS, *(in_m_sam(method) for method in KINDS)]

# Which methods a rule is about. A rule that is not named here is about all.
APPLIES = {
    "a coefficient": lambda case: case.coefficient is not None,
    "off at zero": lambda case: case.coefficient is not None and case.plain_at_zero,
    "a length": lambda case: case.length is not None,
    "zero at a zero gradient": lambda case: case.evaluates and case.follows_gradient,
    "a mask": lambda case: case.masks,
    "passes": lambda case: case.evaluates,
    "an epsilon": lambda case: case.evaluates and case.epsilon and case.m is None,
    "countable operations": lambda case: not case.loops,
    "skipped passes": lambda case: case.skips is not None,
    "a skip that a constant state tells": lambda case: (
        case.skips is not None and case.name != "ss_sam"
    ),
    "the whole batch": lambda case: not case.parts,
    "m_sam": lambda case: case.evaluates and not case.memory,
    "refused by m_sam": lambda case: bool(case.memory),
}


def over(rule=None, cases=None):
    """Run a test over the cases that a rule is about."""
    applies = APPLIES[rule] if rule else lambda case: True
    chosen = [case for case in (CASES if cases is None else cases) if applies(case)]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)
