"""The Lanczos process: a large symmetric matrix, seen through a small tridiagonal one."""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from sam_jax.pytree import in_safe_range, normalise
from sam_jax.shardings import explicit_sharding
from sam_jax.typing import PyTree


class Tridiagonal(NamedTuple):
    """T = Q A Q' of a symmetric A of size d, after k steps; the rows of Q are orthonormal."""

    diagonal: jax.Array  # of T, shape [k]
    off_diagonal: jax.Array  # of T, shape [k - 1], none negative
    basis: PyTree  # Q, every leaf of a vector with one more leading axis [k]; row 0 is the start


def tridiagonalise(
    product: Callable[[PyTree], PyTree],
    zeros: PyTree,
    steps: int,
    random_unit: Callable[[jax.Array | int], PyTree],
) -> Tridiagonal:
    """Return the tridiagonal matrix of `steps` Lanczos steps from a random unit vector.

    With q_0 the start, every step takes A q_j, makes it orthogonal to q_0 ... q_j and scales it to
    the unit vector q_{j+1}; T holds alpha_j = q_j'A q_j and the lengths beta_j before the scaling.

    In exact arithmetic A q_j is orthogonal to q_0 ... q_{j-2} by itself. In floating point this is
    lost as soon as an eigenvalue has converged, and this eigenvalue then comes again and again.
    Hence every new vector is made orthogonal to all the others, twice: the first pass leaves a
    rounding error that is large where little of the vector remains.

    A length of zero, up to rounding, says that q_0 ... q_j span an invariant subspace, such as at
    a Hessian of low rank. The process then goes on from a random vector orthogonal to it, with
    beta_j = 0: T falls into blocks. Its eigenvalues stay eigenvalues of A, and later blocks find
    further copies of them. The vectors of later blocks have no share in the start.

    The cost is `steps` products and 8 steps^2 d further operations; the memory is Q, steps * d
    numbers, and one product.

    Args:
      product: v -> A v, linear and symmetric. A vector is an array or a pytree of arrays.
      zeros: the vector zero, of d numbers in all.
      steps: number of steps k, at most d.
      random_unit: i -> random unit vector number i, uniform on the sphere; the start is number 0.

    References:
      Parlett, The Symmetric Eigenvalue Problem, 1980 (chapter 13, and "twice is enough").

    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 4.0]))
    >>> random_unit = lambda i: normalise(jax.random.normal(jax.random.key(i), 3))
    >>> result = tridiagonalise(lambda v: matrix @ v, jnp.zeros(3), 3, random_unit)
    >>> print(f"{jnp.sum(result.diagonal):.4f}")  # the trace, for T is similar to the matrix
    7.0000
    """
    # Below this share of the largest entry of T, a length is the rounding error of a product.
    dtype = jnp.result_type(*jax.tree.leaves(zeros))
    rounding = 10 * jnp.finfo(dtype).eps

    def orthogonalise(w: PyTree, basis: PyTree) -> PyTree:
        for _ in range(2):  # the rows that are still zero take no part
            w = jax.tree.map(jnp.subtract, w, combine(dot(basis, w), basis))
        return w

    def step(state: tuple, j: jax.Array) -> tuple[tuple, tuple]:
        basis, q, largest = state
        basis = jax.tree.map(lambda rows, row: rows.at[j].set(row), basis, q)
        # In units in which no square leaves the range, exact powers of two.
        w, power = in_safe_range(product(q))
        alpha = dot(q, w)
        w = orthogonalise(w, basis)
        beta = jnp.sqrt(dot(w, w))
        largest = jnp.maximum(largest, jnp.maximum(jnp.abs(alpha), beta) / power)
        beta, q = jax.lax.cond(
            beta <= rounding * (largest * power),
            lambda: (jnp.zeros_like(beta), normalise(orthogonalise(random_unit(j + 1), basis))),
            lambda: (beta, jax.tree.map(lambda x: x / beta, w)),
        )
        return (basis, q, largest), (alpha / power, beta / power)

    basis = jax.tree.map(lambda x: jnp.broadcast_to(x, (steps, *x.shape)), zeros)
    (basis, _, _), (alpha, beta) = jax.lax.scan(
        step, (basis, random_unit(0), jnp.zeros((), dtype)), jnp.arange(steps)
    )
    return Tridiagonal(diagonal=alpha, off_diagonal=beta[:-1], basis=basis)


def dot(rows: PyTree, vector: PyTree) -> jax.Array:
    """Return the inner products of several vectors, one a row, with one; or of one with one."""

    def of_leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        split = explicit_sharding(y)
        whole = None if split is None else NamedSharding(split.mesh, PartitionSpec())
        return jnp.tensordot(x, y, y.ndim, out_sharding=whole)

    return functools.reduce(operator.add, jax.tree.leaves(jax.tree.map(of_leaf, rows, vector)))


def combine(coordinates: jax.Array, basis: PyTree) -> PyTree:
    """Return the sum of the rows of a basis, each times its coordinate."""
    return jax.tree.map(lambda rows: jnp.tensordot(coordinates, rows, 1), basis)


def ritz_pairs(tridiagonal: Tridiagonal) -> tuple[jax.Array, jax.Array]:
    """Return the eigenvalues of T, ascending, shape [k], and its eigenvectors, one a column.

    Of the two signs of an eigenvector the one is taken whose share in the start is not negative:
    LAPACK chooses by rounding, so that a run on other devices could turn it.
    """
    off_diagonal = jnp.diag(tridiagonal.off_diagonal, 1)
    matrix = jnp.diag(tridiagonal.diagonal) + off_diagonal + off_diagonal.T
    matrix, power = in_safe_range(matrix)
    values, vectors = jnp.linalg.eigh(matrix)
    return values / power, jnp.where(vectors[0] < 0, -vectors, vectors)
