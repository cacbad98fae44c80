"""What holds for every instrument: precision, dtypes, compilation, cost and memory."""

import inspect
import re

import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest

from sam_jax import metrics, statistics

KEY = jax.random.key(5)
DISTANCE = 0.25


def over_all(loss_fn, batches):
    def loss_of_all(params):
        losses = jax.lax.map(lambda batch: loss_fn(params, batch), batches)
        return jax.tree.map(jnp.mean, losses)

    return loss_of_all


def direction_like(params):
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, jnp.float32), params)


# name -> instrument(loss_fn, params, batches)
INSTRUMENTS = {
    "adversarial": lambda f, p, b: metrics.adversarial_sharpness(f, p, b, rho=DISTANCE, steps=2),
    "average": lambda f, p, b: metrics.average_sharpness(f, p, b, rho=DISTANCE, key=KEY, draws=4),
    "asymmetry": lambda f, p, b: metrics.asymmetry_factor(
        over_all(f, b), p, DISTANCE, key=KEY, num_directions=3
    ),
    "curve": lambda f, p, b: metrics.loss_curve(
        over_all(f, b), p, direction_like(p), jnp.array([-1.0, 0.0, DISTANCE])
    ),
    "index": lambda f, p, b: metrics.asymmetry_index(
        over_all(f, b), p, DISTANCE, key=KEY, num_directions=3
    ),
}
# name -> losses evaluated per batch (three batches in mlp_batches)
LOSSES = {"adversarial": 3, "average": 5, "asymmetry": 7, "curve": 3, "index": 7}

every_instrument = pytest.mark.parametrize("name", INSTRUMENTS)


@every_instrument
def test_jit_equals_eager(name):
    params, batches = minima.mlp_params(), minima.mlp_batches()
    measure = lambda p, b: INSTRUMENTS[name](minima.mlp_loss, p, b)  # noqa: E731
    eager, jitted = measure(params, batches), jax.jit(measure)(params, batches)
    # Differences of losses of order one, in float32.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), eager, jitted)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(eager))


@every_instrument
def test_second_model_is_not_traced_again(name):
    traces = []

    def loss_fn(params, batch):
        traces.append(1)
        return minima.mlp_loss(params, batch)

    measure = jax.jit(lambda p, b: INSTRUMENTS[name](loss_fn, p, b))
    batches = minima.mlp_batches()
    first = measure(minima.mlp_params(seed=0), batches)
    # One loop body each; the ascent has the gradient and the last loss.
    assert len(traces) == (2 if name == "adversarial" else 1)
    second = measure(minima.mlp_params(seed=1), batches)
    assert len(traces) == (2 if name == "adversarial" else 1)
    assert np.any(np.asarray(first[0]) != np.asarray(second[0]))


@every_instrument
def test_cost_is_what_the_docstring_says(name):
    calls = []

    def loss_fn(params, batch):
        jax.debug.callback(lambda: calls.append(1))
        return minima.mlp_loss(params, batch)

    batches = minima.mlp_batches(n=3)
    jax.block_until_ready(INSTRUMENTS[name](loss_fn, minima.mlp_params(), batches))
    jax.effects_barrier()
    assert len(calls) == 3 * LOSSES[name]


@every_instrument
def test_bfloat16_parameters_are_measured_in_float32(name):
    # A step of 1e-3 vanishes next to weights of one in bfloat16, whose spacing is 2^-7 there.
    params = {"a": jnp.ones(4, jnp.bfloat16), "b": {"c": jnp.ones((), jnp.bfloat16)}}
    batches = jnp.ones((2, 4))

    def loss_fn(p, batch):
        return jnp.mean(batch) * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))

    widened = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    narrow = INSTRUMENTS[name](loss_fn, params, batches)
    wide = INSTRUMENTS[name](loss_fn, widened, batches)
    jax.tree.map(np.testing.assert_array_equal, narrow, wide)
    if name == "adversarial":
        tiny = metrics.adversarial_sharpness(loss_fn, params, batches, rho=1e-3)
        np.testing.assert_allclose(tiny.sharpness, 2e-3 * np.sqrt(5), rtol=1e-2)
        assert tiny.sharpness.dtype == jnp.float32


@every_instrument
def test_bfloat16_losses_are_widened(name):
    params, batches = minima.mlp_params(), minima.mlp_batches()
    loss_fn = lambda p, b: minima.mlp_loss(p, b).astype(jnp.bfloat16)  # noqa: E731
    result = INSTRUMENTS[name](loss_fn, params, batches)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} <= {
        jnp.dtype("float32"),
        jnp.dtype("int32"),
    }


