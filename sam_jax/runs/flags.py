"""What the command lines of all commands share: the flag of the config, and how they are run."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import app, flags

from sam_jax import mistakes
from sam_jax.mistakes import UserMistake, one_sentence
from sam_jax.runs import (
    compilation_cache,
    config_flag,
    disk,
    distributed,
    heartbeat,
    quick_compilation,
    signals,
)

flags.disclaim_key_flags()  # --help shows it as the command's own

_HELP = "--help shows the flags of this command."
EXIT_CODES = """
Exit codes:
  0    all is done
  1    something failed: a fault of the program, a full disk, a run that was stopped by numbers that
       are not finite, or one that is missing in a report
  2    a mistake in the command line, a config or a path: one sentence says it, nothing is written
  128 + N  signal N ended it; the same command goes on from there

After ten seconds without news a line says what is computed or compiled. No colours are used.
"""


def define_config(default: str | None = None) -> flags.FlagHolder:
    """Define --config and the --config.FIELD of its fields, and return its value's holder."""
    with one_sentence(), _flag_errors():
        return config_flag.define(default)


def define_workdir(words: str) -> flags.FlagHolder:
    """Define --workdir, which every command needs, and return its value's holder.

    Args:
      words: what the folder is.
    """
    holder = flags.DEFINE_string("workdir", None, f"{words} Always needed.", required=True)
    flags.register_validator(
        "workdir",
        lambda value: value is None or bool(value.strip()),
        "it must name a folder, and '' names none.",
    )
    return holder


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
    for None. It is 0 after help, where `absl.app.run` gives 1. A mistake of the user is one
    sentence and the code 2, with a traceback where --traceback asks for it. A `main` that handles
    signals ends with 128 + signal, and one that meets a full disk with 1.
    Programs that are compiled are kept for the next command.
    """
    flags.DEFINE_bool(
        mistakes.FLAG, False, f"Show the traceback of a mistake, as does {mistakes.VARIABLE}=1."
    )

    def among_processes(argv: Sequence[str]) -> int | None:
        compilation_cache.turn_on()
        quick_compilation.collect_seldom()
        disk.said_once()
        values = flags.FLAGS.flag_values_dict()
        together = values.get("distributed")
        with distributed.processes(_cluster(values)) if together else contextlib.nullcontext():
            try:
                if values.get(config_flag.PRINT):
                    print(config_flag.description(is_whole=True))
                    return 0
                with _flag_errors(), heartbeat.beating():
                    return main(argv)
            except signals.Stopped as error:  # all processes together
                stopped = error
            except disk.NoRoom as error:
                if distributed.process_count() > 1 or mistakes.wants_traceback():
                    raise  # the other processes do not know
                print(error, file=sys.stderr)
                if error.errno in disk.CLOSED:
                    return mistakes.CODE
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(1)  # what writes in the background would try again at an orderly end
        signals.end(stopped)

    with one_sentence():
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
    names = [x.lstrip("-").split("=")[0] for x in arguments if x.startswith("-")]
    if config_flag.PRINT in names and "workdir" in flags.FLAGS:
        arguments = [*arguments, "--workdir=."]  # which is needed for nothing
    try:
        with _flag_errors():
            return flags.FLAGS(arguments)
    except SystemExit as end:  # the flags of help end the process as soon as they are read
        if end.code == mistakes.CODE:
            raise
        print(EXIT_CODES)
        sys.exit(0)


# What absl says of a value of another type, and what it means.
_WORDS = (
    (r"flag --(\w+)=None: Flag --\w+ must have a value other than None", r"--\1 is missing"),
    (r"\('Non-boolean argument to boolean flag', (.*)\)", r"must be true or false, got \1"),
    (r"invalid literal for int\(\) with base 10: (.*)", r"must be a whole number, got \1"),
    (r"could not convert string to float: (.*)", r"must be a number, got \1"),
)


@contextlib.contextmanager
def _flag_errors() -> Iterator[None]:
    """Turn the errors of flags, and of what is left of a command line, into user's mistakes."""
    try:
        yield
    except app.UsageError as error:
        raise UserMistake(f"{error}. {_HELP}") from error
    except flags.Error as error:
        message = str(error)
        for pattern, words in _WORDS:
            message = re.sub(pattern, words, message)
        end = "" if message.endswith("?") else "."
        raise UserMistake(f"{message.rstrip('.')}{end} {_HELP}") from error
