"""The folder of a run refuses another config and says where it differs."""

import json

import ml_collections
import pytest
from training_problems import tiny_config

from sam_jax.runs import old_configs, workdirs


def claim_and_run(workdir, config):
    workdirs.claim(workdir, config)
    (workdir / "metrics.jsonl").write_text("")


def test_the_config_comes_back(tmp_path):
    config = tiny_config()
    workdirs.claim(tmp_path / "run", config)
    restored = workdirs.read_config(tmp_path / "run")
    assert workdirs.plain(restored) == workdirs.plain(config)
    assert restored.method.rho == config.method.rho
    json.loads((tmp_path / "run" / "config.json").read_text())


def test_the_same_config_may_come_again(tmp_path):
    claim_and_run(tmp_path, tiny_config())
    before = (tmp_path / "config.json").read_text()
    workdirs.claim(tmp_path, tiny_config())  # tuples against the lists of JSON
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize("group", [None, "training"])  # of a run, and of a study
@pytest.mark.parametrize("changed", [{}, {"pad": 2}, {"name": "cifar10"}])
def test_a_config_of_before_says_the_same_in_todays_words(tmp_path, group, changed):
    config = tiny_config()
    if group:
        config = ml_collections.ConfigDict({group: config})
    claim_and_run(tmp_path, config)
    path = tmp_path / "config.json"
    old = json.loads(path.read_text())
    data = old[group]["data"] if group else old["data"]
    del data["streaming"], data["image_size"], data["train_split"]
    del data["randaugment_layers"], data["randaugment_magnitude"]
    data |= {"augmentation": ["crop_zero"], "pad": 1, "cutout_size": 16} | changed
    path.write_text(json.dumps(old))
    if not changed:
        assert workdirs.plain(workdirs.read_config(tmp_path)) == workdirs.plain(config)
        workdirs.claim(tmp_path, config)
        return
    kept = workdirs.read_config(tmp_path)[group] if group else workdirs.read_config(tmp_path)
    assert (kept.data.augmentation, kept.data.streaming) == (["crop_zero"], "auto")
    with pytest.raises(ValueError, match="data.augmentation .was .'crop_zero'., is None"):
        workdirs.claim(tmp_path, config)


LATER = ("mixup", "label_noise", "label_noise_kind", "label_noise_seed")


@pytest.mark.parametrize("group", [None, "training"])  # of a run, and of a study
def test_a_config_from_before_a_field_has_the_value_that_changes_nothing(tmp_path, group):
    config = tiny_config()
    if group:
        config = ml_collections.ConfigDict({group: config})
    claim_and_run(tmp_path, config)
    path = tmp_path / "config.json"
    old = json.loads(path.read_text())
    part = old[group] if group else old
    for field in LATER:
        del part["data"][field]
    part["loss"] = {"label_smoothing": part["loss"]["label_smoothing"]}
    del part["method"]["weight_noise"]
    part["method"]["multi_step_sam"] = {"steps": 2}
    path.write_text(json.dumps(old))
    assert workdirs.plain(workdirs.read_config(tmp_path)) == workdirs.plain(config)
    workdirs.claim(tmp_path, config)
    # What the old run did not do is another config.
    changed = tiny_config(data__mixup=0.5)
    if group:
        changed = ml_collections.ConfigDict({group: changed})
    with pytest.raises(ValueError, match="data.mixup .was 0.0, is 0.5"):
        workdirs.claim(tmp_path, changed)


def test_a_folder_with_empty_folders_alone_is_free(tmp_path):
    workdirs.claim(tmp_path, tiny_config())
    (tmp_path / "checkpoints").mkdir()
    workdirs.claim(tmp_path, tiny_config(epochs=9))
    assert workdirs.read_config(tmp_path).epochs == 9
    (tmp_path / "checkpoints" / "1").mkdir()
    with pytest.raises(ValueError, match="epochs .was 9, is 2"):
        workdirs.claim(tmp_path, tiny_config())


