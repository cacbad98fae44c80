"""The convolution by fewer multiplications, against XLA's and against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mesh_gradients import FORMS, gradients_on_mesh

from sam_jax.models import layers, winograd

direct = functools.partial(layers.native_convolution, stride=1, groups=1)


def problem(rows, columns, images=3, channels=2, features=3):
    rng = np.random.default_rng(0)
    shapes = (images, rows, columns, channels), (3, 3, channels, features)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert jnp.abs(b).max() > 1e-2
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


# Tiles of 2 (sides below 8) and of 4, whole ones and not; one chunk, and chunks with zeros after.
@pytest.mark.parametrize("rows, columns, tiles", [(4, 6, 256), (5, 1, 4), (8, 12, 256), (9, 10, 9)])
def test_derivatives_of_both_modes_and_orders(monkeypatch, rows, columns, tiles):
    monkeypatch.setattr(winograd, "MOST_TILES", tiles)
    with jax.enable_x64(True):
        x, kernel = problem(rows, columns)
        dx, dk = jnp.cos(x), jnp.sin(kernel)

        # The oldest XLA folds its own convolutions of constants wrongly: these are arguments.
        @functools.partial(jax.jit, static_argnums=0)
        def derivatives(f, x, kernel):
            def loss(x, kernel):
                return jnp.sum(jnp.tanh(f(x, kernel) / 3))

            grad = jax.grad(loss, (0, 1))

            def dot(x, kernel):
                gradient, product = jax.tree.leaves(grad(x, kernel)), jax.tree.leaves((dx, dk))
                return sum(jnp.vdot(a, b) for a, b in zip(gradient, product, strict=True))

            along = jax.jvp(grad, (x, kernel), (dx, dk))
            return f(x, kernel), along, jax.grad(dot, (0, 1))(x, kernel)

        got = derivatives(winograd.convolution, x, kernel)
        close(got, derivatives(direct, x, kernel))
        close(got[1][1], got[2])  # forward over reverse and reverse over reverse agree


@pytest.mark.parametrize("axes", [(0, 0), (1, None), (None, 2), (3, 1)])
def test_vmap_of_gradients(axes):
    with jax.enable_x64(True):
        x, kernel = problem(5, 8)
        scales = jnp.arange(1.0, 5.0)
        x, kernel = (
            y if axis is None else jnp.stack([y * s for s in scales], axis)
            for y, axis in zip((x, kernel), axes, strict=True)
        )

        def gradients(f, x, kernel):
            return jax.grad(lambda x, k: jnp.sum(jnp.tanh(f(x, k) / 9)), (0, 1))(x, kernel)

        got, expected = (
            jax.vmap(jax.vmap(functools.partial(gradients, f), axes), (None, 0))(
                x, jnp.stack([kernel, 2 * kernel])
            )
            for f in (winograd.convolution, direct)
        )
        close(got, expected)


@pytest.mark.parametrize("side, most", [(4, 2), (8, 7)])
def test_rounding_in_float32(monkeypatch, side, most):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(4, side, side, 64)), 0)  # as behind a ReLU
    kernel = rng.normal(size=(3, 3, 64, 64)) / 24
    with jax.enable_x64(True):
        exact = np.asarray(direct(jnp.asarray(x), jnp.asarray(kernel)))

    def error(f):
        y = f(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
        return np.sqrt(np.mean((np.asarray(y, np.float64) - exact) ** 2))

    plain = error(functools.partial(layers.convolution, implementation="shifted"))
    assert 0 < plain < 1e-6
    assert error(jax.jit(winograd.convolution)) < most * plain
    # A control: points that lie farther apart round worse than what is asked for.
    farther = winograd.transforms((0.0, 1.0, -1.0, 5.0, -5.0) if side == 8 else (0.0, 2.0, -9.0))
    monkeypatch.setitem(winograd.TRANSFORMS, 4 if side == 8 else 2, farther)
    assert error(lambda x, kernel: winograd.convolution(x, kernel)) > most * plain


def chosen(images=(2, 8, 8, 64), kernel=(3, 3, 64, 64), dtype=jnp.float32, stride=1, **options):
    """Say whether the layers take this algorithm."""
    shapes = (jax.ShapeDtypeStruct(shape, dtype) for shape in (images, kernel))
    convolve = functools.partial(layers.convolution, stride=stride, **options)
    return "winograd_convolution" in str(jax.make_jaxpr(convolve)(*shapes))


def test_choice(monkeypatch):
    assert chosen()
    assert chosen(dtype=jnp.float32, images=(2, 4, 9, 128), kernel=(3, 3, 128, 64))
    assert not chosen(dtype=jnp.bfloat16)
    assert not chosen(stride=2)
    assert not chosen(kernel=(5, 5, 64, 64))
    assert not chosen(kernel=(3, 3, 64, 32))
    assert not chosen(images=(2, 2, 8, 64))
    assert not chosen(implementation="shifted")
    with jax.enable_x64(True):
        assert not chosen(dtype=jnp.float64)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not chosen()


@pytest.mark.devices
@pytest.mark.parametrize("form", FORMS)
def test_gradients_on_a_mesh(form):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(16, 8, 8, 64)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 64, 64)) / 24, jnp.float32)

    def loss(kernel, x):
        return jnp.mean(jnp.tanh(layers.convolution(x, kernel)))

    expected = jax.grad(loss, (0, 1))(kernel, x)
    program, got = gradients_on_mesh(loss, kernel, x, form)
    taken = "winograd_convolution" in str(program)
    assert taken == (form != "explicit")
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * float(jnp.abs(b).max()))
