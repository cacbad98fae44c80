"""The folder of a run: its config, and the refusal to mix two configs in one folder.

Of several processes the first one looks at the folder and writes to it.
"""

import json
import pathlib
import re
import zlib
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from sam_jax.mistakes import UserMistake, first_of
from sam_jax.runs import checksums, disk, fields, old_configs, records
from sam_jax.runs.distributed import from_first
from sam_jax.typing import PyTree

REFUSAL = (
    "{workdir} belongs to a run with another config. Differing keys: {differing}. Choose another "
    "--workdir, or go on with the new config by --accept_config_changes."
)


_BESIDE = (".log", ".out", ".err", ".lock")  # where a shell or a cluster keeps what a run prints
_INSTRUMENT = re.compile(r"(training\.)?instruments\.\w+\.")
# How many images are evaluated in a pass bounds the memory, and how many steps are compiled into a
# call the time until a signal is answered. Neither changes a result: it may differ in
# a folder that was run before, and digests go on to name the pass of before.
_PASS = re.compile(r"(training\.)?(evaluation|instruments)\.batch_size|(training\.)?steps_per_call")
# What is measured, and when something is written, changes no weight.
_NO_WEIGHT = re.compile(r"(evaluation|instruments|checkpoint)\..*")
_SHOWN = 8  # differing keys that an error names
_EARLIER = "earlier_configs.jsonl"
_CHANGEABLE = re.compile(r"(training\.)?(" + "|".join(old_configs.CHANGEABLE_BEFORE) + ")")


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return a config as JSON would give it back: nested dicts, with lists for tuples."""
    return json.loads(config.to_json())


def plain_as_before(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return a config as JSON, without the fields that came later and hold what was done before.

    A digest of it is the same as that of a config from before these fields.

    Args:
      config: of a training.
    """
    return old_configs.without_later_fields(plain(config))


@disk.writes
def claim(
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    accept_config_changes: bool = False,
    refusal: str = REFUSAL,
) -> None:
    """Write config.json, or check that the one in the folder is the same.

    A folder that holds nothing but a config.json, a lock, or empty folders, belongs to a run that
    failed at once, and is free.

    Args:
      workdir: the folder of the run, made where it does not exist.
      config: the config to run.
      accept_config_changes: go on with the new config, which then replaces the old.
      refusal: what an error says, with places for {workdir} and the {differing} keys.

    Raises:
      ValueError: the folder belongs to a different config; the message names the differing keys.
    """
    if not accept_config_changes:
        refuse_another(workdir, config, refusal)

    def write() -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "config.json"
        text = json.dumps(plain(config), indent=2) + "\n"
        if path.exists() and path.read_bytes() == text.encode():
            return  # in a folder that may only be read, too
        if accept_config_changes and _others(workdir):
            _keep_earlier(workdir, config)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(path)

    from_first(write)


def refuse_another(
    workdir: pathlib.Path, config: ml_collections.ConfigDict, refusal: str = REFUSAL
) -> None:
    """Raise the error of `claim` where a folder belongs to a different config, and write nothing.

    Args:
      workdir: the folder of a run, which need not exist.
      config: the config to run.
      refusal: as in `claim`.
    """

    def find() -> list[str]:
        path = workdir / "config.json"
        if not path.exists():
            _refuse_other_files(workdir)
            return []
        return _differences(_read(path), plain(config)) if _others(workdir) else []

    differing = from_first(find)
    if differing:
        raise UserMistake(
            refusal.format(workdir=workdir, differing=first_of(differing, _SHOWN, "; "))
        )


