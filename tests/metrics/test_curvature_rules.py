"""What holds for every measure of curvature: precision, compilation, cost, memory, errors."""

import re

import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest

from sam_jax.metrics.curvature.density import spectral_density
from sam_jax.metrics.curvature.eigenvalues import hessian_eigenvalues
from sam_jax.metrics.curvature.hessian import hessian_vector_product
from sam_jax.metrics.curvature.trace import hessian_trace

KEY = jax.random.key(4)


def ones_like(params):
    return jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf)), params)


# name -> measure(loss_fn, params, batches)
MEASURES = {
    "product": lambda f, p, b, **k: hessian_vector_product(f, p, ones_like(p), b, **k),
    "trace": lambda f, p, b, **k: hessian_trace(f, p, b, key=KEY, draws=5, **k),
    "eigenvalues": lambda f, p, b, **k: hessian_eigenvalues(
        f, p, b, key=KEY, steps=4, num_eigenvalues=2, **k
    ),
    "density": lambda f, p, b, **k: spectral_density(
        f, p, b, key=KEY, steps=3, draws=2, num_points=11, **k
    ),
}
# name -> products with the Hessian, as the docstrings say
PRODUCTS = {"product": 1, "trace": 5, "eigenvalues": 4 + 2 * 2, "density": 2 * 3}
# name -> how often the loss is traced: one loop each, and one for the residuals
TRACES = {"product": 1, "trace": 1, "eigenvalues": 2, "density": 1}

every_measure = pytest.mark.parametrize("name", MEASURES)


@every_measure
def test_jit_equals_eager_and_one_compilation_serves_all_models(name):
    traces = []

    def loss_fn(params, batch):
        traces.append(1)
        return minima.mlp_loss(params, batch)

    batches = minima.mlp_batches()
    measure = jax.jit(lambda p, b, w: MEASURES[name](loss_fn, p, b, weights=w))
    first = measure(minima.mlp_params(seed=0), batches, jnp.ones(3))
    assert len(traces) == TRACES[name]
    second = measure(minima.mlp_params(seed=1), batches, jnp.array([1.0, 2.0, 3.0]))
    assert len(traces) == TRACES[name]
    assert np.any(jax.tree.leaves(first)[0] != jax.tree.leaves(second)[0])
    eager = MEASURES[name](minima.mlp_loss, minima.mlp_params(seed=0), batches)
    if name == "density":  # which may be large where it changes fast
        first, eager = first._replace(density=0, stderr=0), eager._replace(density=0, stderr=0)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), first, eager)


@every_measure
def test_cost_is_what_the_docstring_says(name):
    calls = []

    def loss_fn(params, batch):
        jax.debug.callback(lambda: calls.append(1))
        return minima.mlp_loss(params, batch)

    jax.block_until_ready(MEASURES[name](loss_fn, minima.mlp_params(), minima.mlp_batches(n=3)))
    jax.effects_barrier()
    assert len(calls) == 3 * PRODUCTS[name]


def test_a_product_costs_two_to_three_gradients():
    params = {"a": jnp.ones((32, 256)), "b": jnp.ones((256, 32))}
    batch = jnp.ones((64, 32))
    loss_fn = lambda p, x: jnp.mean(jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) ** 2)  # noqa: E731

    def operations(function):
        return jax.jit(function).lower(params).compile().cost_analysis()["flops"]

    gradient = operations(lambda p: jax.grad(loss_fn)(p, batch))
    product = operations(lambda p: hessian_vector_product(lambda q: loss_fn(q, batch), p, p))
    assert 1.5 * gradient < product < 3 * gradient


