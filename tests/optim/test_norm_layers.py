"""The choice of normalisation layers by their names and classes, on layers of each library."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_jax import leaves_where, norm_layers, optim

RHO = 0.4


class LinenNet(nn.Module):
    """Every norm layer of linen, under its own and under given names, between dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4)(x)
        x = nn.BatchNorm(use_running_average=False)(x)
        x = nn.LayerNorm()(x)
        x = nn.GroupNorm(num_groups=2)(x)
        x = nn.RMSNorm()(x)
        x = nn.InstanceNorm(feature_axes=-1)(x[:, None])[:, 0]
        x = nn.LayerNorm(name="ln_f")(x)
        x = nn.BatchNorm(use_running_average=False, name="bn1")(x)
        x = nn.LayerNorm(name="post_norm")(x)
        x = nn.WeightNorm(nn.Dense(4, name="normal"))(x)
        x = nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=(-2, -1), name="two_axes_norm")(
            x.reshape(-1, 2, 2)
        )
        return nn.Dense(1, name="pre_norm_block")(x.reshape(-1, 4))[:, 0]


LINEN_NORMS = {
    *("BatchNorm_0", "LayerNorm_0", "GroupNorm_0", "RMSNorm_0", "InstanceNorm_0"),
    *("ln_f", "bn1", "post_norm", "two_axes_norm"),
}


def linen_params():
    return jax.eval_shape(LinenNet().init, jax.random.key(0), jnp.ones((2, 3)))["params"]


def chosen(mask):
    """The layers of which some, and those of which all leaves are chosen; they are the same."""
    some = {name for name, layer in mask.items() if any(jax.tree.leaves(layer))}
    every = {name for name, layer in mask.items() if all(jax.tree.leaves(layer))}
    assert some == every
    return some


def test_linen_layers():
    params = linen_params()
    assert chosen(norm_layers(params)) == LINEN_NORMS
    # "pre_norm_block" is a dense layer under a name that misleads, which its kernel tells.
    assert {"Dense_0", "normal", "WeightNorm_0", "pre_norm_block"} < params.keys()
    assert params["two_axes_norm"]["scale"].ndim == params["pre_norm_block"]["kernel"].ndim
    nested = {"block": params, "head_norm": {"Dense_0": params["Dense_0"]}}
    mask = norm_layers(nested)
    assert mask["block"] == norm_layers(params)
    assert not any(jax.tree.leaves(mask["head_norm"]))  # only the innermost layer counts


