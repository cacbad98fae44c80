import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax.models import layers, norms


@pytest.mark.parametrize("use_fast_variance", [False, True])
def test_batch_norm_with_a_large_mean_against_float64(use_fast_variance):
    random = np.random.default_rng(0)
    x = (1000 + random.normal(size=(64, 8, 8, 3))).astype(np.float32)  # mean / std = 1000
    norm = norms.batch_norm(True, jnp.float32, use_fast_variance=use_fast_variance)
    apply = jax.jit(lambda x: norm.init_with_output(jax.random.key(0), x))
    normalised, variables = apply(x)
    exact = x.astype(np.float64)
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    expected = (exact - mean) / np.sqrt(variance + norms.EPSILON)
    assert variables["params"]["scale"].tolist() == [1, 1, 1]
    error = np.abs(normalised - expected).max()
    # The mean alone is rounded to 1000 * 2^-24 = 6e-5 standard deviations, and older XLA adds its
    # 4,096 numbers with errors of a few of these.
    bound = 2e-4 if jax.__version_info__ >= (0, 10) else 5e-4
    assert error < bound if not use_fast_variance else error > 0.02


def direct_convolution(x, kernel, stride, depthwise):
    """The definition, window by window, in float64."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    (n, rows, columns, channels), (height, width) = x.shape, kernel.shape[:2]
    p, q = height // 2, width // 2
    padded = np.zeros((n, rows + 2 * p, columns + 2 * q, channels))
    padded[:, p : p + rows, q : q + columns] = x
    out = np.zeros((n, -(-rows // stride), -(-columns // stride), kernel.shape[-1]))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            r, c = stride * i, stride * j
            window = padded[:, r : r + height, c : c + width]
            if depthwise:
                out[:, i, j] = (window * kernel[:, :, 0]).sum((1, 2))
            else:
                out[:, i, j] = np.tensordot(window, kernel, 3)
    return out


CONVOLUTIONS = {True: layers.depthwise_convolution, False: layers.convolution}


def problem(shape, size, features, depthwise, seed=0):
    rng = np.random.default_rng(seed)
    inputs = 1 if depthwise else shape[-1]
    outputs = shape[-1] if depthwise else features
    return rng.normal(size=shape), rng.normal(size=(size, size, inputs, outputs))


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    size=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    depthwise=st.booleans(),
)
def test_shifted_convolution_is_the_definition(rows, columns, size, stride, depthwise):
    x, kernel = problem((2, rows, columns, 3), size, 4, depthwise)
    expected = direct_convolution(x, kernel, stride, depthwise)
    with jax.enable_x64(True):
        got = CONVOLUTIONS[depthwise](jnp.asarray(x), jnp.asarray(kernel), stride, "shifted")
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_implementations_agree_with_gradients(depthwise, stride, size):
    x, kernel = problem((2, 7, 6, 4), size, 5, depthwise)
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(x), jnp.asarray(kernel)

        def outcome(implementation):
            def f(x, kernel):
                return CONVOLUTIONS[depthwise](x, kernel, stride, implementation)

            y, pullback = jax.vjp(f, x, kernel)
            return y, *pullback(jnp.cos(jnp.arange(float(y.size))).reshape(y.shape))

        for a, b in zip(outcome("shifted"), outcome("native"), strict=True):
            assert a.shape == b.shape
            assert jnp.abs(b).max() > 0.1
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_convolution_does_not_flip_the_kernel():
    x = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1.0)
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    for convolve in CONVOLUTIONS.values():  # cross-correlation: the impulse response is reversed
        for implementation in layers.IMPLEMENTATIONS:
            y = convolve(x, kernel, 1, implementation)[0, :, :, 0]
            np.testing.assert_array_equal(y, kernel[::-1, ::-1, 0, 0])


def test_default_implementation_follows_the_platform(monkeypatch):
    assert layers.choose_implementation(None, small=False) == "shifted"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert layers.choose_implementation(None, small=False) == "native"
    assert layers.choose_implementation(None, small=True) == "shifted"
    assert layers.choose_implementation("shifted", small=False) == "shifted"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert layers.choose_implementation(None, small=True) == "native"


@pytest.mark.parametrize("convolve", list(CONVOLUTIONS.values()))
def test_unknown_implementation(convolve):
    with pytest.raises(ValueError, match="shifted.*native.*'winograd'"):
        convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)), 1, "winograd")


@pytest.mark.parametrize("depthwise", [False, True])
def test_parameters_do_not_depend_on_the_implementation(depthwise):
    x = jnp.ones((1, 4, 4, 6), jnp.bfloat16)

    def init(implementation):
        conv = layers.Conv(
            6, depthwise=depthwise, dtype=jnp.bfloat16, implementation=implementation
        )
        return conv.init(jax.random.key(0), x)["params"]

    shifted, native = init("shifted"), init("native")
    assert shifted["kernel"].shape == ((3, 3, 1, 6) if depthwise else (3, 3, 6, 6))
    assert shifted["kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(shifted["kernel"], native["kernel"])


def test_initialisers_have_the_stated_law():
    key, shape = jax.random.key(1), (3, 3, 40, 60)
    bound = (9 * 40) ** -0.5
    w = layers.fan_in_uniform(key, shape, jnp.float32)
    # A uniform sample of 21,600: its maximum falls short of the bound by about bound / 21,600,
    # its variance estimates bound^2 / 3 with a relative deviation of sqrt(0.8 / 21,600) = 0.6 %.
    assert 0.998 * bound < jnp.abs(w).max() <= bound
    np.testing.assert_allclose(jnp.var(w), bound**2 / 3, rtol=0.03)
    w = layers.fan_out_normal(key, shape, jnp.float32)
    # sqrt(2 / 21,600) = 1 % for the variance of a normal sample; beyond three deviations: 0.27 %.
    deviation = (2 / (9 * 60)) ** 0.5
    np.testing.assert_allclose(jnp.var(w), deviation**2, rtol=0.05)
    assert 0.001 < jnp.mean(jnp.abs(w) > 3 * deviation) < 0.005
    w = layers.uniform(0.2)(key, shape)
    assert 0.1996 < jnp.abs(w).max() <= 0.2
    np.testing.assert_allclose(jnp.var(w), 0.04 / 3, rtol=0.03)


def test_batch_norm_updates_running_statistics_with_momentum():
    x = np.asarray(3 + 2 * jax.random.normal(jax.random.key(0), (5, 4, 4, 3)))
    norm = norms.batch_norm(True, jnp.float32)
    variables = norm.init(jax.random.key(1), x)
    y, new = norm.apply(variables, x, mutable=["batch_stats"])
    mean, variance = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    # Statistics as float32 sums of 80 terms, the variance as E[x^2] - E[x]^2: errors about 1e-6.
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.9 + 0.1 * variance, rtol=1e-5)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=2e-5)
    frozen = norms.batch_norm(False, jnp.float32).apply(variables, x)
    np.testing.assert_allclose(frozen, x / np.sqrt(1 + 1e-5), rtol=1e-6)
