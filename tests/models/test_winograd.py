"""The convolution by fewer multiplications, against XLA's and against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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

        def derivatives(f):
            def loss(x, kernel):
                return jnp.sum(jnp.tanh(f(x, kernel) / 3))

            grad = jax.grad(loss, (0, 1))

            def dot(x, kernel):
                gradient, product = jax.tree.leaves(grad(x, kernel)), jax.tree.leaves((dx, dk))
                return sum(jnp.vdot(a, b) for a, b in zip(gradient, product, strict=True))

            along = jax.jvp(grad, (x, kernel), (dx, dk))
            return f(x, kernel), along, jax.grad(dot, (0, 1))(x, kernel)

        got = jax.jit(derivatives, static_argnums=0)(winograd.convolution)
        close(got, jax.jit(derivatives, static_argnums=0)(direct))
        close(got[1][1], got[2])  # forward over reverse and reverse over reverse agree
