"""The settings of the instruments: a run's own, and defaults for settings that its config lacks."""

from typing import Any

import ml_collections

from sam_jax.measuring import registry
from sam_jax.measuring.instrument import Instrument
from sam_jax.runs import fields, old_configs, records, workdirs
from sam_jax.runs.fields import Field, like, whole

# Records of the first instruments name one digest of all their groups, as they always did. A later
# instrument's records name the digest of its own group. The evaluation has no settings.
_TOGETHER = (
    *("adversarial", "average", "asymmetry", "curve"),
    *("asymmetry_index", "level_set_widths", "hessian"),
)
_WITHOUT = "evaluation"


def defaults(smoke: bool = False) -> dict[str, dict[str, Any]]:
    """Return the group of every instrument that has settings, with its defaults.

    Args:
      smoke: give them the values of the smoke variant of a config.
    """
    return {
        instrument.group: {**instrument.settings, **(instrument.smoke if smoke else {})}
        for instrument in registry.INSTRUMENTS
        if instrument.settings
    }


def completed(settings: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return the group `instruments` of a config with defaults for the settings that it lacks.

    The config of a run that is older than an instrument has no group for it.
    """
    found = ml_collections.ConfigDict(settings)  # a copy
    with found.unlocked():
        for group, fields in defaults().items():
            own = found.get(group, ml_collections.ConfigDict())
            with own.unlocked():
                for name in fields.keys() - own.keys():
                    own[name] = fields[name]
            found[group] = own
    return found


def settings_digest(settings: ml_collections.ConfigDict, instrument: Instrument) -> str:
    """Return the short name of the settings that a record of an instrument carries.

    Defaults that were filled in count, so that other defaults make other records.

    Args:
      settings: the group `instruments` of the run's config, as it is there.
      instrument: the one that measures.
    """
    return records.digest(relevant(settings, (instrument,)))


def relevant(
    settings: ml_collections.ConfigDict, instruments: tuple[Instrument, ...]
) -> dict[str, Any]:
    """Return the settings that records of some instruments depend on, as JSON holds them.

    Args:
      settings: the group `instruments` of the run's config, as it is there.
      instruments: those that measure.

    Returns:
      What all share, such as the seed, and the groups of these instruments.
    """
    own = {instrument.group for instrument in instruments}
    together = _TOGETHER if own & {*_TOGETHER, _WITHOUT} else ()
    others = defaults().keys() - own
    kept = {
        name: value
        for name, value in workdirs.plain(settings).items()
        if name not in others or name in together
    }
    if "batch_size" in kept:
        kept["batch_size"] = old_configs.pass_as_before(kept["batch_size"])
    whole = workdirs.plain(completed(settings))
    return kept | {group: whole.get(group, {}) for group in own - {_WITHOUT}}


def fields_of_instruments() -> dict[str, Field]:
    """Return what every field of the group `instruments` may hold."""
    table = {"seed": whole(0, 2**32 - 1), "examples": whole(0), "batch_size": whole(1)}
    for instrument in registry.INSTRUMENTS:
        for name, default in instrument.settings.items():
            table[f"{instrument.group}.{name}"] = instrument.ranges.get(name, like(default))
    return table


def check(settings: ml_collections.ConfigDict, prefix: str = "instruments.") -> None:
    """Raise a ValueError that names the first field of the group `instruments` that cannot be.

    Args:
      settings: the group; it may lack the groups of instruments that are newer.
      prefix: before the names in the error.
    """
    whole_group = completed(settings)
    fields.check(whole_group, fields_of_instruments(), prefix=prefix)
    top = whole_group.top_eigenvalues
    at_most = whole(1, top.steps)  # an eigenvalue a step of Lanczos
    fields.check_value(f"{prefix}top_eigenvalues.count", top.count, at_most)