def is_claimed(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> bool:
    """Say whether a folder belongs to a config already.

    Args:
      workdir: the folder of a run, which need not exist.
      config: the config to run.
    """

    def find() -> bool:
        path = workdir / "config.json"
        try:
            return path.exists() and not _differences(_read(path), plain(config))
        except UserMistake:
            return False  # it is damaged, and nobody knows

    return from_first(find)


def _refuse_other_files(workdir: pathlib.Path) -> None:
    """Raise a UserMistake where a folder holds something, and no config.json that says what."""
    if workdir.exists() and not workdir.is_dir():
        raise UserMistake(f"--workdir must name a folder, and {workdir} is a file.")
    others = sorted(workdir.iterdir()) if workdir.exists() else []
    found = [
        x.name
        for x in others
        if not x.name.startswith(".")
        and x.suffix not in _BESIDE
        and (x.is_file() or any(x.iterdir()))
    ]
    if found:
        raise UserMistake(
            f"{workdir} holds files of something else and no config.json, such as "
            f"{', '.join(found[:3])}; choose another --workdir."
        )


def config_and_log(workdir: pathlib.Path) -> tuple[dict[str, Any] | None, list[str] | None]:
    """Return what a folder holds beside a checkpoint that is saved: see `checkpoint_damage.About`.

    Returns:
      The config, and the checksums of the lines of metrics.jsonl; None for a file that is not
      there.
    """

    def read() -> tuple[dict[str, Any] | None, list[str] | None]:
        config, log = workdir / "config.json", workdir / "metrics.jsonl"
        return (
            _read(config) if config.exists() else None,
            checksums.of_lines(log.read_bytes()) if log.exists() else None,
        )

    config, log = from_first(read)
    return config, log


def refuse_other_origin(
    workdir: pathlib.Path, origin: dict[str, Any], what: str, tell: bool = True
) -> None:
    """Raise an error where a part of a folder is of another training than its config says.

    Configs that the folder had before `accept_config_changes` are its own, too. Other differences
    change no weight.

    Args:
      workdir: the folder of a run; one without a config is let through.
      origin: the config that the part was made with.
      what: the part, for the message.
      tell: whether to warn of differences that change no weight.

    Raises:
      ValueError: the message names the differing keys.
    """

    def find() -> list[str]:
        path = workdir / "config.json"
        if not path.exists():
            return []
        earlier = records.read(workdir / _EARLIER)
        if any(
            not _differences(old_configs.upgraded(record["config"]), origin) for record in earlier
        ):
            return []
        return _differences(old_configs.upgraded(origin), _read(path))

    differing = from_first(find)
    changing = [text for text in differing if not _NO_WEIGHT.fullmatch(text.split(" (was ")[0])]
    if changing:
        raise UserMistake(
            f"{what} is of a run with another config than {workdir / 'config.json'}. Differing "
            f"keys: {first_of(changing, _SHOWN, '; ')}. Put the right file back: a "
            "copy of this config.json, or a checkpoint of this run; without one, train in another "
            "--workdir."
        )
    if differing and tell:
        logging.warning(
            "%s was saved with other settings than %s has, which change no weight: %s.",
            what,
            workdir / "config.json",
            first_of(differing, _SHOWN, "; "),
        )


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Return the config that a folder was run with.

    Raises:
      FileNotFoundError: the folder has no config.json.
      ValueError: it is no config.
    """
    path = workdir / "config.json"
    found = from_first(lambda: _read(path) if path.exists() else None)
    if found is None:
        raise FileNotFoundError(
            f"{workdir} holds no config.json. Give the --workdir of a run, made by "
            "python -m sam_jax.train --config=... --workdir=..."
        )
    return ml_collections.ConfigDict(found)


def checksum(tree: PyTree) -> int:
    """Return the CRC-32 of the bytes of all leaves: what tells two models apart."""
    found = 0
    for leaf in jax.tree.leaves(tree):
        found = zlib.crc32(np.asarray(leaf).tobytes(), found)
    return found


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Return a config.json, one of before in the words of today's configs."""
    try:
        return old_configs.upgraded(json.loads(path.read_text()))
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserMistake(
            f"{path} is damaged, or no config ({error}). Put a copy of it back; or give the "
            "command that made it once more with --accept_config_changes, which writes it anew."
        ) from error


def _others(workdir: pathlib.Path) -> bool:
    """Say whether a folder holds more than a config.json and empty folders."""
    mine = ("config.json", _EARLIER, str(records.seals_of(pathlib.Path(_EARLIER))))
    found = (x for x in workdir.iterdir() if x.name not in mine and x.suffix != ".lock")
    return any(x.is_file() or any(x.iterdir()) for x in found)


def _keep_earlier(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Keep the config that another one replaces: what was saved with it is the folder's own."""
    path = workdir / "config.json"
    try:
        before = _read(path) if path.exists() else None
    except ValueError:
        return  # it is damaged, and written anew
    if before is not None and _differences(before, plain(config)):
        records.append(workdir / _EARLIER, {"config": before})


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    old, new = (dict(fields.leaves(tree)) for tree in (old, new))
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    # A config that is older than an instrument has no group for it, which changes nothing in it.
    names = [name for name in names if name in old or not _INSTRUMENT.match(name)]
    names = [n for n in names if not _PASS.fullmatch(n) and not _CHANGEABLE.fullmatch(n)]
    return [f"{n} (was {old.get(n, 'absent')!r}, is {new.get(n, 'absent')!r})" for n in names]
