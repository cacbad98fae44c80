"""Random pytrees of parameters with a loss whose gradient is a formula, for hypothesis.

The structures are few, because an operation is compiled for each shape and dtype; the numbers, the
dtypes, the mask and the order of the examples are drawn.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

EXAMPLES = 6
DTYPES = ("float64", "float32", "bfloat16", "float16")
# Shapes stand for parameters. Every leaf lies in a dictionary: methods tell biases by the name.
STRUCTURES = {
    "one": {"kernel": (3,)},
    "layers": [{"kernel": (2, 3), "bias": (3,)}, {"kernel": (3, 1), "bias": (1,)}],
    "others": ({"kernel": (2, 3), "steps": 3, "nothing": None}, {"bias": ()}),
    "deep": {"a": {"b": ({"kernel": (1,)},), "c": {"bias": (3,)}}, "d": {"kernel": (3, 1)}},
}


class RandomProblem(NamedTuple):
    """A loss mean_i x_i * sum_j (a_j w_j + b_j w_j^2 / 2), with a_j + b_j w_j never zero."""

    params: Any
    linear: Any  # a, at the parameters; None elsewhere
    square: Any  # b, likewise
    batch: Any  # {"x": [n]}
    mask: Any  # one boolean a leaf
    rho: float

    def grad_fn(self, params, batch=None, term=None):
        """Return the gradient, zeros at leaves that are no parameters."""
        factor = jnp.mean(self.examples(batch))

        def leaf(w, a, b):
            if a is None:
                return np.zeros(np.shape(w), jax.dtypes.float0)
            wide = w.astype(jnp.promote_types(w.dtype, jnp.float32))
            return (factor.astype(wide.dtype) * (a + b * wide)).astype(w.dtype)

        gradient = jax.tree.map(leaf, params, self.linear, self.square)
        if term is None:
            return gradient
        chosen = jax.tree.map(lambda w, a: None if a is None else w, params, self.linear)
        added = jax.grad(lambda chosen: term(self.logits(chosen, batch)))(chosen)
        return jax.tree.map(lambda g, t: g if t is None else g + t, gradient, added)

    def aux_grad_fn(self, params, batch=None, term=None):
        return self.grad_fn(params, batch, term), params

    def examples(self, batch=None):
        return (self.batch if batch is None else batch)["x"]

    def value(self, params):
        def leaf(w, a, b):
            wide = w.astype(jnp.promote_types(w.dtype, jnp.float32))
            return jnp.sum(a * wide + b * wide**2 / 2)

        at_parameters = jax.tree.map(
            lambda w, a, b: None if a is None else leaf(w, a, b), params, self.linear, self.square
        )
        return sum(jax.tree.leaves(at_parameters))

    def losses(self, params, batch=None):
        """Return the loss of every example."""
        return self.examples(batch) * self.value(params)

    def logits(self, params, batch=None):
        """Return two outputs for every example."""
        value = self.value(params) / 8
        return self.examples(batch)[:, None] * jnp.stack([value, -value])[None]


def is_shape(x):
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)


@st.composite
def problems_of(draw, structures=tuple(STRUCTURES), dtypes=DTYPES):
    """Draw a problem, of one dtype or of one for every leaf; call inside `jax.enable_x64`."""
    shapes = STRUCTURES[draw(st.sampled_from(structures))]
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    size = 2.0 ** draw(st.integers(-3, 3))  # of the weights
    mixed, dtype = draw(st.booleans()), draw(st.sampled_from(dtypes))

    def numbers(shape, low, high):
        return random.uniform(low, high, shape) * random.choice([-1.0, 1.0], shape)

    def leaf_of(shape):
        if not is_shape(shape):
            return {"w": shape, "a": None, "b": None}
        own = dtypes[random.integers(len(dtypes))] if mixed else dtype
        w = jnp.asarray(size * numbers(shape, 0.25, 1.0), own)
        a = jnp.asarray(numbers(shape, 0.5, 2.0), jnp.promote_types(own, jnp.float32))
        return {"w": w, "a": a, "b": jnp.asarray(random.uniform(0, 0.25, shape) / size, a.dtype)}

    leaves, structure = jax.tree.flatten(shapes, is_leaf=is_shape)
    drawn = [leaf_of(shape) for shape in leaves]
    params, a, b = (structure.unflatten([leaf[name] for leaf in drawn]) for name in "wab")
    places = [i for i, shape in enumerate(leaves) if is_shape(shape)]
    chosen = random.random(len(leaves)) < 0.6
    chosen[places[random.integers(len(places))]] = True
    mask = structure.unflatten([bool(x) for x in chosen])
    x = jnp.asarray(random.uniform(0.5, 1.5, EXAMPLES), jnp.float64)
    rho = math.ldexp(1 + random.random(), draw(st.integers(-6, 2)))
    return RandomProblem(params, a, b, {"x": x}, mask, rho)
