"""One run, one process; and a run folder is there or not there, whenever its making is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import pytest

from stillroom import DataSettings, RunError, Settings, TrainingSettings, UsageError
from stillroom.files.atomic import sweep
from stillroom.files.locks import take
from stillroom.run import claims
from stillroom.run.claims import alone_in, alone_where, claimed, numbered, require_vacant
from stillroom.run.folder import Run

SETTINGS = Settings("phantoms:50", data=DataSettings(classes=("a", "b")), training=TrainingSettings(lr=1e-5), seed=3)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(claims, "_PATIENCE_S", 0.05)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def held_elsewhere(file):
    """A process that holds a lock until it is killed."""
    code = "import sys, time; from pathlib import Path; from stillroom.files.locks import take;"
    code += "lock = take(Path(sys.argv[1])); print(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, file], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_a_second_process_is_told_whose_run_it_is(tmp_path):
    run = Run.create(tmp_path / "run", SETTINGS)
    process = held_elsewhere(run.path / ".lock")
    try:
        for begin in (
            lambda: alone_in(run.path),
            lambda: alone_where(run.path / "explanations"),
            lambda: claimed(run.path),
        ):
            words = rf"run is in use by process {process.pid} \(since .*\): wait"
            with pytest.raises(UsageError, match=words) as told, begin():
                raise AssertionError("two processes in one run")
            assert "\n" not in str(told.value)
    finally:
        process.kill()
        process.wait()
    with alone_in(run.path):  # the lock went with its process
        pass
    assert names(run.path) == ["digests.jsonl", "manifest.json", "settings.yaml"]


def test_one_process_cannot_begin_twice_either(tmp_path):
    in_use = pytest.raises(UsageError, match="run is in use by this process")
    with claimed(tmp_path / "run"), in_use, claimed(tmp_path / "run"):
        pass
    with alone_where(tmp_path):  # of no run
        pass
    assert names(tmp_path) == []


def test_starts_at_the_same_time_get_two_numbers(tmp_path):
    """Whether the other has made its run already, or is about to."""
    base = tmp_path / "runs" / "set-best"
    with claimed(numbered(base)) as first, claimed(numbered(base)) as second:
        Run.create(second, SETTINGS)
        with claimed(numbered(base)) as third:
            Run.create(first, SETTINGS)
            assert [claim.path.name for claim in (first, second, third)] == ["set-best", "set-best-2", "set-best-3"]
    assert names(tmp_path / "runs") == ["set-best", "set-best-2"]


def test_many_at_once_get_as_many_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "_PATIENCE_S", 5.0)
    made, together = [], threading.Barrier(6)

    def start():
        together.wait()
        with claimed(numbered(tmp_path / "set")) as claim:
            made.append(Run.create(claim, SETTINGS).path.name)

    starts = [threading.Thread(target=start) for _ in range(6)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join()
    assert sorted(made) == names(tmp_path) == ["set", "set-2", "set-3", "set-4", "set-5", "set-6"]


class Killed(BaseException):
    """In the place of a kill: what cleans up does not run."""


@pytest.mark.parametrize("there_before", [False, True])
def test_a_making_that_is_killed_at_any_file_operation_leaves_a_run_or_none(tmp_path, there_before):
    """In a process of its own, which ends at the n-th call without a word; what it left is then begun over."""
    place = tmp_path / "runs" / "first"
    states = set()
    for at in range(200):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        if there_before:
            place.mkdir(parents=True)
        child = os.fork()
        if not child:
            _die_at(at)
            Run.create(place, SETTINGS)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        state = claims.is_run(place)
        states.add(state)
        if state:
            assert Run.open(place).settings == SETTINGS
            assert Run.open(place).manifest["seed"] == 3
        else:
            assert there_before or not place.exists()
            require_vacant(place)
            assert Run.create(place, SETTINGS).manifest["seed"] == 3
            assert names(tmp_path / "runs") == ["first"]
            assert names(place) == ["digests.jsonl", "manifest.json", "settings.yaml"]
        if ended == 0:
            break
    assert states == {False, True}
    assert at > 10


def _die_at(number):
    """End this process at the file operation with this number."""
    left = [number]

    def count(event, arguments):
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        changes |= event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and not left[0]:
            os._exit(9)
        left[0] -= changes

    sys.addaudithook(count)


def test_what_killed_processes_left_is_removed_and_not_what_others_are_making(tmp_path):
    for name in (".dead.making", ".alive.making", ".mine.making"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.yaml").touch()
    (tmp_path / ".dead.making" / ".lock").touch()
    (tmp_path / ".killed at once.making").mkdir()
    lock = take(tmp_path / ".alive.making" / ".lock")
    run = Run.create(tmp_path / "run", SETTINGS)
    assert names(tmp_path) == [".alive.making", ".mine.making", "run"]  # what no process of ours locked is not ours
    lock.release()
    (run.path / "student").mkdir()
    for left in (".metrics.json.123.tmp", "student/.model.safetensors.4567.tmp", "mine.tmp", ".mine.tmp"):
        (run.path / left).touch()
    with alone_in(run.path):
        assert names(run.path) == [
            ".lock",
            ".mine.tmp",
            "digests.jsonl",
            "manifest.json",
            "mine.tmp",
            "settings.yaml",
            "student",
        ]
        assert names(run.path / "student") == []


def test_where_no_lock_tells_only_old_files_go(tmp_path):
    for name in (".table.csv.1.tmp", ".table.md.1.tmp", ".else.tmp"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".table.csv.1.tmp", (0, 0))
    os.utime(tmp_path / ".else.tmp", (0, 0))
    sweep(tmp_path.iterdir(), untouched_s=3600)
    assert names(tmp_path) == [".else.tmp", ".table.md.1.tmp"]


def test_a_claim_that_comes_to_nothing_leaves_nothing(tmp_path):
    with pytest.raises(RunError), claimed(tmp_path / "new" / "runs" / "first"):
        raise RunError("The disk is full.")
    assert names(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError), claimed(tmp_path / "mine"):
        raise RunError("The disk is full.")
    assert names(tmp_path) == ["mine"]
    assert names(tmp_path / "mine") == []


def test_somebody_elses_folder_that_came_meanwhile_is_left(tmp_path):
    with claimed(tmp_path / "run") as claim:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine.txt").touch()
        with pytest.raises(UsageError, match="run exists already: choose another --out"):
            Run.create(claim, SETTINGS)
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["mine.txt"]


def test_settings_alone_are_no_leftover(tmp_path):
    """A folder in which somebody keeps a settings.yaml is theirs."""
    (tmp_path / "settings.yaml").touch()
    with pytest.raises(UsageError, match="exists already"):
        require_vacant(tmp_path)
