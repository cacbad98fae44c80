"""What the command lines of all commands share: the flag of the config, and how they are run."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from ml_collections import config_flags

from sam_jax.runs import compilation_cache

flags.disclaim_key_flags()  # --help shows it as the command's own


def define_config(default: str | None = None) -> flags.FlagHolder:
    """Define --config and the --config.FIELD of its fields, and return its value's holder."""
    return config_flags.DEFINE_config_file("config", default, "The config file.", lock_config=True)


def run_command(main: Callable[[Sequence[str]], int | None]) -> None:
    """Parse the flags of a command, call `main` with what is left of its line, and exit.

    The exit code is what `main` returns, 0 for None. It is 0 after help, where `absl.app.run` gives
    1, and 2 for flags that are wrong.
    Programs that are compiled are kept for the next command.
    """

    def with_cache(arguments: Sequence[str]) -> int | None:
        compilation_cache.turn_on()
        return main(arguments)

    app.run(with_cache, flags_parser=_parse)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except SystemExit:  # the flags of help end the process as soon as they are read
        sys.exit(0)
    except flags.Error as error:
        print(f"{error}\n--help shows the flags of this command.", file=sys.stderr)
        sys.exit(2)
