"""The Lanczos process: a large symmetric matrix, seen through a small tridiagonal one."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam_jax.draws import random_like
from sam_jax.pytree import normalise
from sam_jax.typing import Key


class Tridiagonal(NamedTuple):
    """T = Q A Q' of a symmetric A of size d, after k steps; the rows of Q are orthonormal."""

    diagonal: jax.Array  # of T, shape [k]
    off_diagonal: jax.Array  # of T, shape [k - 1], none negative
    basis: jax.Array  # Q, shape [k, d]; its first row is the start


def random_unit(key: Key, index: jax.Array | int, like: jax.Array) -> jax.Array:
    """Return random unit vector number `index` of a key, uniform on the sphere."""
    return normalise(random_like(jax.random.fold_in(key, index), like))


def tridiagonalise(
    product: Callable[[jax.Array], jax.Array], like: jax.Array, steps: int, key: Key
) -> Tridiagonal:
    """Return the tridiagonal matrix of `steps` Lanczos steps from a random unit vector.

    With q_0 the start, every step takes A q_j, makes it orthogonal to q_0 ... q_j and scales it to
    the unit vector q_{j+1}; T holds alpha_j = q_j'A q_j and the lengths beta_j before the scaling.

    In exact arithmetic A q_j is orthogonal to q_0 ... q_{j-2} by itself. In floating point this is
    lost as soon as an eigenvalue has converged, which then comes again and again: hence every new
    vector is made orthogonal to all the others, twice, for the first pass leaves a rounding error
    that is large where little of the vector remains.

    A length of zero, up to rounding, says that q_0 ... q_j span an invariant subspace, such as at
    a Hessian of low rank. The process then goes on from a random vector orthogonal to it, with
    beta_j = 0: T falls into blocks, its eigenvalues stay eigenvalues of A, of which it finds
    further copies, and the vectors of later blocks have no share in the start.

    The cost is `steps` products and 8 steps^2 d further operations; the memory is that of Q,
    steps * d numbers, and of one product.

    Args:
      product: v -> A v, both of shape [d], linear and symmetric.
      like: an array of shape [d] and the dtype of the vectors.
      steps: number of steps k, at most d.
      key: a typed key; the start is `random_unit(key, 0, like)`.

    References:
      Parlett, The Symmetric Eigenvalue Problem, 1980 (chapter 13, and "twice is enough").

    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 4.0]))
    >>> result = tridiagonalise(lambda v: matrix @ v, jnp.zeros(3), 3, jax.random.key(0))
    >>> print(f"{jnp.sum(result.diagonal):.4f}")  # the trace, for T is similar to the matrix
    7.0000
    """
    # Below this share of the largest entry of T, a length is the rounding error of a product.
    rounding = 10 * jnp.finfo(like.dtype).eps

    def orthogonalise(w: jax.Array, basis: jax.Array) -> jax.Array:
        for _ in range(2):  # the rows that are still zero take no part
            w = w - (basis @ w) @ basis
        return w

    def step(state: tuple, j: jax.Array) -> tuple[tuple, tuple]:
        basis, q, largest = state
        basis = basis.at[j].set(q)
        w = product(q)
        alpha = q @ w
        w = orthogonalise(w, basis)
        beta = jnp.sqrt(w @ w)
        largest = jnp.maximum(largest, jnp.maximum(jnp.abs(alpha), beta))
        beta, q = jax.lax.cond(
            beta <= rounding * largest,
            lambda: (
                jnp.zeros_like(beta),
                normalise(orthogonalise(random_unit(key, j + 1, like), basis)),
            ),
            lambda: (beta, w / beta),
        )
        return (basis, q, largest), (alpha, beta)

    basis = jnp.zeros((steps, like.size), like.dtype)
    start = random_unit(key, 0, like)
    (basis, _, _), (alpha, beta) = jax.lax.scan(
        step, (basis, start, jnp.zeros((), like.dtype)), jnp.arange(steps)
    )
    return Tridiagonal(diagonal=alpha, off_diagonal=beta[:-1], basis=basis)


def ritz_pairs(tridiagonal: Tridiagonal) -> tuple[jax.Array, jax.Array]:
    """Return the eigenvalues of T, ascending, shape [k], and its eigenvectors, one a column."""
    off_diagonal = jnp.diag(tridiagonal.off_diagonal, 1)
    matrix = jnp.diag(tridiagonal.diagonal) + off_diagonal + off_diagonal.T
    return jnp.linalg.eigh(matrix)
