"""The descriptors of the instruments: what they promise, and that adding one is one file."""

import json
import pathlib

import ml_collections
import pytest
from measured_models import columns_are_numbers, make_settings, make_trained, take_all
from records_readme import differences
from training_problems import tiny_config

from configs import digits
from sam_jax import measuring
from sam_jax.measuring import registry
from sam_jax.measuring.instrument import Column, Instrument
from sam_jax.measuring.measure import measurements
from sam_jax.measuring.settings import completed, defaults, relevant, settings_digest
from sam_jax.runs.records import digest

every_instrument = pytest.mark.parametrize("name", registry.NAMES)
README = pathlib.Path(measuring.__file__).with_name("README.md").read_text()
PRESETS = ("sound", "published")
KEPT_IN_FILES = ("loss_line", "trajectory_plane")  # see test_landscape_instruments.py


@pytest.fixture(scope="module")
def model():
    return make_trained(0)


@pytest.mark.parametrize("variant", ["", "smoke"])
def test_the_base_config_documents_every_setting(variant):
    groups = digits.get_config(variant).instruments.to_dict()
    groups = {name: group for name, group in groups.items() if isinstance(group, dict)}
    assert groups == defaults(smoke=variant == "smoke")


@every_instrument
def test_the_readme_has_a_row(name):
    instrument = registry.by_name()[name]
    (row,) = (line for line in README.splitlines() if line.startswith(f"| `{name}`"))
    head, settings, presets, numbers = (cell.strip() for cell in row.strip("|").split("|"))
    assert head.endswith("*") is not instrument.by_default
    words = [f"`{word}`" for word in instrument.settings]
    assert settings == (f"`{instrument.group}`: {', '.join(words)}" if words else "none")
    assert presets == (", ".join(instrument.presets) or "none")
    units = [f" ({column.unit})" if column.unit else "" for column in instrument.columns]
    fields = [f"`{column.field}`" for column in instrument.columns]
    wanted = ", ".join(map("".join, zip(fields, units, strict=True)))
    assert numbers == (wanted or "lists alone")


@every_instrument
def test_the_file_the_name_and_the_settings_agree(name):
    instrument = registry.by_name()[name]
    assert instrument.name == name and instrument.title
    assert instrument.smoke.keys() <= instrument.settings.keys()
    assert set(instrument.presets) <= set(PRESETS)
    groups = [other.group for other in registry.INSTRUMENTS]
    assert groups.count(instrument.group) == 1
    labels = [column.label for other in registry.INSTRUMENTS for column in other.columns]
    assert len(set(labels)) == len(labels)


def test_the_identity_tells_all_records_of_a_model_apart(model):
    settings = make_settings()
    measures = [name for name in registry.NAMES if name not in KEPT_IN_FILES]
    wanted = measurements(model, settings, PRESETS, measures)
    found = [registry.identity(measurement.about) for measurement in wanted]
    assert len(set(found)) == len(found)
    for measurement in wanted:
        instrument = registry.by_name()[measurement.about["measure"]]
        assert set(instrument.identity) <= set(measurement.about)
    # Of another law or another distance it is another record; of more directions it is not.
    record = {"measure": "asymmetry_factor", "preset": "sound", "distribution": "uniform"}
    assert registry.identity(record) != registry.identity(record | {"distribution": "gaussian"})
    assert registry.identity(record) == registry.identity(record | {"num_directions": 9})
    assert registry.identity({"measure": "costs", "preset": "none"}) == ("costs",)


@pytest.fixture(scope="module")
def taken(model):
    """The records of a model without those by name, see test_measured_by_name.py."""
    return take_all(model, make_settings(), PRESETS)


def test_every_column_is_a_number_of_the_record(taken):
    assert all(r["measure"] == "loss_curve" or columns_are_numbers(r) for r in taken)


def test_the_readme_of_runs_names_the_fields_of_every_record(taken):
    for record in taken:
        assert differences(record) == []
        assert differences(record | {"another": 1.0}) == ["another"]


def test_records_of_before_keep_the_digest_of_their_settings():
    settings = tiny_config().instruments
    settings.batch_size = 480  # of a pass, before
    with settings.unlocked():
        for instrument in registry.INSTRUMENTS:
            if not instrument.by_default:
                del settings[instrument.group]
    whole = digest(json.loads(settings.to_json()))
    for instrument in registry.chosen():
        assert settings_digest(settings, instrument) == whole
        assert settings_digest(completed(settings), instrument) == whole
        settings.batch_size = 96
        assert settings_digest(settings, instrument) == whole
        settings.batch_size = 480
    with settings.unlocked():
        del settings.hessian  # a run that is older than this instrument
    older = digest(json.loads(settings.to_json()))
    by_name = registry.by_name()
    assert settings_digest(settings, by_name["loss_curve"]) == older
    filled = settings_digest(settings, by_name["hessian"])
    assert filled == settings_digest(completed(settings), by_name["hessian"]) != older
    # Other defaults are another measurement.
    assert filled == digest(
        json.loads(settings.to_json()) | {"hessian": dict(by_name["hessian"].settings)}
    )


def test_a_later_instrument_changes_no_record_of_the_others(monkeypatch):
    before = {i.name: settings_digest(make_settings(), i) for i in registry.INSTRUMENTS}
    toy = Instrument("toy", "Toy", iter, settings={"scale": 2.0}, columns=(Column("x", "x"),))
    monkeypatch.setattr(registry, "INSTRUMENTS", (*registry.INSTRUMENTS, toy))
    settings = make_settings()
    with settings.unlocked():
        settings.toy = ml_collections.ConfigDict({"scale": 3.0})
    assert before == {name: settings_digest(settings, registry.by_name()[name]) for name in before}
    found = settings_digest(settings, toy)
    settings.hessian.steps = 7
    assert settings_digest(settings, toy) == found != settings_digest(make_settings(), toy)
    settings.seed = 12
    assert settings_digest(settings, toy) != found
    # A further instrument makes another study, even one without settings.
    plain = Instrument("plain", "Plain", iter)
    whole = relevant(make_settings(), registry.chosen())
    monkeypatch.setattr(registry, "INSTRUMENTS", (*registry.INSTRUMENTS, plain))
    assert relevant(make_settings(), registry.chosen()) != whole
