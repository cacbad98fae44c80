"""Modules that moved are found under the names that they had."""

import importlib
import importlib.util
import sys

import pytest

from sam_jax.moved import MOVED, SPLIT


@pytest.mark.parametrize("old", MOVED)
def test_the_old_name_is_the_new_module_with_a_warning(old):
    new = importlib.import_module(MOVED[old])
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]};"):
        assert importlib.import_module(old) is new
    # The module is what it was: nothing of its old name is left on it.
    assert new.__name__ == new.__spec__.name == MOVED[old]
    assert importlib.util.find_spec(MOVED[old]) is not None


def test_names_can_be_imported_from_an_old_module():
    with pytest.warns(DeprecationWarning):
        sys.modules.pop("sam_jax.training.records", None)
        from sam_jax.training.records import append, read
    from sam_jax.runs import records

    assert (append, read) == (records.append, records.read)


@pytest.mark.parametrize("old", SPLIT)
def test_the_names_of_a_module_that_was_split_are_found_with_a_warning(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now "):
        module = importlib.import_module(old)
    for name, new in SPLIT[old].items():
        assert getattr(module, name) is getattr(importlib.import_module(new), name)
    assert not hasattr(module, "no_such_name")


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="sam_jax.training.reccords"):
        importlib.import_module("sam_jax.training.reccords")
