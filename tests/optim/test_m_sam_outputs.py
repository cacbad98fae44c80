"""What m_sam makes of auxiliary outputs, of keys for its sub-batches and of weights."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_close, assert_trees_equal, trees_close, update
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sam_jax import optim

EXAMPLES, M = 16, 4  # M of the 8 outputs are channels, to be taken for examples by mistake
DEVICES = 2  # each holds two sub-batches
PLACES = ("vmap", "scan", "loop", "mesh", "mesh scan", "shard_map")


class Outputs(NamedTuple):
    """One leaf of every kind."""

    loss: jax.Array
    statistics: jax.Array  # [M], as many channels as examples in a sub-batch
    half: jax.Array  # bfloat16
    count: jax.Array
    unsigned: jax.Array
    finite: jax.Array
    key: jax.Array
    logits: jax.Array  # [n, 2]
    labels: jax.Array  # integers, [n]
    nothing: None = None


def grad_fn(params, batch, problem):
    """Return the gradient, and outputs that tell which sub-batch they are of."""
    x = batch["x"]
    first = jnp.round(x[0, 0])
    outputs = Outputs(
        loss=problem.loss_fn(params, batch),
        statistics=jnp.arange(M) + jnp.mean(x),
        half=jnp.mean(x).astype(jnp.bfloat16),
        count=first.astype(jnp.int32),
        unsigned=first.astype(jnp.uint8),
        finite=first > 8,
        key=jax.random.key(first.astype(jnp.int32)),
        logits=problem.logits(params, batch),
        labels=jnp.round(x[:, 0]).astype(jnp.int32),
    )
    return problem.grad_fn(params, batch), outputs


def numbered(problem=None):
    """Return a problem whose examples have their number as first input."""
    problem = problem or problems.dense_net(examples=EXAMPLES)
    x = problem.batch["x"].at[:, 0].set(jnp.arange(EXAMPLES))
    return problem._replace(batch=problem.batch | {"x": x})


def run(place, inner, problem, function, combine=None, m=M, *, functions=(), **extra_args):
    """Return the result of the pure function, its sub-batches where `place` says."""
    strategy = "scan" if place in ("scan", "loop", "mesh scan") else "vmap"
    axis_name = "devices" if place == "shard_map" else None
    tx = optim.m_sam(inner, m, strategy, axis_name, combine=combine)
    params, batch = problem.params, problem.batch

    def gradient(params, batch, extra_args):
        state = tx.init(params)
        return tx.gradient(function, params, state, batch=batch, **extra_args, **dict(functions))[0]

    if place == "loop":
        return gradient(params, batch, extra_args)
    mesh, split = Mesh(np.array(jax.devices()[:DEVICES]), ("devices",)), PartitionSpec("devices")
    if place.startswith("mesh"):
        batch = jax.device_put(batch, NamedSharding(mesh, split))
    if place == "shard_map":
        whole = PartitionSpec()
        of_aux = jax.tree.map(lambda _: whole, function(params, batch, **keywords(extra_args))[1])
        if isinstance(of_aux, Outputs):
            of_aux = of_aux._replace(logits=split, labels=split)
        clean = of_aux if isinstance(of_aux, Outputs) else whole
        specs = optim.SharpnessAwareGradient(whole, clean, of_aux)
        of_extra = {name: split if name == "weights" else whole for name in extra_args}
        gradient = jax.shard_map(
            gradient, mesh=mesh, in_specs=(whole, split, of_extra), out_specs=specs
        )
    return jax.jit(gradient)(params, batch, extra_args)


def keywords(extra_args):
    return {name: x for name, x in extra_args.items() if name in ("rngs", "shared")}


@pytest.mark.parametrize("place", PLACES)
def test_each_kind_has_its_rule(place):
    problem = numbered()
    function = functools.partial(grad_fn, problem=problem)
    result = run(place, optim.sam(0.1), problem, function)
    assert_trees_close(result.gradient, update(optim.m_sam(optim.sam(0.1), M), problem)[0])
    whole = function(problem.params, problem.batch)[1]
    for aux in (result.clean_aux, result.perturbed_aux):
        dtypes = [[x.dtype for x in jax.tree.leaves(tree)] for tree in (aux, whole)]
        assert dtypes[0] == dtypes[1]
        np.testing.assert_allclose(aux.statistics, whole.statistics, rtol=1e-6)
        assert aux.half == whole.half
        assert (aux.count, aux.unsigned, aux.finite) == (12, 12, True)  # of examples 12 to 15
        assert jnp.all(jax.random.key_data(aux.key) == jax.random.key_data(jax.random.key(12)))
        np.testing.assert_array_equal(aux.labels, np.arange(EXAMPLES))
        assert aux.nothing is None
    np.testing.assert_allclose(result.clean_aux.loss, whole.loss, rtol=1e-6)
    np.testing.assert_allclose(result.clean_aux.logits, whole.logits, atol=1e-6)
    assert not np.allclose(result.perturbed_aux.logits, whole.logits, atol=1e-3)


@pytest.mark.devices
def test_groups_of_devices_keep_the_rules():
    problem = numbered()
    function = functools.partial(grad_fn, problem=problem)
    whole = function(problem.params, problem.batch)[1]
    aux = run("shard_map", optim.sam(0.1), problem, function, m=EXAMPLES).clean_aux
    np.testing.assert_allclose(aux.loss, whole.loss, rtol=1e-6)
    np.testing.assert_allclose(aux.logits, whole.logits, atol=1e-6)
    assert aux.count == 8  # the last device's part of the one sub-batch


@pytest.mark.parametrize("place", ["vmap", "scan", "loop", "mesh"])
def test_combine_says_otherwise(place):
    problem = numbered()

    def function(params, batch):
        first = batch["x"][0, 0]
        aux = {
            "correct": jnp.sum(batch["x"][:, 0] > 5),
            "total": first,
            "bits": first > 0,
            "any": {"one": first == 0, "two": first > 100},
            "all": first < 12,
            "least": first,
            "newest": first,
            "count": jnp.int32(first),
        }
        return problem.grad_fn(params, batch), aux

    combine = {
        "correct": "sum",
        "total": "sum",
        "bits": "sum",
        "any": "max",
        "all": "min",
        "least": "min",
        "newest": "last",
        "count": "mean",
    }
    aux = run(place, optim.sam(0.1), problem, function, combine).perturbed_aux
    assert jax.device_get(aux) == {
        "correct": 10,
        "total": 24.0,
        "bits": 3,
        "any": {"one": True, "two": False},
        "all": False,
        "least": 0.0,
        "newest": 12.0,
        "count": 6.0,
    }
    assert aux["any"]["one"].dtype == bool and aux["correct"].dtype == jnp.int32


def test_wrong_words_are_refused():
    with pytest.raises(ValueError, match="combine holds the words auto, mean.*got 'average'"):
        optim.m_sam(optim.sam(0.1), M, combine={"loss": "average"})
    problem = numbered()
    function = functools.partial(grad_fn, problem=problem)
    for combine, reason in (
        ({"loss": "mean"}, "structure of the auxiliary output"),
        ("mean", "mean of typed keys"),
        (Outputs(*(["auto"] * 9))._replace(loss="concatenate"), "concatenate a scalar"),
    ):
        with pytest.raises(ValueError, match=reason):
            run("vmap", optim.sam(0.1), problem, function, combine)


def test_a_grad_fn_of_one_size_has_to_say_what_its_outputs_are():
    problem = numbered()

    def function(params, batch, combine=None):
        assert len(batch["x"]) == M
        return problem.grad_fn(params, batch), jnp.mean(batch["x"][:, 0]) + jnp.arange(M)

    with pytest.raises(ValueError, match="Say it to m_sam: combine"):
        run("vmap", optim.sam(0.1), problem, function)
    aux = run("vmap", optim.sam(0.1), problem, function, "mean").clean_aux
    np.testing.assert_allclose(aux, 7.5 + np.arange(M))
    aux = run("vmap", optim.sam(0.1), problem, function, "concatenate").clean_aux
    assert aux.shape == (EXAMPLES,)


def test_a_method_on_a_part_of_its_sub_batch_concatenates_that():
    problem = numbered()
    function = functools.partial(grad_fn, problem=problem)
    esam = optim.esam(0.1, gamma=0.5, key=jax.random.key(0))
    result = run("mesh", esam, problem, function, functions={"losses_fn": problem.losses})
    assert result.clean_aux.labels.tolist() == list(range(EXAMPLES))
    chosen = result.perturbed_aux.labels.tolist()
    assert len(chosen) == EXAMPLES // 2 and sorted(set(chosen)) == chosen
    assert all(sum(x // M == i for x in chosen) == M // 2 for i in range(EXAMPLES // M))


@pytest.mark.parametrize(
    "method",
    [
        optim.smooth_out(0.1, jax.random.key(0), copies=3),
        optim.entropy_sgd(0.1, jax.random.key(0), steps=3, split_batch=False),
    ],
)
def test_methods_of_several_passes_keep_what_has_no_mean(method):
    problem = numbered()
    whole = functools.partial(grad_fn, batch=problem.batch, problem=problem)

    def of_one_batch(params, batch=None):
        return whole(params)

    state = method.init(problem.params)
    result, _ = method.gradient(of_one_batch, problem.params, state)
    aux, wanted = result.perturbed_aux, whole(problem.params)[1]
    dtypes = [[x.dtype for x in jax.tree.leaves(tree)] for tree in (aux, wanted)]
    assert dtypes[0] == dtypes[1]
    assert jnp.all(aux.labels == wanted.labels) and aux.logits.shape == wanted.logits.shape


# ---------------------------------------------------------------------------- randomness


def noisy(params, batch, rngs, shared=None):
    """A gradient with noise of its own key, and that key and the noise as outputs."""
    noise = jax.random.normal(rngs["dropout"], (3,))
    gradient = jax.tree.map(lambda w: w * jnp.mean(batch["x"]) + jnp.sum(noise), params)
    return gradient, {"noise": noise[None], "shared": jnp.zeros(()) if shared is None else shared}


COMBINE = {"noise": "concatenate", "shared": "mean"}


@pytest.mark.parametrize("place", ["vmap", "scan", "loop", "mesh", "mesh scan"])
def test_each_sub_batch_draws_its_own_in_both_passes(place):
    problem, rngs = numbered(), {"dropout": jax.random.key(3)}

    def draws(rngs):
        result = run(place, optim.sam(0.1), problem, noisy, COMBINE, rngs=rngs, shared=jnp.ones(()))
        assert result.clean_aux["shared"] == 1
        np.testing.assert_array_equal(result.clean_aux["noise"], result.perturbed_aux["noise"])
        return result.clean_aux["noise"]

    found = draws(rngs)
    keys = [jax.random.fold_in(rngs["dropout"], i) for i in range(EXAMPLES // M)]
    np.testing.assert_allclose(found, [jax.random.normal(k, (3,)) for k in keys], rtol=1e-6)
    np.testing.assert_array_equal(found, draws(rngs))
    assert not np.any(found == draws({"dropout": jax.random.key(4)}))


@pytest.mark.devices
def test_devices_that_share_a_sub_batch_draw_their_own():
    problem, key = numbered(), jax.random.key(3)

    def function(params, batch, rngs):
        noise = jax.random.normal(rngs, ())
        return problem.grad_fn(params, batch), {"low": noise, "high": noise}

    combine = {"low": "min", "high": "max"}
    aux = run("shard_map", optim.sam(0.1), problem, function, combine, EXAMPLES, rngs=key).clean_aux
    assert aux["low"] < aux["high"]


def test_one_sub_batch_draws_as_one_of_many():
    problem, rngs = numbered(), {"dropout": jax.random.key(3)}
    result = run("vmap", optim.sam(0.1), problem, noisy, m=EXAMPLES, rngs=rngs)
    key = jax.random.fold_in(rngs["dropout"], 0)
    np.testing.assert_array_equal(result.clean_aux["noise"][0], jax.random.normal(key, (3,)))


def test_untyped_keys_are_refused():
    with pytest.raises(ValueError, match=r"typed keys.*jax\.random\.key\(seed\)"):
        run("loop", optim.sam(0.1), numbered(), noisy, rngs=jax.random.PRNGKey(0))


# ---------------------------------------------------------------------------- weights


def weighted_problem():
    """A mean over tokens, of which an example has none to four; float64 makes equality strict."""
    problem = problems.dense_net(examples=EXAMPLES, dtype=jnp.float64)
    tokens = (
        jnp.asarray(np.random.default_rng(1).integers(0, 5, EXAMPLES)).at[:M].set(0).at[-M:].mul(3)
    )

    def loss_fn(params, batch):
        losses = jnp.mean(problems.squared_errors(problem.logits_fn(params, batch), batch), axis=-1)
        return jnp.sum(batch["tokens"] * losses) / jnp.sum(batch["tokens"])  # NaN without tokens

    return problem._replace(loss_fn=loss_fn, batch=problem.batch | {"tokens": tokens})


@pytest.mark.devices
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("of", ["examples", "sub-batches"])
def test_weights_make_rho_zero_the_gradient_of_the_weighted_loss(place, of):
    with jax.enable_x64(True):
        problem = weighted_problem()
        problem = problem._replace(logits_fn=None)
        tokens = problem.batch["tokens"]
        weights = tokens if of == "examples" else tokens.reshape(-1, M).sum(1)

        def function(params, batch):
            loss, gradient = jax.value_and_grad(problem.loss_fn)(params, batch)
            return gradient, loss

        result = run(place, optim.sam(0.0), problem, function, weights=weights)
        assert_trees_close(result.gradient, problem.grad_fn(problem.params), 1e-12)
        loss = problem.loss_fn(problem.params, problem.batch)
        np.testing.assert_allclose(result.clean_aux, loss, rtol=1e-12)

        rest = problem._replace(batch=jax.tree.map(lambda x: x[M:], problem.batch))
        unweighted = run("vmap", optim.sam(0.0), rest, function).gradient
        assert not trees_close(unweighted, problem.grad_fn(problem.params), 1e-3)
        # A perturbation, and a formula by hand: the mean of the gradients of SAM.
        perturbed = run(place, optim.sam(0.1), problem, function, weights=weights).gradient
        batches = [
            jax.tree.map(lambda x, i=i: x[i : i + M], problem.batch) for i in range(M, EXAMPLES, M)
        ]
        parts = [update(optim.sam(0.1), problem._replace(batch=batch))[0] for batch in batches]
        total = [jnp.sum(batch["tokens"]) for batch in batches]
        wanted = jax.tree.map(
            lambda *g: sum(w * x for w, x in zip(total, g, strict=True)) / sum(total), *parts
        )
        assert_trees_close(perturbed, wanted, 1e-12)


@pytest.mark.devices
@pytest.mark.parametrize("m", [8, EXAMPLES])
def test_weights_over_groups_of_devices(m):
    with jax.enable_x64(True):
        problem = weighted_problem()
        mesh = Mesh(np.array(jax.devices()[:4]), ("devices",))
        tx = optim.m_sam(optim.sam(0.1), m, axis_name="devices")

        def step(params, batch):
            return tx.update(
                params,
                tx.init(params),
                params,
                grad_fn=problem.grad_fn,
                batch=batch,
                weights=batch["tokens"],
            )[0]

        specs = {"in_specs": (PartitionSpec(), PartitionSpec("devices")), "check_vma": False}
        step = jax.jit(jax.shard_map(step, mesh=mesh, out_specs=PartitionSpec(), **specs))
        one = optim.m_sam(optim.sam(0.1), m)
        wanted = update(one, problem, weights=problem.batch["tokens"])[0]
        assert_trees_close(step(problem.params, problem.batch), wanted, 1e-12)


def test_weights_in_a_chain_and_without_any_weight():
    problem = problems.dense_net(examples=EXAMPLES)
    tx = optax.chain(optim.m_sam(optim.sam(0.1), M), optax.sgd(1.0))
    zero = update(tx, problem, tx.init(problem.params), weights=jnp.zeros(EXAMPLES))[0]
    assert_trees_equal(zero, jax.tree.map(jnp.zeros_like, problem.params))
    with pytest.raises(ValueError, match=r"each of the 16 examples.*4 sub-batches.*\(3,\)"):
        update(tx, problem, tx.init(problem.params), weights=jnp.ones(3))