def test_differing_keys_are_named_and_no_others(tmp_path):
    claim_and_run(tmp_path, tiny_config())
    before = (tmp_path / "config.json").read_text()
    other = tiny_config(method__rho=0.7, epochs=9)
    with other.unlocked():
        other.model.extra = "wide"
    with pytest.raises(ValueError) as error:
        workdirs.claim(tmp_path, other)
    message = str(error.value)
    for part in (
        "epochs (was 2, is 9)",
        "method.rho (was 0.05, is 0.7)",
        "model.extra (was 'absent', is 'wide')",
        str(tmp_path),
        "--workdir",
        "--accept_config_changes",
    ):
        assert part in message
    assert message.count("(was") == 3 and "method.name" not in message
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize("group", [None, "training"])  # of a run, and of a study
def test_a_config_that_is_older_than_an_instrument_is_the_same(tmp_path, group):
    newer = tiny_config()
    older = newer.copy_and_resolve_references()
    with older.unlocked():
        del older.instruments.hessian
    if group:
        newer, older = (ml_collections.ConfigDict({group: each}) for each in (newer, older))
    claim_and_run(tmp_path, older)
    workdirs.claim(tmp_path, newer)
    with pytest.raises(ValueError, match=r"instruments.hessian.steps \(was 3, is 'absent'\)"):
        workdirs.claim(tmp_path, older)
    changed = newer.copy_and_resolve_references()
    (changed[group] if group else changed).instruments.hessian.steps = 4
    with pytest.raises(ValueError, match=r"instruments.hessian.steps \(was 3, is 4\)"):
        workdirs.claim(tmp_path, changed)


@pytest.mark.parametrize("group", [None, "training"])  # of a run, and of a study
def test_the_images_of_a_pass_may_differ(tmp_path, group):
    def config(**changes):
        found = tiny_config(**changes)
        return ml_collections.ConfigDict({group: found}) if group else found

    claim_and_run(tmp_path, config())
    workdirs.claim(tmp_path, config(evaluation__batch_size=7, instruments__batch_size=9))
    with pytest.raises(ValueError, match=r"keys: (training.)?batch_size \(was"):
        workdirs.claim(tmp_path, config(batch_size=7))


def test_changes_can_be_accepted(tmp_path):
    claim_and_run(tmp_path, tiny_config())
    workdirs.claim(tmp_path, tiny_config(epochs=9), accept_config_changes=True)
    assert workdirs.read_config(tmp_path).epochs == 9
    with pytest.raises(ValueError, match=r"epochs \(was 9, is 2\)"):
        workdirs.claim(tmp_path, tiny_config())


def test_a_run_that_failed_at_once_leaves_the_folder_free(tmp_path):
    workdirs.claim(tmp_path, tiny_config())
    workdirs.claim(tmp_path, tiny_config(epochs=9))
    assert workdirs.read_config(tmp_path).epochs == 9


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json.*sam_jax.train"):
        workdirs.read_config(tmp_path)


def without_empty_groups(tree):
    parts = {k: without_empty_groups(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return {name: part for name, part in parts.items() if part != {}}


def leaves(tree, prefix=()):
    """The names of all values of nested dicts, as paths."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


@pytest.mark.parametrize("group", [None, "training"])  # of a run, and of a study
def test_a_config_that_lacks_newer_fields_has_what_its_run_did(tmp_path, group):
    config = tiny_config()
    whole = workdirs.plain(config)
    older = json.loads(json.dumps(whole))
    for name, value in old_configs.CHANGEABLE_BEFORE.items():
        del older[name]
        whole[name] = value  # what the base config does is new
    for path, value in leaves(old_configs.TRAINING_BEFORE):
        parent, now = older, whole
        for name in path[:-1]:
            parent, now = parent.get(name, {}), now[name]
        assert now[path[-1]] == value, path  # the base config trains as before
        parent.pop(path[-1], None)
    older = {group: older} if group else older
    (tmp_path / "config.json").write_text(json.dumps(older))
    read = workdirs.plain(workdirs.read_config(tmp_path))
    assert (read[group] if group else read) == whole
    # Groups that are new as a whole leave nothing behind, and a digest stays.
    before = without_empty_groups(older[group] if group else older)
    assert workdirs.plain_as_before(config) == before
    other = workdirs.plain_as_before(tiny_config(optimiser__piecewise__factors=(0.2, 0.01)))
    assert other == before | {
        "optimiser": before["optimiser"] | {"piecewise": {"factors": [0.2, 0.01]}}
    }
    (tmp_path / "metrics.jsonl").write_text("")
    changed = tiny_config(optimiser__name="adamw")
    changed = ml_collections.ConfigDict({group: changed}) if group else changed
    with pytest.raises(ValueError, match=r"optimiser.name \(was 'sgd', is 'adamw'\)"):
        workdirs.claim(tmp_path, changed)