@pytest.mark.parametrize("name", ["eigenvalues", "density"])
def test_memory_is_one_basis(name):
    params = {"a": jnp.ones((32, 256)), "b": jnp.ones((256, 32))}
    batches = jnp.ones((3, 4, 32))
    loss_fn = lambda p, x: jnp.mean(jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) ** 2)  # noqa: E731
    measure = {"eigenvalues": hessian_eigenvalues, "density": spectral_density}[name]

    def vectors(steps):
        """Return the temporary memory, in vectors of the size of the parameters."""
        compiled = jax.jit(lambda p, b: measure(loss_fn, p, b, key=KEY, steps=steps))
        memory = compiled.lower(params, batches).compile().memory_analysis()
        return memory.temp_size_in_bytes / (4 * 2 * 32 * 256)

    # One more step is one more row of the basis, not two (but in older XLA, which copies it), and
    # the rest does not grow.
    # The density is evaluated on steps * 1024 points, a sixteenth of a vector each.
    few, many = vectors(20), vectors(60)
    rows = 1 if jax.__version_info__ >= (0, 10) else 2
    assert 0.95 * rows < (many - few) / 40 < 1.2 * rows
    assert few - 20 * rows < 12


@every_measure
def test_float64_throughout_and_narrow_types_widened(name):
    with jax.enable_x64(True):
        result = MEASURES[name](
            minima.mlp_loss, minima.mlp_params(jnp.float64), minima.mlp_batches(dtype=jnp.float64)
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("float64")}
    params = minima.mlp_params(jnp.bfloat16)
    narrow = MEASURES[name](minima.mlp_loss, params, minima.mlp_batches())
    wide = MEASURES[name](
        minima.mlp_loss, jax.tree.map(lambda x: x.astype(jnp.float32), params), minima.mlp_batches()
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype("float32")}
    jax.tree.map(np.testing.assert_array_equal, narrow, wide)


@every_measure
def test_products_run_in_full_precision(name):
    params, batches = {"w": jnp.ones((3, 2))}, jnp.ones((2, 4, 3))
    loss_fn = lambda p, x: jnp.mean((x @ p["w"]) ** 2)  # noqa: E731

    def precisions(measure):
        text = str(jax.make_jaxpr(measure)(params, batches))
        return text.count("dot_general["), text.count("precision=(Precision.HIGHEST")

    found, precise = precisions(lambda p, b: MEASURES[name](loss_fn, p, b))
    assert found == precise > 0
    found, precise = precisions(lambda p, b: jax.grad(lambda q: loss_fn(q, b[0]))(p))
    assert found > 0 and precise == 0


@every_measure
def test_convolutions_are_never_grouped(name):
    kernels, images = jnp.ones((2, 3, 3, 2, 2)), jnp.ones((2, 5, 6, 6, 2))

    def loss_fn(kernels, x):
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return jnp.mean(x**2)

    def groups(measure):
        text = str(jax.make_jaxpr(measure)(kernels, images))
        return set(re.findall(r"_group_count=(\d+)", text))

    assert groups(lambda w, x: MEASURES[name](loss_fn, w, x)) == {"1"}
    many = jax.vmap(lambda v, w, x: MEASURES["product"](loss_fn, v * w, x), (0, None, None))
    assert groups(lambda w, x: many(jnp.ones(3), w, x)) > {"1"}


@every_measure
@pytest.mark.parametrize(
    ("loss_of", "weight", "message"),
    [
        (lambda w: jnp.sum(jnp.sqrt(w)), 0.0, "loss at params and its derivatives must be finite"),
        (lambda w: jnp.nan * jnp.sum(w**2), 2.0, "Hessian give nan. Look for a run that diverged"),
        (lambda w: jnp.sum(w**4), np.nan, "params must be finite, got infinity or NaN"),
    ],
    ids=["derivative", "loss", "params"],
)
def test_what_is_not_finite_is_seen(name, loss_of, weight, message):
    loss_fn = lambda w, batch: loss_of(w) * jnp.mean(batch)  # noqa: E731
    measure = lambda w: MEASURES[name](loss_fn, w, jnp.ones((2, 3)))  # noqa: E731
    params = jnp.array([1.0, weight, 1.0, 1.0, 1.0])
    if name == "product" and weight == 0:  # finite in the other weights, and so returned
        np.testing.assert_array_equal(np.isfinite(measure(params)), params != 0)
    else:
        with pytest.raises(ValueError, match=message):
            measure(params)
    # Traced, nothing is known and nothing is hidden.
    assert not np.isfinite(jax.tree.leaves(jax.jit(measure)(params))[0]).all()


