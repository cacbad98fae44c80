"""m_sam under jit on a mesh: every device computes its own sub-batches, and one sum joins them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from contract_runs import assert_trees_close, trees_close, update
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sam_jax import optim
from sam_jax.collectives import collectives

pytestmark = pytest.mark.devices

DEVICES, EXAMPLES = 8, 64
SHARD = EXAMPLES // DEVICES
TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
P = PartitionSpec


def make_mesh(types, shape=(DEVICES,), names=("data",)):
    return jax.make_mesh(shape, names, axis_types=(TYPES[types],) * len(shape))


def put(mesh, tree, spec):
    return jax.device_put(tree, NamedSharding(mesh, spec))


def conv_net():
    """Two convolutions and a dense layer; most operations are convolutions."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape) / math.sqrt(math.prod(shape[:-1])), "float32")

    def convolved(x, kernel, stride):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), "SAME", dimension_numbers=numbers
            )
        )

    def loss_fn(params, batch):
        h = convolved(convolved(batch["x"], params["first"], 1), params["second"], 2)
        outputs = h.reshape(len(h), -1) @ params["dense"]
        return jnp.mean((outputs - batch["y"]) ** 2)

    params = {"first": normal(3, 3, 3, 8), "second": normal(3, 3, 8, 8), "dense": normal(128, 4)}
    random_batch = {"x": random.normal(size=(EXAMPLES, 8, 8, 3)), "y": np.ones((EXAMPLES, 4))}
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_batch)
    return problems.Problem(loss_fn, params, batch)


NETS = {"dense": problems.dense_net((16, 64, 64, 4), EXAMPLES), "conv": conv_net()}


def step_of(tx, problem):
    def step(params, batch):
        return update(tx, problem._replace(batch=batch), tx.init(params), params)[0]

    return step


def compiled(tx, problem, mesh=None, split="data"):
    params, batch = problem.params, problem.batch
    if mesh is not None:
        params, batch = put(mesh, params, P()), put(mesh, batch, P(split))
    return jax.jit(step_of(tx, problem)).lower(params, batch).compile()


def communication(program):
    """Return the numbers, of four bytes, that each kind of collective puts out."""
    found = collectives(program.as_text())["collectives"]
    return {kind: size // 4 for kind, size in found.items()}


def operations(program):
    return program.cost_analysis()["flops"]


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("strategy", ["vmap", "scan"])
@pytest.mark.parametrize("net", NETS)
def test_one_all_reduce_and_the_operations_of_one_share(net, strategy, types):
    problem, mesh = NETS[net], make_mesh(types)
    tx = optim.m_sam(optim.sam(0.1), 4, strategy)
    program = compiled(tx, problem, mesh)
    size = sum(w.size for w in jax.tree.leaves(problem.params))
    # XLA may join the leaves: the numbers that are summed are those of one gradient either way.
    assert communication(program) == {"all-reduce": size}
    share = problem._replace(batch=jax.tree.map(lambda x: x[:SHARD], problem.batch))
    alone = operations(compiled(tx, share))
    # The mean over devices adds a few operations a parameter.
    assert alone <= operations(program) < 1.05 * alone
    wanted = update(tx, problem)[0]
    found = program(put(mesh, problem.params, P()), put(mesh, problem.batch, P("data")))
    assert_trees_close(found, wanted)


def test_the_check_of_the_program_can_fail():
    problem, mesh = NETS["conv"], make_mesh("auto")
    program = compiled(optim.m_sam(optim.sam(0.1), 4, "scan", batch_axes=()), problem, mesh)
    size = sum(w.size for w in jax.tree.leaves(problem.params))
    share = problem._replace(batch=jax.tree.map(lambda x: x[:SHARD], problem.batch))
    alone = operations(compiled(optim.m_sam(optim.sam(0.1), 4, "scan"), share))
    assert communication(program) != {"all-reduce": size}
    assert operations(program) > 1.5 * alone or "all-gather" in communication(program)


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("net", NETS)
def test_m_equal_to_the_batch_takes_two_all_reduces(net, types):
    problem, mesh = NETS[net], make_mesh(types)
    tx = optim.m_sam(optim.sam(0.1), EXAMPLES)
    program = compiled(tx, problem, mesh)
    size = sum(w.size for w in jax.tree.leaves(problem.params))
    found = communication(program)
    assert set(found) == {"all-reduce"}
    assert 2 * size <= found["all-reduce"] <= 2 * size + 16  # XLA may sum a norm or a loss too
    result = program(put(mesh, problem.params, P()), put(mesh, problem.batch, P("data")))
    assert_trees_close(result, update(tx, problem)[0])


@pytest.mark.parametrize("check", [True, False])
def test_m_equal_to_the_batch_inside_shard_map_takes_two_all_reduces(check):
    problem, mesh = NETS["dense"], make_mesh("auto")
    step = step_of(optim.m_sam(optim.sam(0.1), EXAMPLES, axis_name="data"), problem)
    step = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=check)
    params, batch = put(mesh, problem.params, P()), put(mesh, problem.batch, P("data"))
    program = jax.jit(step).lower(params, batch).compile()
    size = sum(w.size for w in jax.tree.leaves(problem.params))
    assert communication(program) == {"all-reduce": 2 * size}
    assert_trees_close(program(params, batch), update(optim.sam(0.1), problem)[0])


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("m", [16, 32])
def test_a_larger_m_than_a_share_is_groups_of_devices(m, types):
    problem, mesh = NETS["dense"], make_mesh(types)
    tx = optim.m_sam(optim.sam(0.1), m)
    found = jax.jit(step_of(tx, problem))(
        put(mesh, problem.params, P()), put(mesh, problem.batch, P("data"))
    )
    assert_trees_close(found, update(tx, problem)[0])
    with pytest.raises(ValueError, match="Choose m among the divisors of 8, or 8 times a divisor"):
        compiled(optim.m_sam(optim.sam(0.1), 24), problem, mesh)