class NNXNet(nnx.Module):
    """Norm layers of NNX as attributes of names that tell."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.norm1 = nnx.LayerNorm(4, rngs=rngs)
        self.groupNorm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.out_ln = nnx.RMSNorm(4, rngs=rngs)


@pytest.mark.parametrize("form", ["state", "pure"])
def test_nnx_layers(form):
    params = nnx.state(NNXNet(nnx.Rngs(0)), nnx.Param)
    params = params if form == "state" else nnx.to_pure_dict(params)
    assert chosen(dict(norm_layers(params))) == {"bn", "norm1", "groupNorm", "out_ln"}


def test_equinox_layers():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 2)
    layers = [eqx.nn.Linear(3, 4, key=keys[0]), eqx.nn.LayerNorm(4), eqx.nn.GroupNorm(2, 4)]
    # In a list no name tells, but the class does; a linear layer is none whatever its name.
    model = {"body": layers, "norm": eqx.nn.Linear(4, 1, key=keys[1]), "last": eqx.nn.RMSNorm(4)}
    mask = norm_layers(eqx.filter(model, eqx.is_inexact_array))
    assert jax.tree.leaves(mask["body"][0]) == [False, False]
    assert jax.tree.leaves(mask["body"][1:]) == [True] * 4
    assert jax.tree.leaves(mask["norm"]) == [False, False]
    assert jax.tree.leaves(mask["last"]) == [True, True]


# Layers under a name with "norm" in it, by what they hold.
HOLDINGS = {
    "vectors": ({"scale": (4,), "offset": (4,)}, True),
    "a vector under any name": ({"w": (4,)}, True),
    "layers of a scan": ({"scale": (12, 4), "bias": (12, 4)}, True),
    "a dense layer": ({"kernel": (4, 2), "bias": (2,)}, False),
    "without a bias": ({"w": (4, 2)}, False),
    "a convolution": ({"weight": (3, 3, 4, 2), "bias": (2,)}, False),
}


@pytest.mark.parametrize("kind", HOLDINGS)
def test_what_a_layer_holds_tells_where_its_name_misleads(kind):
    shapes, is_norm = HOLDINGS[kind]
    layer = {name: jnp.ones(shape) for name, shape in shapes.items()}
    params = {"pre_norm_block": layer, "LayerNorm_1": {"kernel": jnp.ones((2, 2))}}
    mask = norm_layers(params)
    assert mask["pre_norm_block"] == dict.fromkeys(shapes, is_norm)
    assert mask["LayerNorm_1"] == {"kernel": True}  # the class in a name of Flax is certain


def test_a_predicate_takes_the_place_of_the_names():
    params = {"ada": {"scale": jnp.ones(2)}, "Dense_0": {"kernel": jnp.ones((2, 2))}}
    with pytest.raises(ValueError, match="leaves_where"):
        norm_layers(params)
    gradients = jax.tree.map(jnp.ones_like, params)
    tx = optim.sam_on(RHO, mask=leaves_where(lambda path, leaf: path.startswith("ada/")))
    result, _ = tx.gradient(lambda w: (gradients, None), params, tx.init(params))
    np.testing.assert_allclose(jnp.linalg.norm(result.epsilon["ada"]["scale"]), RHO, rtol=1e-6)
    assert not np.any(result.epsilon["Dense_0"]["kernel"])


@pytest.mark.parametrize(
    ("layer", "is_norm"),
    [
        ("net/~/batch_norm", True),  # Haiku
        ("net/layer_norm/linear", False),
        ("encoder_norm", True),
        ("query_ln", True),
        ("gn2", True),
        ("LN", True),
        ("normal_head", False),
        ("normaliser", False),
        ("enormous", False),
        ("weight_norm", False),
        ("SpectralNorm_0", False),
        ("lnorm0", True),
        ("balance", False),
        ("bnb", False),
    ],
)
def test_names(layer, is_norm):
    params = {layer: {"w": jnp.ones(2)}, "BatchNorm_0": {"scale": jnp.ones(2)}}
    assert norm_layers(params) == {layer: {"w": is_norm}, "BatchNorm_0": {"scale": True}}


def test_parameters_without_norm_layers_are_refused():
    params = {"Dense_0": {"kernel": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"No parameter.*Dense_0/kernel.*Give mask"):
        norm_layers(params)
    with pytest.raises(ValueError, match="Give mask"):
        optim.sam_on(RHO).update(
            params, optim.sam_on(RHO).init(params), params, grad_fn=lambda w: w
        )


class SmallNet(nn.Module):
    """A norm layer between dense layers."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x))))[:, 0]


def test_sam_on_moves_the_norm_layer_of_a_network_by_rho():
    x = jax.random.normal(jax.random.key(1), (8, 3))
    params = jax.jit(SmallNet().init)(jax.random.key(0), x)["params"]
    seen = []

    @jax.jit
    @jax.grad
    def gradient(params):
        output, _ = SmallNet().apply({"params": params}, x, mutable=["batch_stats"])
        return jnp.mean((output - x[:, 0]) ** 2)

    def grad_fn(params):
        seen.append(params)
        return gradient(params)

    tx = optim.sam_on(RHO)
    tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
    moved = jax.tree.map(jnp.subtract, seen[1], params)
    assert all(np.all(e == 0) for e in jax.tree.leaves((moved["Dense_0"], moved["Dense_1"])))
    scale, shift = moved["BatchNorm_0"]["scale"], moved["BatchNorm_0"]["bias"]
    np.testing.assert_allclose(jnp.linalg.norm(jnp.concatenate([scale, shift])), RHO, rtol=1e-5)
    assert np.any(scale) and np.any(shift)