@pytest.mark.parametrize("name", ["trace", "eigenvalues", "density"])
def test_params_that_are_not_finite_are_refused_where_the_hessian_is_constant(name):
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"params must be finite.*at \['b'\]"):
            MEASURES[name](
                lambda p, b: jnp.mean(b) * (p["a"] @ p["a"] + p["b"] @ p["b"]),
                {"a": jnp.ones(3), "b": np.array([1.0, value])},
                jnp.ones((2, 3)),
            )


def test_a_vector_that_is_not_finite_is_refused_where_it_counts():
    vector = {"a": np.ones(2), "b": np.array([1.0, np.nan])}
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    loss_fn = lambda p: p["a"] @ p["a"] + p["b"] @ p["b"]  # noqa: E731
    with pytest.raises(ValueError, match=r"vector must be finite.*at \['b'\]"):
        hessian_vector_product(loss_fn, params, vector)
    mask = {"a": True, "b": False}
    product = hessian_vector_product(loss_fn, params, vector, mask=mask)
    np.testing.assert_array_equal(product["a"], 2)
    np.testing.assert_array_equal(product["b"], 0)


@every_measure
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": jnp.ones(2)}, r"weights must have the shape \[n\] = \(3,\), got \(2,\)"),
        ({"weights": [1.0, -1.0, 1.0]}, "none negative and one positive"),
        ({"weights": [0.0, 0.0, 0.0]}, "none negative and one positive"),
        ({"weights": [1.0, 1.0, np.nan]}, "must be finite"),
        ({"mask": {"first": True}}, "booleans in the structure of params"),
        ({"mask": False}, "choose at least one leaf"),
    ],
)
def test_errors_of_weights_and_masks(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        MEASURES[name](minima.mlp_loss, minima.mlp_params(), minima.mlp_batches(), **arguments)


@every_measure
def test_errors_of_losses_batches_and_parameters(name):
    measure, params, batches = MEASURES[name], minima.mlp_params(), minima.mlp_batches()
    with pytest.raises(ValueError, match="one real scalar.*without auxiliary outputs"):
        measure(lambda p, b: (minima.mlp_loss(p, b), 1.0), params, batches)
    with pytest.raises(ValueError, match=r"same two axes \[n, m\]"):
        measure(minima.mlp_loss, params, jnp.ones(8))
    with pytest.raises(ValueError, match="give batches as well"):
        measure(lambda p: jnp.sum(p["a"]), {"a": jnp.ones(4)}, None, weights=jnp.ones(1))
    with pytest.raises(ValueError, match="params must hold at least one array"):
        measure(minima.mlp_loss, {}, batches)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, w: hessian_vector_product(f, w, jnp.ones(4)), "vector must have the shapes"),
        (lambda f, w: hessian_vector_product(f, w, [w]), "vector must have the same pytree"),
        (lambda f, w: hessian_trace(f, w, key=KEY, draws=0), "draws must be an integer"),
        (
            lambda f, w: hessian_trace(f, w, key=KEY, distribution="uniform"),
            r"one of \['rademacher', 'gaussian'\]",
        ),
        (lambda f, w: hessian_eigenvalues(f, w, key=KEY, steps=0), "steps must be an integer"),
        (
            lambda f, w: hessian_eigenvalues(f, w, key=KEY, num_eigenvalues=4),
            "at most steps = 40 and the number of .chosen. parameters, 3; got 4",
        ),
        (
            lambda f, w: hessian_eigenvalues(f, w, key=KEY, num_eigenvalues=3, steps=2),
            "at most steps = 2",
        ),
        (lambda f, w: spectral_density(f, w, key=KEY, draws=0), "draws must be an integer"),
        (lambda f, w: spectral_density(f, w, key=KEY, steps=0), "steps must be an integer"),
        (lambda f, w: spectral_density(f, w, key=KEY, width=0.0), "width must be a positive"),
        (lambda f, w: spectral_density(f, w, key=KEY, grid=1.0), r"grid must have the shape \[k\]"),
        (lambda f, w: spectral_density(f, w, key=KEY, grid=[0.0, np.nan]), "grid must be finite"),
        (lambda f, w: spectral_density(f, w, key=KEY, num_points=1), "num_points must be at least"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(lambda w: w @ w, jnp.ones(3))