@pytest.mark.parametrize("types", TYPES)
def test_outside_jit_the_arrays_tell_their_mesh(types):
    problem, mesh = NETS["dense"], make_mesh(types)
    for strategy in ("vmap", "scan"):
        tx = optim.m_sam(optim.sam(0.1), 4, strategy)
        params, batch = put(mesh, problem.params, P()), put(mesh, problem.batch, P("data"))
        state = tx.init(params)
        result, _ = tx.update(params, state, params, grad_fn=problem.grad_fn, batch=batch)
        assert_trees_close(result, update(tx, problem)[0])


# ---------------------------------------------------------------------------- other axes

FSDP = {  # the mesh, how the batch is split, and how wide kernels are
    "beside": ((4, 2), ("data", "fsdp"), "data", P(None, "fsdp")),
    "both": ((4, 2), ("data", "fsdp"), ("data", "fsdp"), P(None, "fsdp")),
    "same": ((8,), ("data",), "data", P(None, "data")),
}


def is_kernel(w):
    return w.ndim == 2 and w.shape[1] >= DEVICES


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("strategy", ["vmap", "scan"])
@pytest.mark.parametrize("way", FSDP)
def test_sharded_parameters_keep_their_sharding(way, strategy, types):
    shape, names, split, of_kernels = FSDP[way]
    problem, mesh = NETS["dense"], make_mesh(types, shape, names)
    params = jax.tree.map(
        lambda w: put(mesh, w, of_kernels if is_kernel(w) else P()), problem.params
    )
    batch = put(mesh, problem.batch, P(split))
    method = optim.m_sam(optim.gsam(0.1), 4, strategy, batch_axes=split)
    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))

    def step(params, state, batch, tx=tx):
        # The clean gradient is not read; with its own sharding the model could not take it.
        arguments = {"grad_fn": problem.grad_fn, "batch": batch}
        updates, state = tx.update(params, state, params, **arguments)
        return optax.apply_updates(params, updates), state

    with jax.set_mesh(mesh):
        state = tx.init(params)
        found, new_state = jax.jit(step)(params, state, batch)
    alone = optax.chain(optim.m_sam(optim.gsam(0.1), 4), optax.sgd(0.1, momentum=0.9))
    wanted, _ = step(problem.params, alone.init(problem.params), problem.batch, alone)
    assert_trees_close(jax.device_get(found), wanted)
    for old, new in ((params, found), (state[1], new_state[1])):
        for before, after in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
            # Where axes are automatic XLA chooses what becomes of a small, replicated array.
            if types == "explicit" or is_kernel(before):
                assert after.sharding.is_equivalent_to(before.sharding, before.ndim)


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_a_batch_that_is_not_split(strategy, types):
    problem, mesh = NETS["dense"], make_mesh(types, names=("model",))
    params = jax.tree.map(
        lambda w: put(mesh, w, P(None, "model") if is_kernel(w) else P()), problem.params
    )
    tx = optim.m_sam(optim.sam(0.1), 4, strategy, batch_axes=())
    with jax.set_mesh(mesh):
        found = jax.jit(step_of(tx, problem))(params, put(mesh, problem.batch, P()))
    assert_trees_close(jax.device_get(found), update(tx, problem)[0])


# ---------------------------------------------------------------------------- what cannot be known


def test_several_automatic_axes_have_to_be_named():
    problem, mesh = NETS["dense"], make_mesh("auto", (4, 2), ("data", "fsdp"))
    with pytest.raises(ValueError, match=r"\('data', 'fsdp'\).*m_sam\(inner, m, batch_axes="):
        compiled(optim.m_sam(optim.sam(0.1), 4), problem, mesh)
    named = optim.m_sam(optim.sam(0.1), 4, batch_axes="data")
    size = sum(w.size for w in jax.tree.leaves(problem.params))
    assert communication(compiled(named, problem, mesh)) == {"all-reduce": size}
    explicit = make_mesh("explicit", (4, 2), ("data", "fsdp"))
    nothing_named = compiled(optim.m_sam(optim.sam(0.1), 4), problem, explicit)
    assert communication(nothing_named) == {"all-reduce": size}
    with pytest.raises(ValueError, match="leaves out.*fsdp.*name all of them"):
        compiled(named, problem, explicit, ("data", "fsdp"))


