"""The number m of examples that share a perturbation: the machine sets it, and a run keeps it.

With `method.m = 0` it is the share of one device, batch_size / devices, or of several that
`method.synchronise` puts together: the same config perturbs on 32 examples with one device and on
8 with four. The devices here are those of the axes of `config.mesh` that split the batch. So every
record of an epoch gives m, and a run only goes on with the m that it began with.
"""

import pathlib
from typing import NamedTuple

import jax
import ml_collections

from sam_jax.mistakes import checking
from sam_jax.runs.mesh_axes import mesh_axes, share_count
from sam_jax.runs.records import Record


def examples_per_perturbation(
    method: ml_collections.ConfigDict, batch_size: int, devices: int
) -> int:
    """Return m, the examples that share a perturbation.

    Args:
      method: the group `method` of a config. `synchronise` says over how many devices the gradient
        of the perturbation is averaged, and `m` says the same in examples.
      batch_size: over all devices.
      devices: those that the batch is split over.

    Raises:
      ValueError: `synchronise` is not "local", "all" or a number that divides the devices, or `m`
        is set as well.
    """
    share, group = batch_size // devices, str(method.synchronise)
    if group == "local":
        return method.m or share
    if method.m:
        raise ValueError(
            f"method.synchronise = {group!r} and method.m = {method.m} both say how many examples "
            "share a perturbation; leave synchronise at 'local', or m at 0."
        )
    if group == "all":
        return batch_size
    if not group.isdecimal() or not int(group) or devices % int(group):
        raise ValueError(
            "method.synchronise must be 'local', 'all' or a number of devices that divides the "
            f"{devices} that split the batch, got {method.synchronise!r}."
        )
    return int(group) * share


class Machine(NamedTuple):
    """The fields that each epoch's record has of the machine."""

    m: int  # examples that share a perturbation
    device_count: int  # over all processes
    process_count: int


def this_machine(config: ml_collections.ConfigDict) -> Machine:
    """Return the m and the devices that a config trains with, as JAX sees them here."""
    shares = share_count(mesh_axes(config.mesh, jax.device_count()))
    m = examples_per_perturbation(config.method, config.batch_size, shares)
    return Machine(m, jax.device_count(), jax.process_count())


@checking()
def check_same_m(
    workdir: pathlib.Path, config: ml_collections.ConfigDict, record: Record | None
) -> None:
    """Raise a ValueError where a run would go on with another m because the devices are others.

    An m that the config names is its user's choice, and another m is a change of the config.

    Args:
      workdir: the folder of the run, for the message.
      config: the config that the run would go on with.
      record: of the last epoch that is kept; None, or one without m as runs once wrote them, says
        nothing about the machine and is let through.

    Raises:
      ValueError: m would be another one; the message says which to set.
    """
    chosen = config.method.m or config.method.synchronise == "all"
    if record is None or "m" not in record or chosen:
        return
    here = this_machine(config)
    before = Machine(*(record[name] for name in Machine._fields))
    if here.m == before.m or here.device_count == before.device_count:
        return
    local = "" if config.method.synchronise == "local" else " --config.method.synchronise=local"
    raise ValueError(
        f"{workdir} was trained with m = {before.m} on {_devices(before)}. With method.m = 0, m "
        f"follows from the devices, and on the {_devices(here)} here it is {here.m}. To go on with "
        f"the same m, set --config.method.m={before.m}{local} and, as this changes the config, "
        "--accept_config_changes; or use as many devices as before."
    )


def _devices(machine: Machine) -> str:
    count, processes = machine.device_count, machine.process_count
    devices = f"{count} device" + ("s" if count > 1 else "")
    return f"{devices} in {processes} processes" if processes > 1 else devices
