import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mesh_gradients import FORMS, gradients_on_mesh

from sam_jax.models import depthwise, layers


def direct(x, kernel, stride):
    """The definition: JAX's own derivatives of it are the independent route."""
    height, width = kernel.shape[:2]
    rows, columns = ((x.shape[1 + i] - kernel.shape[i]) // stride + 1 for i in (0, 1))
    return sum(
        x[:, a : a + stride * rows : stride, b : b + stride * columns : stride][:, :rows, :columns]
        * kernel[None, a, b, None]
        for a in range(height)
        for b in range(width)
    )


def problem(rows, columns, size=3, images=2, channels=3):
    rng = np.random.default_rng(0)
    shapes = (images, rows, columns, channels), (size, size, 1, channels)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert jnp.abs(b).max() > 1e-2
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def use(monkeypatch, way):
    """Take the gradient of the kernel by pixels, by rows, or as a GPU takes it."""
    if way == "rows":
        monkeypatch.setattr(depthwise, "CACHE_BYTES", 0)
    elif way == "at once":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


WAYS = pytest.mark.parametrize("way", ["pixels", "rows", "at once"])


@WAYS
@pytest.mark.parametrize("rows, columns, size, stride", [(7, 5, 3, 1), (7, 8, 3, 2), (8, 9, 5, 3)])
def test_derivatives_of_both_modes_and_orders(monkeypatch, rows, columns, size, stride, way):
    use(monkeypatch, way)
    with jax.enable_x64(True):
        x, kernel = problem(rows, columns, size)
        dx, dk = jnp.cos(x), jnp.sin(kernel)

        def loss(f, x, kernel):
            return jnp.sum(jnp.tanh(f(x, kernel, stride)))

        # The oldest XLA folds its own convolutions of constants wrongly: these are arguments.
        @functools.partial(jax.jit, static_argnums=0)
        def derivatives(f, x, kernel):
            of = functools.partial(loss, f)
            grad = jax.grad(of, (0, 1))
            along = functools.partial(jax.jvp, grad, (x, kernel), (dx, dk))

            def dot(x, kernel):
                gradient, product = jax.tree.leaves(grad(x, kernel)), jax.tree.leaves((dx, dk))
                return sum(jnp.vdot(a, b) for a, b in zip(gradient, product, strict=True))

            return f(x, kernel, stride), along(), jax.grad(dot, (0, 1))(x, kernel)

        got = derivatives(depthwise.depthwise_sum, x, kernel)
        close(got, derivatives(direct, x, kernel))
        close(got[1][1], got[2])  # forward over reverse and reverse over reverse agree


@pytest.mark.parametrize("axes", [(0, 0), (1, None), (None, 2), (3, 1)])
def test_vmap_of_gradients(axes):
    with jax.enable_x64(True):
        x, kernel = problem(6, 6)
        scales = jnp.arange(1.0, 5.0)
        x, kernel = (
            y if axis is None else jnp.stack([y * s for s in scales], axis)
            for y, axis in zip((x, kernel), axes, strict=True)
        )

        def gradients(f, x, kernel):
            return jax.grad(lambda x, k: jnp.sum(jnp.tanh(f(x, k, 1))), (0, 1))(x, kernel)

        got, expected = (
            jax.vmap(jax.vmap(functools.partial(gradients, f), axes), (None, 0))(
                x, jnp.stack([kernel, 2 * kernel])
            )
            for f in (depthwise.depthwise_sum, direct)
        )
        close(got, expected)


@WAYS
def test_gradient_of_the_kernel_accumulates_in_float32(monkeypatch, way):
    use(monkeypatch, way)
    x, kernel = (jnp.ones(shape, jnp.bfloat16) for shape in ((1, 19, 19, 1), (3, 3, 1, 1)))
    gradient = jax.grad(lambda k: jnp.sum(depthwise.depthwise_sum(x, k)))(kernel)
    assert gradient.dtype == jnp.bfloat16
    # 17 * 17 = 289 is rounded once; ones added in bfloat16 stop at 2^8 = 256.
    assert set(gradient.ravel().tolist()) == {288.0}


@pytest.mark.devices
@pytest.mark.parametrize("form", FORMS)
def test_gradients_on_a_mesh(form):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(16, 6, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 3)), jnp.float32)

    def loss(kernel, x):
        return jnp.mean(jnp.tanh(layers.depthwise_convolution(x, kernel, 2, "shifted")))

    expected = jax.grad(loss, (0, 1))(kernel, x)
    _, got = gradients_on_mesh(loss, kernel, x, form)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
