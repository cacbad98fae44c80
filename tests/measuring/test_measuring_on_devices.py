"""Every instrument of the registry shares its work out over all devices."""

import jax
import pytest
from measured_models import make_settings, make_trained

from sam_jax.measuring import registry
from sam_jax.measuring.measure import measurements
from sam_jax.metrics import over_devices
from sam_jax.training.evaluation import evaluate_set

pytestmark = pytest.mark.devices
# The first is the evaluation of the training, and its devices share out every pass. The second
# needs three checkpoints, and measures its points as `loss_line` does.
ELSEWHERE = ("evaluation", "trajectory_plane")
NAMES = [name for name in registry.NAMES if name not in ELSEWHERE]


class SharedOut(Exception):
    """Raised where work would be shared out, with the number of devices."""


@pytest.fixture
def stopped(monkeypatch):
    """Stop at the place where all instruments share their work out, before anything is compiled."""

    def stop(fn, rows, others, mesh, combine):
        raise SharedOut(mesh.size)

    monkeypatch.setattr(over_devices, "_on_parts", stop)
    jax.clear_caches()


@pytest.fixture(scope="module")
def model():
    return make_trained(0)


@pytest.mark.parametrize("name", NAMES)
def test_an_instrument_shares_its_work_out_over_all_devices(model, name, stopped, tmp_path):
    (first, *_) = measurements(model, make_settings(), ("sound",), (name,), tmp_path)
    with pytest.raises(SharedOut, match="8"):
        first.take()


def test_what_has_no_mesh_is_not_stopped(model, stopped):
    """The negative control."""
    images, labels = model.data.test_images, model.data.test_labels
    logits = jax.numpy.ones((len(labels), 10))
    assert evaluate_set(lambda _: logits, images, labels, len(labels)).loss > 2
