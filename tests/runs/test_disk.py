"""Disks that are full or may only be read: one sentence, and the same command goes on later."""

import errno
import pathlib
import shutil
import subprocess
import time

import numpy as np
import pytest
from killing import saved_bits
from real_commands import read_lines, run

from sam_jax.runs import checkpoints, disk, records

TRAIN = ("sam_jax.train", "--config=configs/digits.py:smoke", "--config.checkpoint.every_epochs=1")


def raised(error, path=pathlib.Path("some/file"), needed=0):
    with pytest.raises(Exception) as caught, disk.writing(path, needed):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the quota is used up"),
        (OSError(errno.EROFS, "Read-only file system", "elsewhere"), "read-only"),
        (PermissionError(errno.EACCES, "Permission denied"), "may only be read"),
        (ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes [os_error_code='28']"), "full"),
        (RuntimeError("in a thread: [Errno 27] File too large"), "larger than this process may"),
        (ExceptionGroup("two", [ValueError("x"), OSError(errno.ENOSPC, "No space")]), "full"),
    ],
)
def test_an_error_of_the_disk_is_one_sentence_with_its_path(error, says):
    found = raised(error, needed=12345)
    assert isinstance(found, disk.NoRoom) and found.__cause__ is error
    text = str(found)
    assert text.startswith("some/file cannot be written: ") and says in text
    assert "\n" not in text and text.endswith("the same command goes on once it can be written.")
    assert ("12,345 bytes needed, " in text) == (found.errno in disk.FULL)


def test_other_errors_are_left_as_they_are():
    for error in (ValueError("a shape"), FileNotFoundError(errno.ENOENT, "No such file")):
        assert raised(error) is error
    first = disk.no_room(pathlib.Path("inner"), errno.ENOSPC, 1)
    assert raised(first) is first
    later = RuntimeError("closing")
    later.__context__ = first  # what is raised while the first is handled
    assert raised(later) is first


def test_a_checkpoint_without_room_is_not_begun(tmp_path, monkeypatch):
    state = {"w": np.zeros(1000, np.float32)}
    with checkpoints.open_manager(tmp_path, keep=1) as manager:
        checkpoints.save(manager, 1, state)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage._replace(free=5000))
    with (
        pytest.raises(disk.NoRoom, match=r"69,536 bytes needed, 5,000 free"),
        checkpoints.open_manager(tmp_path, keep=1) as manager,
    ):
        checkpoints.save(manager, 2, state)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["1"]


def test_a_record_that_is_cut_by_a_full_disk_is_written_again(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    records.append(path, {"epoch": 1})

    def half(self, mode="r"):
        file = open(self, mode)
        if "a" not in mode:
            return file
        file.write('{"ep' if "b" not in mode else b'{"ep')
        file.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(disk.NoRoom, match=str(path)):
        patch.setattr(pathlib.Path, "open", half)
        with disk.writing(path):  # whichever of its lines the write fails in
            records.append(path, {"epoch": 2})
    assert records.read(path) == [{"epoch": 1}]
    records.append(path, {"epoch": 2})
    assert records.read(path) == [{"epoch": 1}, {"epoch": 2}]


def limited(*arguments, bytes_of_a_file):
    """Run a command whose files may not be larger."""
    start = (
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_of_a_file}, -1))\n"
        "del sys.argv[0]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    begun = time.monotonic()
    result = run("-c", start, *arguments)
    return result, time.monotonic() - begun


@pytest.mark.commands
def test_a_training_goes_on_once_there_is_room(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(*TRAIN, f"--workdir={whole}").returncode == 0
    refused, seconds = limited(*TRAIN, f"--workdir={cut}", bytes_of_a_file=20_000)
    *_, line = refused.stderr.splitlines()  # where it takes long, what it does comes before
    assert refused.returncode == 1 and seconds < 60
    assert line.startswith(f"{cut / 'checkpoints'} cannot be written: ")
    assert run(*TRAIN, f"--workdir={cut}").returncode == 0
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert saved_bits(cut) == saved_bits(whole)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 800 kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(folder)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.commands
def test_full_disks_and_disks_that_may_only_be_read(small_disk):
    run_folder, filler = small_disk / "run", small_disk / "filler"
    filler.write_bytes(bytes(500_000))
    train = (*TRAIN, f"--workdir={run_folder}")
    refused = run(*train)
    *_, line = refused.stderr.splitlines()  # where it takes long, what it does comes before
    assert refused.returncode == 1 and "the disk is full (" in line and "bytes needed" in line
    assert [p.name for p in (run_folder / "checkpoints").iterdir()] == ["1"]
    filler.unlink()
    finished = run(*train)
    assert finished.returncode == 0, finished.stderr
    assert [r["epoch"] for r in read_lines(run_folder / "metrics.jsonl")] == [1, 2]

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    again = run(*train)  # a finished run says its result
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == finished.stdout.splitlines()[-1]
    refused = run("sam_jax.evaluate", f"--workdir={run_folder}", "--measures=evaluation")
    *_, line = refused.stderr.splitlines()  # where it takes long, what it does comes before
    assert refused.returncode == 2 and line.startswith(
        f"{run_folder / 'evaluations.jsonl'} cannot be written: the file system is read-only."
    )
