"""What the command lines of all commands share: the flag of the config, and how they are run."""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from sam_jax.runs import compilation_cache, distributed, quick_compilation

flags.disclaim_key_flags()  # --help shows it as the command's own


def define_config(default: str | None = None) -> flags.FlagHolder:
    """Define --config and the --config.FIELD of its fields, and return its value's holder."""
    return config_flags.DEFINE_config_file("config", default, "The config file.", lock_config=True)


def define_distributed() -> None:
    """Define --distributed and the flags that say where the processes of a run are."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "Work with other processes: those that Slurm or another cluster started, or those that the "
        "three flags below name. Start every one with the same line.",
    )
    flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, port open there.")
    flags.DEFINE_integer("process_count", None, "The number of processes.")
    flags.DEFINE_integer("process_index", None, "The number of this process, from 0 on.")
    default = distributed.Cluster()
    flags.DEFINE_integer(
        "start_timeout", default.start_timeout, "Seconds until all processes have to be there."
    )
    flags.DEFINE_integer(
        "silence_timeout",
        default.silence_timeout,
        "Seconds without a sign of life after which a process is given up, and all others end.",
    )
    names = ("distributed", *distributed.Cluster._fields)
    flags.register_multi_flags_validator(names, _check_distributed)


def run_command(main: Callable[[Sequence[str]], int | None]) -> None:
    """Parse the flags of a command, call `main` with what is left of its line, and exit.

    With --distributed it runs among the other processes. The exit code is what `main` returns, 0
    for None. It is 0 after help, where `absl.app.run` gives 1, and 2 for flags that are wrong.
    Programs that are compiled are kept for the next command.
    """

    def among_processes(argv: Sequence[str]) -> int | None:
        compilation_cache.turn_on()
        quick_compilation.collect_seldom()
        values = flags.FLAGS.flag_values_dict()
        together = values.get("distributed")
        with distributed.processes(_cluster(values)) if together else contextlib.nullcontext():
            return main(argv)

    app.run(among_processes, flags_parser=_parse)


def _cluster(values: Mapping[str, Any]) -> distributed.Cluster:
    return distributed.Cluster(*(values[field] for field in distributed.Cluster._fields))


def _check_distributed(values: Mapping[str, Any]) -> bool:
    cluster = _cluster(values)
    try:
        if not values["distributed"] and cluster != distributed.Cluster():
            raise ValueError("the flags of several processes need --distributed.")
        distributed.check(cluster)
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error
    return True


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except SystemExit:  # the flags of help end the process as soon as they are read
        sys.exit(0)
    except flags.Error as error:
        print(f"{error}\n--help shows the flags of this command.", file=sys.stderr)
        sys.exit(2)
