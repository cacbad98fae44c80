"""Two models and settings to measure them with, and their loss written by hand."""

import jax
import jax.numpy as jnp
import optax
from training_problems import tiny_config

from sam_jax.measuring import registry
from sam_jax.measuring.measure import measurements
from sam_jax.training import build
from sam_jax.training.trained import Trained

M, RHOS, AVERAGE_RHOS = (8, 16), (0.05, 0.1), (0.5, 1.0)
EXAMPLES, BATCHES = 48, 2  # of 64
KEY = jax.random.key(11)  # of the instruments, not of the runs
SAME = {"rtol": 1e-5, "atol": 1e-6}  # two compilations of one float32 computation


def make_settings():
    settings = tiny_config().instruments
    settings.seed, settings.examples, settings.batch_size = 11, EXAMPLES, 40
    settings.adversarial.m, settings.adversarial.rho = M, RHOS
    settings.adversarial.batches = settings.average.batches = BATCHES
    settings.average.m, settings.average.rho = M, AVERAGE_RHOS
    settings.asymmetry.distance, settings.curve.limit = 1.0, 2.0
    settings.asymmetry_index.distance = 0.5
    # The loss of an untrained net hardly rises: some widths are censored even so.
    settings.level_set_widths.num_directions, settings.level_set_widths.max_distance = 3, 4.0
    settings.hessian.steps = 12
    return settings


def make_trained(seed):
    """A model whose running statistics are not those of any batch; training it is not needed."""
    config = tiny_config(seed=seed)
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    state = program.init(jax.random.key(seed))
    stats = jax.tree.map(lambda x: 0.7 * x + 0.1, state.batch_stats)
    return Trained(state._replace(batch_stats=stats), program, data, source, epoch=1)


def take_all(*arguments):
    """Return the records of all measurements, without a file."""
    taken = [(measurement.about, measurement.take()) for measurement in measurements(*arguments)]
    # A record is found again by what it is about: were that overwritten, it would be made anew.
    assert all(not about.keys() & found.keys() for about, found in taken)
    return [about | found for about, found in taken]


def columns_are_numbers(record):
    """Say whether the columns that an instrument promises are numbers of its record."""
    columns = registry.by_name()[record["measure"]].columns
    return columns and all(isinstance(record[column.field], float) for column in columns)


def select(records, measure, preset, **where):
    chosen = [
        r
        for r in records
        if r["measure"] == measure
        and r["preset"] == preset
        and all(r[name] == value for name, value in where.items())
    ]
    assert len(chosen) == 1
    return chosen[0]


def make_loss_fn(trained, published):
    """The mean loss of (params, (images, labels)), from the model's apply alone."""
    mean, std = ((0.0,), (1.0,)) if published else (trained.source.mean, trained.source.std)
    mean, std = (jnp.array(x).reshape(1, 1, 1, -1) for x in (mean, std))

    def loss_fn(params, batch):
        images, labels = batch
        x = (jnp.asarray(images, jnp.float32) / 255 - mean) / std
        variables = {"params": params, "batch_stats": trained.state.batch_stats}
        if published:  # in training mode: on the statistics of the batch
            logits, _ = trained.program.model.apply(
                variables, x, train=True, mutable=["batch_stats"]
            )
        else:
            logits = trained.program.model.apply(variables, x, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss_fn
