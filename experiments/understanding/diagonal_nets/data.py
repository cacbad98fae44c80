"""The sparse regression that the networks are trained on."""

from typing import NamedTuple

import numpy as np


class Data(NamedTuple):
    """Inputs, a sparse teacher, and its outputs without noise; float64."""

    inputs: np.ndarray  # [n, d]
    outputs: np.ndarray  # [n]
    test_inputs: np.ndarray  # [n_test, d]
    test_outputs: np.ndarray  # [n_test]
    teacher: np.ndarray  # [d]


def make_data(n: int = 20, n_test: int = 1000, d: int = 30, sparsity: int = 3) -> Data:
    """Return the released notebook's data, to the bit.

    Inputs are standard normal. The teacher is |z| / ||z|| with z standard normal on its first
    `sparsity` coordinates and zero elsewhere.

    Only NumPy's legacy generator gives these numbers: JAX has no such generator, and the order of
    the three draws matters.

    Args:
      n: training examples.
      n_test: test examples.
      d: input dimensions.
      sparsity: coordinates of the teacher that are not zero.

    >>> make_data().teacher[:4].round(6).tolist()
    [0.865734, 0.157997, 0.474913, 0.0]
    """
    random = np.random.RandomState(0)
    mean, covariance = np.zeros(d), np.eye(d)
    inputs = random.multivariate_normal(mean, covariance, n)
    test_inputs = random.multivariate_normal(mean, covariance, n_test)
    teacher = random.randn(d)
    teacher[sparsity:] = 0.0
    teacher = np.abs(teacher) / np.linalg.norm(teacher)
    return Data(inputs, inputs @ teacher, test_inputs, test_inputs @ teacher, teacher)
