"""Checksums of arrays: what changes them, what does not, and another route to the same number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam_jax.runs import checksums

DTYPES = ("float32", "float16", "bfloat16", "int32", "uint8", "bool", "complex64")


def an_array(shape, dtype="float32", seed=0):
    values = np.random.default_rng(seed).normal(size=shape) * 50
    return np.asarray(jnp.asarray(values).astype(dtype))


def by_hand(array):
    """The formula in Python's own integers, number by number."""
    words = np.asarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
    found = 0
    for place, word in enumerate(words.tolist()):
        x = (word + place * 0x9E3779B97F4A7C15) % 2**64
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> shift)) * factor % 2**64
        found += x
    return f"{found % 2**64:016x}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_the_formula_and_the_names(dtype, shape):
    array = an_array(shape, dtype)
    (name, found), *others = checksums.of_tree({"a": [array]}).items()
    assert (name, others) == ("a/0", [])
    assert found == f"{dtype} {list(shape)} {by_hand(array)}"
    assert checksums.of_tree({"a": [jnp.asarray(array)]}) == {name: found}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200_000), st.integers(0, 2**32 - 1), st.sampled_from(["flip", "null", "swap"])
)
def test_every_change_is_seen(size, seed, kind):
    random = np.random.default_rng(seed)
    array = an_array((size,), seed=seed)
    changed = array.copy()
    first, second = random.integers(size), random.integers(size)
    if kind == "flip":
        changed.view(np.uint32)[first] ^= np.uint32(1 << random.integers(32))
    elif kind == "null":
        changed[first : first + 1024] = 0
    else:
        changed[[first, second]] = changed[[second, first]]
    same = changed.tobytes() == array.tobytes()
    assert (checksums.of_tree(changed) == checksums.of_tree(array)) == same


def test_a_shape_and_a_type_are_seen():
    zeros = [np.zeros(shape, t) for shape in ((4,), (2, 2)) for t in ("float32", "int32")]
    assert len({checksums.of_tree(array)[""] for array in zeros}) == 4


@pytest.mark.devices
@pytest.mark.parametrize("spec", [(), ("a",), ("b", "a"), (("a", "b"),), (None, "b")])
def test_where_an_array_lies_changes_nothing(spec):
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    array = an_array((8, 12, 3))
    split = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
    assert checksums.of_tree(split) == checksums.of_tree(array)
    assert checksums.of_tree(split + 1) != checksums.of_tree(array)


def test_lines():
    assert checksums.of_lines(b"") == []
    assert checksums.of_lines(b"123456789\nab") == ["cbf43926"]  # the check value of CRC-32