def test_the_mesh_may_be_set_or_given():
    problem, mesh = NETS["dense"], make_mesh("auto")
    tx = optim.m_sam(optim.sam(0.1), 4, batch_axes="data")
    step = step_of(tx, problem)
    size = sum(w.size for w in jax.tree.leaves(problem.params))
    with jax.set_mesh(mesh):  # arrays that do not lie on it
        program = jax.jit(step).lower(problem.params, problem.batch).compile()
    assert communication(program) == {"all-reduce": size}
    given = optim.m_sam(optim.sam(0.1), 4, batch_axes="data", mesh=mesh)
    assert_trees_close(
        jax.jit(step_of(given, problem))(problem.params, problem.batch),
        update(optim.m_sam(optim.sam(0.1), 4), problem)[0],
    )
    with pytest.raises(
        ValueError, match=r"neither the batch lies on a mesh.*device_put.*mesh=mesh"
    ):
        jax.jit(step)(problem.params, problem.batch)
    with pytest.raises(ValueError, match=r"names 'batch'; the axes of the mesh are \('data',\)"):
        compiled(optim.m_sam(optim.sam(0.1), 4, batch_axes="batch"), problem, mesh)
    twelve = problem._replace(batch=jax.tree.map(lambda x: x[:12], problem.batch))
    with pytest.raises(ValueError, match="12 examples, which the 8 devices.*multiple of 8"):
        jax.jit(step_of(given, twelve))(twelve.params, twelve.batch)


def test_a_shard_map_of_the_callers_is_left_alone():
    problem, mesh = NETS["dense"], make_mesh("auto", (4, 2), ("data", "model"))
    tx = optim.m_sam(optim.sam(0.1), 4, axis_name="data")
    step = jax.shard_map(
        step_of(tx, problem),
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
        axis_names={"data"},
    )
    found = jax.jit(step)(put(mesh, problem.params, P()), put(mesh, problem.batch, P("data")))
    assert_trees_close(found, update(tx_alone(4), problem)[0])


def tx_alone(m):
    return optim.m_sam(optim.sam(0.1), m)


def test_constraints_of_the_model_must_not_name_the_axes_of_the_batch():
    problem, mesh = NETS["dense"], make_mesh("auto")

    def loss_fn(params, batch):
        x = jax.lax.with_sharding_constraint(batch["x"], NamedSharding(mesh, P("data")))
        return problem.loss_fn(params, batch | {"x": x})

    constrained = problem._replace(loss_fn=loss_fn)
    with pytest.raises(ValueError, match="Manual"):  # JAX's own, when the program is lowered
        compiled(tx_alone(4), constrained, mesh)
    left = compiled(optim.m_sam(optim.sam(0.1), 4, batch_axes=()), constrained, mesh)
    found = left(put(mesh, problem.params, P()), put(mesh, problem.batch, P("data")))
    assert_trees_close(found, update(tx_alone(4), problem)[0])


def test_closures_over_an_explicit_mesh_are_explained_and_shared_is_the_way():
    problem, mesh = NETS["dense"], make_mesh("explicit")
    tx = tx_alone(4)

    def grad_fn(params, batch, shared):
        return jax.tree.map(lambda g: shared * g, problem.grad_fn(params, batch))

    def closing(params, batch, factor):
        def closed(params, batch):
            return grad_fn(params, batch, factor)

        return tx.update(params, tx.init(params), params, grad_fn=closed, batch=batch)[0]

    def sharing(params, batch, factor):
        arguments = {"grad_fn": grad_fn, "batch": batch, "shared": factor}
        return tx.update(params, tx.init(params), params, **arguments)[0]

    arguments = (
        put(mesh, problem.params, P()),
        put(mesh, problem.batch, P("data")),
        put(mesh, jnp.float32(2), P()),
    )
    with pytest.raises(ValueError, match="cannot close over.*shared=tree.*axis_types"):
        jax.jit(closing)(*arguments)
    wanted = jax.tree.map(lambda g: 2 * g, update(tx, problem)[0])
    assert_trees_close(jax.jit(sharing)(*arguments), wanted)
    automatic = make_mesh("auto")
    arguments = [put(automatic, x, P("data") if i == 1 else P()) for i, x in enumerate(arguments)]
    assert_trees_close(jax.jit(closing)(*arguments), wanted)
    assert not trees_close(wanted, update(tx, problem)[0])


# ---------------------------------------------------------------------------- outside jit


def test_the_loop_outside_jit_compiles_nothing_in_a_second_step():
    problem = problems.dense_net()
    grad_fn = jax.jit(problem.grad_fn)
    tx = optim.m_sam(optim.sam(0.1), 2, "scan")
    state = tx.init(problem.params)

    def step():
        arguments = {"grad_fn": lambda *x: grad_fn(*x), "batch": problem.batch}
        return tx.update(problem.params, state, problem.params, **arguments)[0]

    step()
    compilations = []

    def listen(event, duration, **_):
        compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    step()
    assert [event for event in compilations if "compile" in event] == []
    jax.jit(lambda x: x * 17.0)(1.0)
    assert any("compile" in event for event in compilations)
