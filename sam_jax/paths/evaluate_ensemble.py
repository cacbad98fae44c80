"""The loss and the accuracy of an ensemble: the mean of its members' softmax outputs."""

import functools
import math
from collections.abc import Callable

import jax
from flax import linen as nn

from sam_jax.paths.checks import check_images, check_stacked, check_trained
from sam_jax.paths.collect_members import Members
from sam_jax.runs import fields
from sam_jax.runs.fields import whole
from sam_jax.training.evaluation import Evaluation, Inputs, evaluate_set, make_logits_fn
from sam_jax.training.program import full_precision
from sam_jax.training.trained import Trained


def make_ensemble_logits_fn(
    model: nn.Module, inputs: Inputs
) -> Callable[[Members, jax.Array], jax.Array]:
    r"""Return `logits_fn(members, uint8 images)`: the logarithm of the mean of softmax outputs.

    .. math::
      z_c = \log \frac{1}{n} \sum_{i=1}^{n} \mathrm{softmax}(z^{(i)})_c

    Its softmax is the mean itself, so these logits have the cross-entropy and the accuracy of the
    ensemble. The members run one after the other, on their running statistics.

    Args:
      model: a Flax linen module.
      inputs: converts uint8 images to the inputs that the model was trained on.

    Returns:
      A function to [images, classes] log-probabilities.
    """
    member_logits_fn = make_logits_fn(model, inputs)

    def logits_fn(members: Members, images: jax.Array) -> jax.Array:
        each = jax.lax.map(
            lambda member: jax.nn.log_softmax(member_logits_fn(member[0], member[1], images)),
            members,
        )
        return jax.nn.logsumexp(each, axis=0) - math.log(each.shape[0])

    return logits_fn


def evaluate_ensemble(
    trained: Trained,
    members: Members,
    images: jax.Array,
    labels: jax.Array,
    batch_size: int = 1000,
) -> Evaluation:
    """Return the loss and the accuracy of the mean of the members' softmax outputs.

    Args:
      trained: a model of the architecture; its weights are not read.
      members: from `collect_members`, or any models stacked along a new leading axis.
      images: [m, H, W, C] uint8.
      labels: [m] integers.
      batch_size: images in one pass; it bounds the memory, not the result.

    Raises:
      ValueError: there is no member, the members are of another architecture, or the images and
        labels do not belong together.
    """
    check_trained("trained", trained)
    if not isinstance(members, Members):
        raise ValueError(
            "members must be a Members, from collect_members, or Members(params, batch_stats) of "
            f"models stacked along a new leading axis; got a {type(members).__name__}."
        )
    check_stacked("members.params", members.params, trained)
    check_images(images, labels)
    fields.check_value("batch_size", batch_size, whole(1))
    evaluate = _compiled_evaluation(
        full_precision(trained.program.model), trained.program.inputs, batch_size
    )
    return evaluate(members, images, labels)


@functools.lru_cache(maxsize=8)
def _compiled_evaluation(
    model: nn.Module, inputs: Inputs, batch_size: int
) -> Callable[[Members, jax.Array, jax.Array], Evaluation]:
    logits_fn = make_ensemble_logits_fn(model, inputs)

    @jax.default_matmul_precision("highest")
    def evaluate(members: Members, images: jax.Array, labels: jax.Array) -> Evaluation:
        return evaluate_set(functools.partial(logits_fn, members), images, labels, batch_size)

    return jax.jit(evaluate)
