"""Every form of ASAM, five steps against NumPy float64, and the choice of what is rescaled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_close, assert_trees_equal, update
from numpy_problem import (
    NAMES,
    flat,
    jax_trajectory,
    largest_difference,
    numpy_gradient,
    numpy_trajectory,
)
from numpy_vectors import dot, plus
from perturbation_formulas import (
    KERNELS,
    RHO,
    SECOND,
    adaptive,
    at,
    layer,
    only,
    over_sub_batches,
    sam,
)

import sam_jax
from sam_jax import optim
from sam_jax.optim import combinations, perturbations

EXAMPLES, ALPHA, SIGMA, LMBDA = 8, 0.6, 0.8, 0.6
EVERYTHING = tuple(NAMES)
SECOND_LAYER = {"first": False, "second": True}


def form(**keywords):
    return at(functools.partial(adaptive, **keywords))


def on_second_layer(w, g, step, sub_batch, rescaled):
    """The norm runs over the perturbed leaves only, as in SAM-ON."""
    return only(SECOND, adaptive(w, only(SECOND, g), step, sub_batch, rescaled=rescaled))


def gsam(epsilon_of):
    def gradient_on(w, x, y):
        g = numpy_gradient(w, x, y)
        p = numpy_gradient(plus(w, epsilon_of(w, g, 0, 0)), x, y)
        return plus(p, plus(g, p, -dot(g, p) / dot(p, p)), -ALPHA)

    return over_sub_batches(gradient_on)


def adaptive_gsam():
    return optim.sharpness_aware(
        perturbations.adaptive_ascent(RHO, eta=0.0, rescaled="all"),
        combinations.without_orthogonal_component(ALPHA),
    )


def friendly(epsilon_of):
    """The released F-SAM: the average is that of the steps before, and step 0 has none."""

    def with_batch(x, y, m):
        average = None

        def gradient_of(w, step):
            nonlocal average
            g = numpy_gradient(w, x, y)
            d = g if average is None else plus(g, average, -SIGMA)
            average = g if average is None else plus(g, plus(average, g, -1.0), LMBDA)
            return numpy_gradient(plus(w, epsilon_of(w, d, step, 0)), x, y)

        return gradient_of

    return with_batch


def adaptive_friendly_sam():
    perturbation = optax.chain(
        perturbations.friendly_ascent(1.0, SIGMA, LMBDA, order="code"),
        perturbations.adaptive_ascent(RHO, eta=0.0, rescaled="all"),
    )
    return optim.sharpness_aware(perturbation, memory=perturbations.MOVING_AVERAGE)


def with_weight_in_the_name(path, leaf):
    return "kernel" in path  # as the layers of this net name what PyTorch calls a weight


davda54 = functools.partial(adaptive, rescaled=EVERYTHING, eta=0.0)
# What is assembled, its formula, and formulas that it must not follow.
CASES = {
    "davda54 adaptive": (
        lambda: optim.asam(RHO, 0.0, rescaled="all"),
        at(davda54),
        [form(eta=0.0), form(rescaled=EVERYTHING), at(sam)],
    ),
    "official, by a predicate": (
        lambda: optim.asam(RHO, 0.05, rescaled=sam_jax.leaves_where(with_weight_in_the_name)),
        form(rescaled=KERNELS),
        [form(rescaled=EVERYTHING), form(rescaled=["kernel1"])],
    ),
    "a mask": (
        lambda: optim.asam(RHO, 0.05, rescaled=SECOND_LAYER),
        form(rescaled=SECOND),
        [form(rescaled=EVERYTHING), form(rescaled=KERNELS)],
    ),
    "by layer": (
        lambda: optim.asam(RHO, 0.05, rescaling="layer"),
        form(kind="layer"),
        [form(), form(kind="layer", rescaled=EVERYTHING), at(layer)],
    ),
    "by layer, biases too": (
        lambda: optim.asam(RHO, 0.05, rescaling="layer", rescaled="all"),
        form(kind="layer", rescaled=EVERYTHING),
        [form(kind="layer"), form(rescaled=EVERYTHING), at(layer)],
    ),
    "p = inf": (
        lambda: optim.asam(RHO, 0.05, norm_order=float("inf")),
        form(p=float("inf")),
        [form(), form(p=4.0), form(p=float("inf"), rescaled=EVERYTHING)],
    ),
    "p = 3": (
        lambda: optim.asam(RHO, 0.05, norm_order=3.0),
        form(p=3.0),
        [form(), form(p=1.5)],
    ),
    "SAM-ON normalize_bias": (
        lambda: optim.asam(RHO, 0.05, mask=SECOND_LAYER, rescaled="all"),
        at(functools.partial(on_second_layer, rescaled=EVERYTHING)),
        [at(functools.partial(on_second_layer, rescaled=KERNELS)), form(rescaled=EVERYTHING)],
    ),
    "GSAM adaptive": (adaptive_gsam, gsam(davda54), [gsam(adaptive), gsam(sam), at(davda54)]),
    "F-SAM adaptive": (
        adaptive_friendly_sam,
        friendly(davda54),
        [friendly(adaptive), friendly(sam), at(davda54)],
    ),
}
WITH_MEMORY = ("F-SAM adaptive",)
RUNS = [(name, EXAMPLES) for name in CASES] + [
    (name, 2) for name in CASES if name not in WITH_MEMORY
]


@pytest.mark.parametrize(("name", "m"), RUNS)
def test_five_steps_follow_the_formula(name, m):
    make, formula, controls = CASES[name]
    with jax.enable_x64(True):
        problem = problems.tanh_net(dtype=jnp.float64)
        transformation = make() if m == EXAMPLES else optim.m_sam(make(), m)
        result = jax_trajectory(transformation, problem)
        x, y = map(np.asarray, (problem.batch["x"], problem.batch["y"]))

        def difference(gradient_with):
            wanted = numpy_trajectory(gradient_with(x, y, m), flat(problem.params))
            return largest_difference(result, wanted)

        assert difference(formula) < 1e-10
        assert min(difference(control) for control in controls) > 1e-4


# Layers as the libraries name what they hold, and a predicate that leaves their biases alone.
BIASES = {
    "Haiku": ({"linear": {"w": 2.0, "b": 0.5}, "norm": {"scale": 2.0, "offset": 0.5}}, "b offset"),
    "Keras": ({"dense": {"kernel": 2.0, "bias": 0.5}, "bn": {"gamma": 2.0, "beta": 0.5}}, "beta"),
    "PyTorch": ({"rnn": {"weight_ih": 2.0, "bias_ih": 0.5, "bias_hh": 0.5}}, "bias_ih bias_hh"),
}


@pytest.mark.parametrize("library", BIASES)
def test_a_predicate_knows_the_biases_of_any_library(library):
    layers, names = BIASES[library]
    params = jax.tree.map(jnp.float32, layers)
    ones = jax.tree.map(jnp.ones_like, params)

    def sizes(**arguments):
        """T_w^2 of every leaf: with the gradient one, epsilon over its smallest entry."""
        tx = optim.asam(1.0, 0.0, **arguments)
        return tx.gradient(lambda w: (ones, None), params, tx.init(params))[0].epsilon

    def is_weight(path, leaf):
        return path.split("/")[-1] not in {"bias", *names.split()}

    epsilon = sizes(rescaled=sam_jax.leaves_where(is_weight))
    wanted = jax.tree.map(lambda w: jnp.where(w > 1, 4.0, 1.0), params)
    assert_trees_close(jax.tree.map(lambda e: e / min(jax.tree.leaves(epsilon)), epsilon), wanted)
    # The default goes by the name "bias" alone, and rescales these.
    unscaled = sizes()
    smallest = min(jax.tree.leaves(unscaled))
    assert any(
        not jnp.allclose(e / smallest, w)
        for e, w in zip(jax.tree.leaves(unscaled), jax.tree.leaves(wanted), strict=True)
    )


def test_a_predicate_sees_paths_and_leaves_and_says_when_nothing_matched():
    params = {"blocks": [{"kernel": jnp.ones((2, 3))}, {"kernel": jnp.ones(3)}]}
    seen = []

    def predicate(path, leaf):
        seen.append((path, leaf.shape))
        return leaf.ndim > 1

    chosen = sam_jax.leaves_where(predicate)(params)
    assert seen == [("blocks/0/kernel", (2, 3)), ("blocks/1/kernel", (3,))]
    assert chosen == {"blocks": [{"kernel": True}, {"kernel": False}]}
    nothing = sam_jax.leaves_where(lambda path, leaf: "weight" in path)
    for tx in (optim.asam(RHO, rescaled=nothing), optim.sam(RHO, mask=nothing)):
        with pytest.raises(ValueError, match="chooses none of the leaves .*blocks/0/kernel"):
            tx.update(params, tx.init(params), params, grad_fn=lambda w: w)


def test_the_words_survive_inject_hyperparams():
    # A function as the default of an argument would be taken for a schedule.
    problem = problems.tanh_net()
    injected = optax.inject_hyperparams(optim.asam)(rho=RHO)
    assert_trees_close(update(injected, problem)[0], update(optim.asam(RHO), problem)[0])


def test_two_norm_and_default_words_are_the_default():
    problem = problems.tanh_net()
    plain, _ = update(optim.asam(RHO), problem)
    same = optim.asam(RHO, rescaled=perturbations.not_biases, norm_order=2)
    assert_trees_equal(update(same, problem)[0], plain)
