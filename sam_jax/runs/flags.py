"""The flag that every command of a run has."""

from absl import flags
from ml_collections import config_flags

flags.disclaim_key_flags()  # --help shows it as the command's own


def define_config(default: str | None = None) -> flags.FlagHolder:
    """Define --config and the --config.FIELD of its fields, and return its value's holder."""
    return config_flags.DEFINE_config_file("config", default, "The config file.", lock_config=True)