@every_instrument
def test_float64_throughout(name):
    with jax.enable_x64(True):
        params, batches = minima.mlp_params(jnp.float64), minima.mlp_batches(dtype=jnp.float64)
        result = INSTRUMENTS[name](minima.mlp_loss, params, batches)
        centre = result[1] if name == "curve" else result.loss
        exact = minima.mean_mlp_loss(params, batches)
    np.testing.assert_allclose(centre, exact, rtol=1e-13)
    assert all(
        leaf.dtype == jnp.float64
        for leaf in jax.tree.leaves(result)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    )


@jax.custom_vjp
def product(x, y):
    return x @ y


# The rules of a custom gradient are traced later than the loss itself.
product.defvjp(lambda x, y: (x @ y, (x, y)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


@every_instrument
def test_products_run_in_full_precision(name):
    params, batches = {"w": jnp.ones((3, 2))}, jnp.ones((2, 4, 3))
    loss_fn = lambda p, x: jnp.mean(jax.jit(product)(x, p["w"]) ** 2)  # noqa: E731

    def products(measure):
        text = str(jax.make_jaxpr(measure)(params, batches))
        return text.count("dot_general["), text.count("precision=(Precision.HIGHEST")

    found, precise = products(lambda p, b: INSTRUMENTS[name](loss_fn, p, b))
    assert found == precise > 0
    found, precise = products(lambda p, b: jax.grad(lambda q: loss_fn(q, b[0]))(p))
    assert found > 0 and precise == 0


@every_instrument
def test_convolutions_are_never_grouped(name):
    kernels, images = jnp.ones((2, 3, 3, 2, 2)), jnp.ones((2, 5, 6, 6, 2))

    def loss_fn(kernels, x):
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return jnp.mean(x**2)

    def groups(measure, *arguments):
        return set(re.findall(r"_group_count=(\d+)", str(jax.make_jaxpr(measure)(*arguments))))

    assert groups(lambda w, x: INSTRUMENTS[name](loss_fn, w, x), kernels, images) == {"1"}
    batched = jax.vmap(loss_fn, (0, None))
    assert groups(batched, jnp.stack([kernels] * 3), images[0]) == {"1", "3"}


@every_instrument
def test_no_array_is_larger_than_one_batch_needs(name):
    weights, batches = jnp.ones((2, 256)), jnp.ones((32, 64, 2))

    def loss_fn(w, x):
        return jnp.mean(jnp.tanh(jnp.tanh(x @ w) @ w.T) ** 2)

    def largest(measure):
        text = str(jax.make_jaxpr(measure)(weights, batches))
        shapes = re.findall(r"f32\[([\d,]+)\]", text)
        return max(np.prod([int(size) for size in shape.split(",")]) for shape in shapes)

    assert largest(lambda w, x: INSTRUMENTS[name](loss_fn, w, x)) == 64 * 256  # the hidden layer
    assert largest(lambda w, x: jax.vmap(loss_fn, (None, 0))(w, x)) == 32 * 64 * 256


@every_instrument
def test_loss_with_auxiliary_outputs_is_refused(name):
    params, batches = minima.mlp_params(), minima.mlp_batches()
    with pytest.raises(ValueError, match="one real scalar.*without auxiliary outputs"):
        INSTRUMENTS[name](lambda p, b: (minima.mlp_loss(p, b), 1.0), params, batches)


@pytest.mark.parametrize("name", sorted(set(INSTRUMENTS) - {"curve"}))
def test_parameters_without_an_array_are_refused(name):
    with pytest.raises(ValueError, match="at least one array .*, got an empty pytree"):
        INSTRUMENTS[name](lambda p, b: jnp.mean(b), {"layer": {}}, jnp.ones((2, 4)))


def test_loss_per_example_is_refused():
    with pytest.raises(ValueError, match=r"one real scalar.*got float32\[4\]"):
        metrics.adversarial_sharpness(lambda w, b: w * b, jnp.ones(()), jnp.ones((2, 4)))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("name", sorted(set(INSTRUMENTS) - {"curve"}))
def test_rises_above_a_loss_that_is_not_finite_are_refused_where_it_is_known(name, value):
    def loss_fn(w, batch):
        return jnp.mean(batch) * jnp.where(jnp.all(w == 1), value, jnp.sum(w**2))

    measure = lambda w: INSTRUMENTS[name](loss_fn, w, jnp.ones((2, 4)))  # noqa: E731
    with pytest.raises(ValueError, match=f"loss at params must be finite.*returned {value}"):
        measure(jnp.ones(3))
    # Traced, nothing is known and nothing is hidden.
    rise = lambda result: result.sharpness if name in ("adversarial", "average") else result.plus  # noqa: E731
    assert not np.any(np.isfinite(rise(jax.jit(measure)(jnp.ones(3)))))
    several = rise(jax.vmap(measure)(jnp.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])))
    assert not np.any(np.isfinite(several[0])) and np.all(np.isfinite(several[1]))
    assert np.all(np.isfinite(rise(measure(jnp.arange(3.0)))))


