"""How the rules call the rows of the table of instruments, and compare what they give."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from instrument_table import TABLE, Problem


def over(rows=TABLE):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


@functools.cache
def plain_result(row):
    """Return what a row gives of the problem as it is, measured once for all rules."""
    return row.call(Problem())


def measured(row, problem, jit):
    """Call a row, where `jit` says so in a program whose arguments are the problem's arrays."""
    if not jit:
        return row.call(problem)

    def call(params, batches):
        return row.call(dataclasses.replace(problem, params=params, batches=batches))

    return jax.jit(call)(problem.params, problem.batches)


def assert_close(got, wanted, rtol=1e-4, atol=1e-5):
    assert len(jax.tree.leaves(got)) == len(jax.tree.leaves(wanted))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)
