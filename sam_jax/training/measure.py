"""The instruments applied to a trained model: presets become loss functions, results records."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn

from sam_jax import metrics
from sam_jax.training.build import full_precision
from sam_jax.training.evaluation import Inputs, evaluate_set, make_logits_fn, unnormalised
from sam_jax.training.loop import Trained, evaluate_sets
from sam_jax.training.losses import cross_entropy
from sam_jax.training.randomness import stream
from sam_jax.training.records import Record
from sam_jax.typing import Batch, Key, LossFn, Params, PyTree


class Network(NamedTuple):
    """What an instrument is compiled for, however the model was trained."""

    model: nn.Module
    inputs: Inputs


def evaluation_record(trained: Trained) -> Record:
    """Return the losses and accuracies of a model over its whole training and test sets."""
    sets = evaluate_sets(trained.program, trained.data, trained.state, ("train", "test"))
    return {"measure": "evaluation", **sets}


def instrument_records(
    trained: Trained, settings: ml_collections.ConfigDict, presets: tuple[str, ...]
) -> Iterator[Record]:
    """Yield the records of all instruments under each preset, as they are measured.

    Every model that is measured with the same settings sees the same examples, noise and
    directions: they derive from `settings.seed`, not from the seed of the run. Each instrument is
    compiled once for all models of one architecture.

    Args:
      trained: a model and its data.
      settings: the group `instruments` of the config.
      presets: names in `metrics.PRESETS`.

    Yields:
      Records with "measure", "preset", the settings, and the fields of the instrument's result.

    Raises:
      ValueError: a preset is unknown, or more examples are asked for than there are.
    """
    if isinstance(presets, str):
        raise ValueError(f"presets must be a tuple of names, got the string {presets!r}.")
    unknown = set(presets) - set(metrics.PRESETS)
    if unknown:
        raise ValueError(
            f"unknown presets {sorted(unknown)}; the presets are {sorted(metrics.PRESETS)}."
        )
    for preset in (metrics.PRESETS[name] for name in presets):
        for measure in (_adversarial, _average, _asymmetry, _curve):
            for record in measure(trained, settings, preset):
                yield {"measure": record.pop("measure"), "preset": preset.name, **record}


def _adversarial(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[Record]:
    c, conditions, state = settings.adversarial, preset.adversarial, trained.state
    instrument = _jit_adversarial(_network(trained), conditions)
    for m in c.m:
        batches = _batches(trained, settings, conditions, m, c.batches)
        for rho in c.rho:
            result = instrument(state.params, state.batch_stats, batches, rho)
            yield {
                "measure": "adversarial_sharpness",
                "m": m,
                "measured_rho": rho,
                "n": len(result.per_batch_loss),
                "examples": m * len(result.per_batch_loss),
                **_plain(result),
            }


def _average(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[Record]:
    c, conditions, state = settings.average, preset.average, trained.state
    instrument = _jit_average(_network(trained), conditions, c.draws, preset.average_distribution)
    # The perturbation does not depend on m. With running statistics and the same examples the loss
    # does not either, and one measurement stands for every m.
    m_matters = conditions.batch_norm == "batch" or not conditions.same_examples
    key = stream(jax.random.key(settings.seed), "average sharpness")
    measured_m = c.m if m_matters else [min(c.m)]
    cut = {m: _batches(trained, settings, conditions, m, c.batches) for m in measured_m}
    for rho in c.rho:
        for m, batches in cut.items():
            result = _plain(instrument(state.params, state.batch_stats, batches, rho, key))
            for named_m in [m] if m_matters else c.m:
                yield {
                    "measure": "average_sharpness",
                    "m": named_m,
                    "measured_rho": rho,
                    "draws": c.draws,
                    "examples": batches[1].size,
                    "distribution": preset.average_distribution,
                    **result,
                }


def _asymmetry(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[Record]:
    c, law = settings.asymmetry, preset.asymmetry_distribution
    instrument = _jit_asymmetry(
        _network(trained), preset.asymmetry, settings.batch_size, c.num_directions, law
    )
    key = stream(jax.random.key(settings.seed), "directions")
    result = instrument(*_model_and_set(trained), c.distance, key)
    yield {
        "measure": "asymmetry_factor",
        "distribution": law,
        "distance": c.distance,
        "num_directions": c.num_directions,
        **_plain(result),
    }


def _curve(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[Record]:
    c, law = settings.curve, preset.asymmetry_distribution
    distances = np.linspace(-c.limit, c.limit, c.points)
    instrument = _jit_curve(_network(trained), preset.curve, settings.batch_size, law)
    key = stream(jax.random.key(settings.seed), "directions")
    losses = instrument(*_model_and_set(trained), jnp.asarray(distances, jnp.float32), key)
    yield {
        "measure": "loss_curve",
        "distribution": law,
        "distances": distances.tolist(),
        "losses": np.asarray(losses).tolist(),
    }


@functools.lru_cache(maxsize=16)
def _jit_adversarial(network: Network, conditions: metrics.Conditions) -> Callable[..., Any]:
    def measure(
        params: Params, batch_stats: PyTree, batches: Batch, rho: jax.Array
    ) -> metrics.AdversarialSharpness:
        loss_fn = _batch_loss_fn(network, conditions, batch_stats)
        return metrics.adversarial_sharpness(loss_fn, params, batches, rho=rho)

    return jax.jit(measure)


@functools.lru_cache(maxsize=16)
def _jit_average(
    network: Network, conditions: metrics.Conditions, draws: int, distribution: str
) -> Callable[..., Any]:
    def measure(
        params: Params, batch_stats: PyTree, batches: Batch, rho: jax.Array, key: Key
    ) -> metrics.AverageSharpness:
        loss_fn = _batch_loss_fn(network, conditions, batch_stats)
        return metrics.average_sharpness(
            loss_fn, params, batches, rho=rho, key=key, draws=draws, distribution=distribution
        )

    return jax.jit(measure)


@functools.lru_cache(maxsize=16)
def _jit_asymmetry(
    network: Network,
    conditions: metrics.Conditions,
    batch_size: int,
    num_directions: int,
    distribution: str,
) -> Callable[..., Any]:
    def measure(
        params: Params,
        batch_stats: PyTree,
        images: jax.Array,
        labels: jax.Array,
        distance: jax.Array,
        key: Key,
    ) -> metrics.AsymmetryFactor:
        loss_fn = _set_loss_fn(network, conditions, batch_stats, images, labels, batch_size)
        return metrics.asymmetry_factor(
            loss_fn,
            params,
            distance=distance,
            key=key,
            num_directions=num_directions,
            distribution=distribution,
        )

    return jax.jit(measure)


@functools.lru_cache(maxsize=16)
def _jit_curve(
    network: Network, conditions: metrics.Conditions, batch_size: int, distribution: str
) -> Callable[..., Any]:
    def measure(
        params: Params,
        batch_stats: PyTree,
        images: jax.Array,
        labels: jax.Array,
        distances: jax.Array,
        key: Key,
    ) -> jax.Array:
        loss_fn = _set_loss_fn(network, conditions, batch_stats, images, labels, batch_size)
        directions = metrics.random_directions(key, params, 1, distribution)
        direction = jax.tree.map(lambda x: x[0], directions)
        return metrics.loss_curve(loss_fn, params, direction, distances)

    return jax.jit(measure)


def _batch_loss_fn(network: Network, conditions: metrics.Conditions, batch_stats: PyTree) -> LossFn:
    """Return the mean loss of a batch under the conditions of a preset."""
    logits_fn = _logits_fn(network, conditions)

    def loss_fn(params: Params, batch: Batch) -> jax.Array:
        images, labels = batch
        return jnp.mean(cross_entropy(logits_fn(params, batch_stats, images), labels))

    return loss_fn


def _set_loss_fn(
    network: Network,
    conditions: metrics.Conditions,
    batch_stats: PyTree,
    images: jax.Array,
    labels: jax.Array,
    batch_size: int,
) -> LossFn:
    """Return the mean loss of the whole set under the conditions of a preset."""
    logits_fn = _logits_fn(network, conditions)

    def loss_fn(params: Params) -> jax.Array:
        return evaluate_set(
            functools.partial(logits_fn, params, batch_stats), images, labels, batch_size
        ).loss

    return loss_fn


def _logits_fn(network: Network, conditions: metrics.Conditions) -> Callable[..., jax.Array]:
    inputs = network.inputs if conditions.normalise_images else unnormalised(network.inputs)
    return make_logits_fn(network.model, inputs, conditions.batch_norm)


def _batches(
    trained: Trained,
    settings: ml_collections.ConfigDict,
    conditions: metrics.Conditions,
    m: int,
    count: int,
) -> Batch:
    """Cut training examples into batches of m, as (images [n, m, ...], labels [n, m])."""
    images, labels = trained.data.train_images, trained.data.train_labels
    if conditions.same_examples:
        wanted = settings.examples or len(labels)
        count = wanted // m
    else:
        wanted = count * m
    if not 0 < wanted <= len(labels) or not count:
        raise ValueError(
            f"the instruments want {wanted} training examples in batches of m = {m}, and there "
            f"are {len(labels)}; lower instruments.examples, m or batches."
        )
    key = stream(jax.random.key(settings.seed), "examples")
    if conditions.examples == "first":
        rows = jax.random.permutation(key, wanted)
    else:
        rows = jax.random.permutation(key, len(labels))
    rows = rows[: count * m].reshape(count, m)
    return images[rows], labels[rows]


def _network(trained: Trained) -> Network:
    return Network(full_precision(trained.program.model), trained.program.inputs)


def _model_and_set(trained: Trained) -> tuple[Params, PyTree, jax.Array, jax.Array]:
    state, data = trained.state, trained.data
    return state.params, state.batch_stats, data.train_images, data.train_labels


def _plain(result: Any) -> Record:
    """Return a result's fields as numbers and lists."""
    return {name: np.asarray(value).tolist() for name, value in result._asdict().items()}
