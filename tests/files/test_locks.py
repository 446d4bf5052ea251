"""Locks between processes: held, named, and gone with their process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from stillroom import progress
from stillroom.files import locks
from stillroom.files.locks import Busy, Holder, take, take_folder

HOLDING = """
import sys, time
from pathlib import Path
from stillroom.files.locks import take
lock = take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def elsewhere(tmp_path):
    """A process that holds ``tmp_path / "lock"``."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path / "lock"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_who_holds_it_is_named_and_a_kill_lets_go(elsewhere, tmp_path):
    with pytest.raises(Busy) as busy:
        take(tmp_path / "lock")
    assert busy.value.holder.pid == elsewhere.pid
    assert str(busy.value.holder) == f"process {elsewhere.pid} (since {busy.value.holder.since})"
    os.kill(elsewhere.pid, signal.SIGKILL)
    elsewhere.wait()
    assert (tmp_path / "lock").exists()  # what is left of it stops nobody
    take(tmp_path / "lock").release()
    assert list(tmp_path.iterdir()) == []


def test_one_process_takes_it_once(tmp_path):
    lock = take(tmp_path / "lock")
    with pytest.raises(Busy, match="this process"):
        take(tmp_path / "lock")
    lock.release()
    lock.release()
    take(tmp_path / "lock").release()


def test_a_holder_of_another_machine_and_one_that_is_not_known(tmp_path):
    assert (
        str(Holder(7, "ward-3", "2030-01-01T00:00:00+00:00")) == "process 7 on ward-3 (since 2030-01-01T00:00:00+00:00)"
    )
    assert str(Holder()) == "another process"


def test_it_moves_with_its_folder(tmp_path):
    (tmp_path / "hidden").mkdir()
    lock = take(tmp_path / "hidden" / "lock")
    (tmp_path / "hidden").rename(tmp_path / "named")
    with pytest.raises(Busy):
        take(tmp_path / "named" / "lock")
    lock.file = tmp_path / "named" / "lock"
    lock.release()
    assert list((tmp_path / "named").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_process_that_was_forked_off_does_not_keep_it(tmp_path):
    """Else a worker that outlives its killed parent would block the run."""
    lock = take(tmp_path / "lock")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    lock.release()
    take(tmp_path / "lock").release()
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders there")
def test_a_folders_lock_leaves_nothing_in_it(tmp_path):
    lock = take_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Busy):
        take_folder(tmp_path)
    lock.release()
    take_folder(tmp_path).release()
    with pytest.raises(FileNotFoundError):
        take_folder(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform == "win32", reason="other system calls there")
def test_a_disk_without_locks_is_told_of(tmp_path, monkeypatch, capsys):
    import fcntl

    def none_here(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    progress.remark.cache_clear()
    lock = take(tmp_path / "lock")
    assert capsys.readouterr().err == (
        f"The disk of {tmp_path} has no locks: see to it that no second process works there.\n"
    )
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    lock.release()
    assert take_folder(tmp_path) is None
    assert locks._HELD == {}
