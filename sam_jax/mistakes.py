"""A user's mistake: one sentence and exit code 2, where a fault of the program has a traceback."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

CODE = 2  # with which a command ends
VARIABLE = "SAM_JAX_TRACEBACK"
FLAG = "traceback"
_OF_PATHS = (
    *(FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
    PermissionError,
)


class UserMistake(ValueError):
    """What the user asked for cannot be done; the message says what was given and what to do."""


@contextlib.contextmanager
def checking() -> Iterator[None]:
    """Turn a ValueError of the block into a UserMistake.

    The block may do nothing but check what a user gave: there a ValueError says what is wrong with
    it. Elsewhere it is a fault of the program.

    >>> with checking():
    ...     raise ValueError("epochs must be a whole number from 1 on, got 0.")
    Traceback (most recent call last):
    sam_jax.mistakes.UserMistake: epochs must be a whole number from 1 on, got 0.
    """
    try:
        yield
    except UserMistake:
        raise
    except ValueError as error:
        raise UserMistake(str(error)) from error


@contextlib.contextmanager
def one_sentence(arguments: Sequence[str] | None = None) -> Iterator[None]:
    """End the process with one line and exit code 2 where the block meets a user's mistake.

    A mistake is a `UserMistake`, or an error of the system about a path that is missing or closed.
    All other errors go on, as do these where a traceback is asked for.

    Args:
      arguments: of the command line, where `--traceback` asks for it; None for those of this
        process. The environment variable SAM_JAX_TRACEBACK=1 asks for it too.
    """
    try:
        yield
    except (UserMistake, *_OF_PATHS) as error:
        if wants_traceback(arguments):
            traceback.print_exc()
        else:
            print(sentence(error), file=sys.stderr)
        sys.exit(CODE)


def is_mistake(error: BaseException) -> bool:
    """Say whether an error is one that `one_sentence` tells in a line."""
    return isinstance(error, (UserMistake, *_OF_PATHS))


def sentence(error: BaseException) -> str:
    r"""Return the message of an error in one line.

    >>> sentence(UserMistake("Two\n  lines."))
    'Two lines.'
    >>> sentence(PermissionError(13, "Permission denied", "/root/runs"))
    'Permission denied: /root/runs'
    """
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split())


def first_of(texts: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """Return the first of some texts in a line, and how many more there are.

    >>> first_of(["losses[1]", "losses[2]", "losses[3]", "losses[4]", "sharpness"])
    'losses[1], losses[2], losses[3] and 2 more'
    >>> first_of(["rho (was 0.1, is 0.2)", "m (was 8, is 4)"], most=1, between="; ")
    'rho (was 0.1, is 0.2); and 1 more'
    """
    more = len(texts) - most
    rest = f"{between.strip(', ')} and {more} more" if more > 0 else ""
    return between.join(texts[:most]) + rest


def wants_traceback(arguments: Sequence[str] | None = None) -> bool:
    """Say whether the user asks for tracebacks, by a flag or the environment.

    Args:
      arguments: as in `one_sentence`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = any(x.lstrip("-").split("=")[0] == FLAG for x in arguments if x.startswith("-"))
    return asked or os.environ.get(VARIABLE, "") not in ("", "0")
