"""The plane in which a training run moves most, by principal components, in float64 on the host."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.metrics.checks import check_direction
from sam_jax.metrics.parameters import chosen_parameters, map_parameters
from sam_jax.typing import Float, Params, PyTree


class TrajectoryPlane(NamedTuple):
    """The plane of the first two principal components, with orthonormal axes."""

    origin: Params  # the last checkpoint, its parameters as float64 NumPy arrays
    first_axis: PyTree  # unit length, of the largest variance
    second_axis: PyTree  # unit length, of the second largest
    coordinates: Float[
        np.ndarray, "checkpoints 2"
    ]  # [n, 2] float64, the projections of the checkpoints
    explained: Float[np.ndarray, "2"]  # [2] float64, the shares of the variance along the two axes


def trajectory_plane(checkpoints: Sequence[Params]) -> TrajectoryPlane:
    r"""Return the plane of the first two principal components of a run of checkpoints.

    With X the rows w_i - mean w, the components come from the Gram matrix of size n,

    .. math::
      X X^\top a_k = \lambda_k a_k, \qquad u_k = X^\top a_k / \sqrt{\lambda_k}, \qquad
      \text{explained}_k = \lambda_k / \textstyle\sum_j \lambda_j

    so that nothing of the size of the number of weights squared is stored. Two principal
    components explain much of any random walk too: by itself a large share says little.

    Args:
      checkpoints: w_1 ... w_n, n >= 3 pytrees of one structure, in the order of training. All
        weights count, biases and batch norm included.

    Returns:
      A TrajectoryPlane. `origin + x * first_axis + y * second_axis` is the point (x, y);
      the last checkpoint is at (0, 0), and the sign of an axis makes the largest coordinate by
      magnitude positive. Its first four fields are the fields of a Plane.

    Raises:
      ValueError: fewer than three checkpoints, ones that do not fit each other or are not
        finite, or that lie on one line to rounding.

    References:
      Li et al., Visualizing the Loss Landscape of Neural Nets, 2018, section 7,
      https://arxiv.org/abs/1712.09913

    >>> run = [jnp.array(w) for w in ([4.0, 0.0, 1.0], [2.0, 1.0, 1.0], [0.0, 0.0, 1.0])]
    >>> plane = trajectory_plane(run)
    >>> np.abs(plane.coordinates.round(6)).tolist()
    [[4.0, 0.0], [2.0, 1.0], [0.0, 0.0]]
    >>> plane.explained.round(3).tolist()  # variances 8 and 2 / 3
    [0.923, 0.077]
    """
    checkpoints = list(checkpoints)
    if len(checkpoints) < 3:
        raise ValueError(f"A plane needs at least 3 checkpoints, got {len(checkpoints)}.")
    last = checkpoints[-1]
    structure = jax.tree.structure(chosen_parameters(last, name="A checkpoint"))
    checkpoints = [
        check_direction(f"checkpoint {number}", checkpoint, last)
        for number, checkpoint in enumerate(checkpoints)
    ]
    by_leaf = list(zip(*map(jax.tree.leaves, checkpoints), strict=True))
    gram, squared = np.zeros((len(checkpoints),) * 2), 0.0
    for leaves in by_leaf:
        rows = _centred(leaves)
        gram += rows @ rows.T
        squared += float(np.sum(np.square(_wide(leaves[-1]))))
    if not np.isfinite(gram).all():
        raise ValueError("The checkpoints must be finite; leave out those of runs that diverged.")
    variances, vectors = np.linalg.eigh(gram)
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1]
    # What rounding of the weights, or of the Gram matrix, gives by itself is no component.
    epsilon = max(float(jnp.finfo(jnp.result_type(w)).eps) for (*_, w) in by_leaf)
    resolution = max(16 * epsilon**2 * squared, 1e-13 * variances[0])
    if not variances[1] > resolution:
        raise ValueError(
            "The checkpoints lie on one line to rounding, and no plane is theirs alone. Take "
            "checkpoints further apart, or loss_line along direction_towards."
        )
    weights = vectors[:, :2] / np.sqrt(variances[:2])
    coordinates = gram @ weights
    coordinates -= coordinates[-1]
    largest = np.argmax(np.abs(coordinates), axis=0)
    signs = np.where(coordinates[largest, [0, 1]] < 0, -1.0, 1.0)
    axes = [_combine(weights * signs, leaves) for leaves in by_leaf]
    first, second = (structure.unflatten([axis[k] for axis in axes]) for k in (0, 1))
    origin = map_parameters(_wide, last)
    shares = variances[:2] / np.sum(variances)
    return TrajectoryPlane(origin, first, second, coordinates * signs, shares)


def _wide(leaf: jax.Array) -> np.ndarray:
    return np.asarray(leaf).astype(np.float64)


def _centred(leaves: Sequence[jax.Array]) -> np.ndarray:
    """Return one leaf of all checkpoints as rows [n, size], without their mean."""
    rows = np.stack([_wide(leaf).ravel() for leaf in leaves])
    return rows - rows.mean(axis=0)


def _combine(weights: np.ndarray, leaves: Sequence[jax.Array]) -> np.ndarray:
    """Return one leaf of both axes, [2, *shape]."""
    return (weights.T @ _centred(leaves)).reshape(2, *np.shape(leaves[-1]))