def test_a_batch_that_is_not_finite_spoils_the_mean_of_all():
    batches = np.array([[1.0, 1.0], [np.nan, 1.0]])
    loss_fn = lambda w, batch: jnp.mean(batch) * jnp.sum(w**2)  # noqa: E731
    with pytest.raises(ValueError, match="loss at params must be finite"):
        INSTRUMENTS["average"](loss_fn, jnp.ones(3), batches)
    result = INSTRUMENTS["adversarial"](loss_fn, jnp.ones(3), batches)
    np.testing.assert_array_equal(np.isfinite(result.per_batch_perturbed_loss), [True, False])
    assert np.isnan(result.sharpness)


def test_a_curve_keeps_what_is_not_finite():
    losses = metrics.loss_curve(lambda w: jnp.log(w[0]), jnp.zeros(1), jnp.ones(1), [-1.0, 0, 1])
    np.testing.assert_array_equal(losses, [np.nan, -np.inf, 0])


@pytest.mark.parametrize("name", ["adversarial", "average"])
@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ({}, "at least one array"),
        (np.ones(8), r"same two axes \[n, m\].*Reshape one batch"),
        ({"x": np.ones((8, 3)), "y": np.ones(8)}, r"same two axes \[n, m\]"),
        ({"x": np.ones((2, 8, 3)), "y": np.ones((3, 8))}, r"same two axes \[n, m\]"),
        (np.ones((0, 8)), "at least one example"),
        (np.ones((2, 0)), "at least one example"),
    ],
)
def test_batches_are_checked(name, batches, message):
    with pytest.raises(ValueError, match=message):
        INSTRUMENTS[name](lambda w, b: jnp.sum(w), jnp.ones(2), batches)


# name -> call(loss_fn, params, key) of everything that takes a key
WITH_KEY = {
    "directions": lambda f, p, k: metrics.random_directions(k, p, 2, "gaussian"),
    "factor": lambda f, p, k: metrics.asymmetry_factor(f, p, key=k),
    "index": lambda f, p, k: metrics.asymmetry_index(f, p, 1.0, key=k),
    "widths": lambda f, p, k: metrics.level_set_widths(f, p, 1.0, 1.0, key=k),
    "adversarial": lambda f, p, k: metrics.adversarial_sharpness(
        lambda w, b: f(w), p, np.ones((1, 1)), restarts=1, key=k
    ),
    "average": lambda f, p, k: metrics.average_sharpness(
        lambda w, b: f(w), p, np.ones((1, 1)), key=k
    ),
    "trace": lambda f, p, k: metrics.hessian_trace(f, p, key=k),
    "eigenvalues": lambda f, p, k: metrics.hessian_eigenvalues(f, p, key=k),
    "density": lambda f, p, k: metrics.spectral_density(f, p, key=k),
}


@pytest.mark.parametrize("name", WITH_KEY)
def test_a_key_is_one_typed_key(name):
    refused = [0, np.zeros(2, np.uint32), jax.random.PRNGKey(0), jax.random.split(KEY, 2)]
    if name not in ("factor", "index", "widths"):  # which take directions in its place
        refused.append(None)
    for key in refused:
        with pytest.raises(ValueError, match=r"key must be one typed key.*key\(0\), got"):
            WITH_KEY[name](lambda w: w @ w, jnp.ones(2), key)


def test_distances_may_be_traced():
    params, batches = minima.mlp_params(), minima.mlp_batches()
    loss_fn = over_all(minima.mlp_loss, batches)

    @jax.jit
    def measure(size):
        return (
            metrics.adversarial_sharpness(minima.mlp_loss, params, batches, rho=size).sharpness,
            metrics.average_sharpness(
                minima.mlp_loss, params, batches, rho=size, key=KEY, draws=2
            ).sharpness,
            metrics.asymmetry_factor(loss_fn, params, size, key=KEY, num_directions=2).factor,
        )

    small, large = measure(0.1), measure(1.0)
    np.testing.assert_allclose(
        small[0],
        metrics.adversarial_sharpness(minima.mlp_loss, params, batches, rho=0.1).sharpness,
        rtol=1e-4,
    )
    assert all(a != b for a, b in zip(small, large, strict=True))


PUBLIC = [
    thing
    for module in (metrics, statistics)
    for name, thing in vars(module).items()
    if inspect.isfunction(thing) and not name.startswith("_")
]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__name__)
def test_every_function_shows_how_it_is_called(function):
    # The rest of the docstring, and that the example runs, is checked for the whole package.
    assert re.search(rf"^    >>> .*\b{function.__name__}\(", function.__doc__, re.M)
