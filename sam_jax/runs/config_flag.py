"""The flag --config: a config file with its variant, and the fields that --config.FIELD sets.

--print_config shows what a config changes of its base.

What is wrong with either is one sentence; ml_collections alone answers with its own errors.
"""

import ast
import pathlib
import re
import runpy
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from sam_jax.mistakes import UserMistake
from sam_jax.runs import config_changes, fields
from sam_jax.suggestions import did_you_mean

flags.disclaim_key_flags()  # --help shows it as the command's own

NAME = "config"
PRINT = "print_config"
_HELP = (
    "The config file, such as configs/digits.py. With :smoke behind it all takes seconds, and the "
    "numbers mean nothing. --config.FIELD=VALUE sets a field, such as --config.method.rho=0.1."
)
_OVERRIDE = re.compile(rf"--?(?:no)?{NAME}\.([^=]*)(?:=(.*))?", re.DOTALL)


def define(default: str | None = None) -> flags.FlagHolder:
    """Define --config and the --config.FIELD of its fields, and return its value's holder.

    Args:
      default: the config file where none is given.
    """
    words = f"{_HELP} By default {default}." if default else _HELP
    holder = config_flags.DEFINE_config_file(NAME, None, words, lock_config=True)
    flags.DEFINE_bool(
        PRINT, False, "Print what the config changes of its base, and do nothing else."
    )
    flags.FLAGS[NAME].parser = _Parser()
    if default is not None:
        flags.FLAGS.set_default(NAME, default)
    return holder


def read_config(path: str) -> ml_collections.ConfigDict:
    """Return the config of a file, such as "configs/digits.py" or "configs/digits.py:smoke".

    Args:
      path: of a Python file with a function `get_config`, and after a colon its variant.

    Raises:
      UserMistake: there is no such file, it is no config, or it refuses the variant.
    """
    _, colon, variant = path.partition(":")
    get_config = _executed(path)["get_config"]
    try:
        config = get_config(variant) if colon else get_config()
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserMistake(f"The config of {path} cannot be made: {kind}{error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        file = path.partition(":")[0]
        raise UserMistake(
            f"get_config of {file} must return a ConfigDict, got {type(config).__name__}."
        )
    return config


def description(apart: str = "", is_whole: bool = False) -> str:
    """Return what the config of the command line changes of its base, a field a line.

    Args:
      apart: a group whose changes are counted alone.
      is_whole: show long values whole.
    """
    parser: Any = flags.FLAGS[NAME].parser
    config: Any = flags.FLAGS[NAME].value
    base = config_changes.base_of(parser.path.partition(":")[0], _executed(parser.path), config)
    return config_changes.as_text(parser.path, base, config, apart, is_whole)


def _executed(path: str) -> dict[str, Any]:
    """Return what the file of a config defines, a `get_config` among it."""
    file = path.partition(":")[0]
    if not pathlib.Path(file).is_file():
        beside = pathlib.Path(file).parent.glob("*.py")
        near = did_you_mean(file, [str(other) for other in beside])
        raise UserMistake(f"There is no config file {file!r}.{near}")
    try:
        found = runpy.run_path(file)
    except Exception as error:
        raise UserMistake(f"{file} is no config: {type(error).__name__}: {error}") from error
    if not callable(found.get("get_config")):
        raise UserMistake(f"{file} is no config: it has no function get_config.")
    return found


class _Parser(flags.ArgumentParser):
    path = ""  # of the config, with its variant

    def parse(self, path: str) -> ml_collections.ConfigDict:
        """Return the config of a file whose fields the command line can set as it says."""
        config, self.path = read_config(path), path
        arguments = flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False)
        for name, value in _overrides(arguments):
            _check_override(config, name, value)
        return config.lock()


def _overrides(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the fields that arguments set, and the texts of their values."""
    for argument, after in zip(arguments, [*arguments[1:], None], strict=True):
        found = _OVERRIDE.fullmatch(argument)
        if found:
            yield found[1], after if found[2] is None else found[2]


def _check_override(config: ml_collections.ConfigDict, name: str, value: str | None) -> None:
    group: object = config
    for part in name.split("."):
        if not isinstance(group, ml_collections.ConfigDict) or part not in group:
            near = did_you_mean(name, dict(fields.leaves(config)))
            raise UserMistake(f"--{NAME}.{name}: the config has no field {name}.{near}")
        group = group[part]
    if value is not None and _type_of(config, name) is tuple:
        try:
            is_tuple = isinstance(ast.literal_eval(value), tuple | list)
        except (ValueError, SyntaxError):
            is_tuple = False
        if not is_tuple and value != "None":
            raise UserMistake(
                f"--{NAME}.{name} must be a tuple, such as {_example(value)}, got {value}"
            )


def _type_of(config: ml_collections.ConfigDict, name: str) -> type:
    """Return the type of a field, of a placeholder the type of what it stands for."""
    *groups, field = name.split(".")
    for group in groups:
        config = config[group]
    return config.get_type(field)


def _example(value: str) -> str:
    """Return a tuple of one item as a shell takes it.

    >>> print(_example("flip"), _example("3"))
    '("flip",)' '(3,)'
    """
    try:
        item = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        item = value
    inside = f'"{item}"' if isinstance(item, str) else repr(item)
    return f"'({inside},)'"
