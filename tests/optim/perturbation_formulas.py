"""The perturbations of the methods in NumPy, and the gradients of their steps made of them.

An `epsilon_of(w, g, step, sub_batch)` is one perturbation; a formula `(x, y, m) -> gradient_of`
gives the `gradient_of(w, step)` of `numpy_problem.numpy_trajectory`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import problems
from numpy_problem import NAMES, flat, length, nested, numpy_gradient, perturbed_gradient

from sam_jax import draws

RHO, SEED = 0.2, 3
KERNELS = [name for name in NAMES if name.startswith("kernel")]
SECOND = [name for name in NAMES if name.endswith("2")]


def only(names, tree):
    return {n: tree[n] if n in names else np.zeros_like(tree[n]) for n in NAMES}


def scaled(factor, tree):
    return {n: factor * tree[n] for n in NAMES}


def plus(a, b):
    return {n: a[n] + b[n] for n in NAMES}


# --- epsilon(w, g, step, sub_batch) of each method ---------------------------------------------


def sam(w, g, step, sub_batch):
    return scaled(RHO / length(g), g)


def usam(w, g, step, sub_batch, factor=1.0):
    return scaled(RHO * factor, g)


def projected_usam(w, g, step, sub_batch):
    """understanding-sam: rho g, within the ball of radius rho."""
    return scaled(RHO * min(1.0, 1.0 / length(g)), g)


def unified(lmbda, w, g, step, sub_batch):
    return scaled(RHO * (1 - lmbda(step) + lmbda(step) / length(g)), g)


def fisher(eta, w, g, step, sub_batch):
    inverse = {n: 1 / (1 + eta * g[n] ** 2) for n in NAMES}
    total = sum(np.sum(inverse[n] * g[n] ** 2) for n in NAMES)
    return {n: RHO * inverse[n] * g[n] / total**0.5 for n in NAMES}


def layer(w, g, step, sub_batch):
    norm = np.linalg.norm
    return {n: RHO * norm(w[n]) * g[n] / norm(g[n]) for n in NAMES}


def weight_size(kind, w, eta=0.05):
    """What T holds for one leaf."""
    if kind == "element":
        return np.abs(w) + eta
    if kind == "layer":
        return np.full_like(w, sum(entry**2 for entry in w.ravel()) ** 0.5 + eta)
    if w.ndim < 2:  # of the kernels tests take the first for a convolution
        return np.abs(w) + eta
    return np.tile([np.sum(w[:, j] ** 2) ** 0.5 + eta for j in range(w.shape[1])], (len(w), 1))


def adaptive(w, g, step, sub_batch, *, rescaled=KERNELS, kind="element", eta=0.05, p=2.0):
    """ASAM: T_w = 1 in the leaves that are not rescaled."""
    kinds = {n: kind if kind != "filter" or n == "kernel1" else "element" for n in NAMES}
    t = {
        n: weight_size(kinds[n], w[n], eta) if n in rescaled else np.ones_like(w[n]) for n in NAMES
    }
    slopes = {n: t[n] * g[n] for n in NAMES}
    q = 1 / (1 - 1 / p)
    total = sum(np.sum(np.abs(slopes[n]) ** q) for n in NAMES) ** (1 / p)
    return {
        n: RHO * t[n] * np.sign(slopes[n]) * np.abs(slopes[n]) ** (q - 1) / total for n in NAMES
    }


def norm_layer_sam(w, g, step, sub_batch):
    return scaled(RHO / length(only(SECOND, g)), only(SECOND, g))


def masked_after_the_norm(w, g, step, sub_batch):
    return only(SECOND, sam(w, g, step, sub_batch))


def gaussian(w, g, step, sub_batch):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), step), sub_batch)
    return scaled(RHO, flat(draws.random_like(key, nested(w))))


def sphere(w, g, step, sub_batch):
    z = gaussian(w, g, step, sub_batch)
    return scaled(RHO / length(z), z)


def friendly(sigma, lmbda, order, fed_with="gradient"):
    """Return epsilon_of with its average in a closure; steps come one after the other."""
    average = None

    def epsilon_of(w, g, step, sub_batch):
        nonlocal average
        if order == "paper":
            before = g if average is None else average
            average = plus(scaled(lmbda, before), scaled(1 - lmbda, g))
            d = plus(g, scaled(-sigma, average))
        elif average is None:
            average = d = g
        else:
            d = plus(g, scaled(-sigma, average))
            taken = g if fed_with == "gradient" else d
            average = plus(scaled(lmbda, average), scaled(1 - lmbda, taken))
        return scaled(RHO / length(d), d)

    return epsilon_of


def vasso(theta, from_zero=False):
    average = None

    def epsilon_of(w, g, step, sub_batch):
        nonlocal average
        if average is None:
            average = scaled(theta, g) if from_zero else g
        else:
            average = plus(scaled(1 - theta, average), scaled(theta, g))
        return scaled(RHO / length(average), average)

    return epsilon_of


# --- gradient_of(w, step) from the batch and m -------------------------------------------------


def at(epsilon_of, factor=1.0):
    """The mean over sub-batches of the gradient at w + factor * epsilon."""
    return lambda x, y, m: perturbed_gradient(epsilon_of, m, x, y, factor)


def remembering(make, *arguments):
    """As `at`, with a new memory for every trajectory."""
    return lambda x, y, m: perturbed_gradient(make(*arguments), m, x, y)


def over_sub_batches(gradient_on):
    """The mean over sub-batches of gradient_on(w, x_i, y_i)."""

    def with_batch(x, y, m):
        def gradient_of(w, step):
            parts = [gradient_on(w, x[i : i + m], y[i : i + m]) for i in range(0, len(x), m)]
            return {n: sum(part[n] for part in parts) / len(parts) for n in NAMES}

        return gradient_of

    return with_batch


def multi_step(steps, step_size, project=True, normalised=True):
    def gradient_on(w, x, y):
        epsilon = scaled(0.0, w)
        for _ in range(steps):
            g = numpy_gradient(plus(w, epsilon), x, y)
            epsilon = plus(epsilon, scaled(step_size / (length(g) if normalised else 1), g))
            if project and length(epsilon) > RHO:
                epsilon = scaled(RHO / length(epsilon), epsilon)
        return numpy_gradient(plus(w, epsilon), x, y)

    return over_sub_batches(gradient_on)


@over_sub_batches
def stable(w, x, y):
    g = numpy_gradient(w, x, y)
    perturbed = numpy_gradient(plus(w, sam(w, g, 0, 0)), x, y)
    return scaled(length(g) / length(perturbed), perturbed)


def previous_batch(x, y, m):
    """Every sub-batch with the perturbation of the sub-batch at its place in the previous batch."""
    before = problems.tanh_net(seed=1, dtype=jnp.float64).batch
    before_x, before_y = np.asarray(before["x"]), np.asarray(before["y"])

    def gradient_of(w, step):
        total = scaled(0.0, w)
        for i in range(0, len(x), m):
            g = numpy_gradient(w, before_x[i : i + m], before_y[i : i + m])
            moved = plus(w, sam(w, g, 0, 0))
            total = plus(
                total, scaled(m / len(x), numpy_gradient(moved, x[i : i + m], y[i : i + m]))
            )
        return total

    return gradient_of
