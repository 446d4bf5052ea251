"""The proof by injected kills: a sample of it, on a run without networks, and that it sees what it looks for."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from stillroom import Settings
from stillroom.files.atomic import append_line, write_json
from stillroom.files.cache import publish, write_meta
from stillroom.files.digests import read_lines, signed
from stillroom.run import folder
from stillroom.run.claims import alone_in
from stillroom.run.folder import Run

if sys.platform == "win32":
    pytest.skip("no forks there", allow_module_level=True)


@pytest.fixture
def proof(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "proofs")
    monkeypatch.setattr(folder, "_now", lambda: "2030-01-01T00:00:00+00:00")
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a kill is no power cut
    return importlib.import_module("injected")


class Small:
    """What a run does with files, without networks: made whole, an entry of the cache, lines, files, notes."""

    def __init__(self, work: Path, proof) -> None:
        self.here, self.alone, self.states, self.list = (
            work / name for name in ("here", "alone", "states", "list.json")
        )
        self.run = self.here / "run"
        self.put = proof.House.put.__get__(self)

    def go_on(self) -> None:
        run = (
            Run.open(self.run)
            if (self.run / "manifest.json").exists()
            else Run.create(self.run, Settings("phantoms:9"))
        )
        with alone_in(run.path):
            publish(self.here / "cache" / "store", self.fill)
            for epoch in (1, 2):
                if not any(line["epoch"] == epoch for line in read_lines(run.path / "history.jsonl").entries):
                    append_line(run.path / "history.jsonl", signed({"role": "student", "epoch": epoch}))
            write_json(run.path / "metrics.json", {"accuracy": 0.5})
            run.note(finished=True)

    @staticmethod
    def fill(scratch: Path) -> None:
        (scratch / "pixels.bin").write_bytes(bytes(1000))
        write_meta(scratch, {"images": 9})


@pytest.fixture
def small(proof, tmp_path):
    made = Small(tmp_path, proof)
    made.put(None)
    made.go_on()
    made.here.rename(made.alone)
    return made


def test_killed_before_and_after_every_file_operation_it_ends_as_if_nothing_had_happened(proof, small):
    points = proof.walk(small)
    states = list(dict.fromkeys(point["state"] for point in points))
    assert len(points) > 100
    assert len(states) > 30
    assert {"in the middle of writing digests.jsonl", "after replace", "before fsync"} <= {p["what"] for p in points}
    for state in states:
        small.put(small.states / state)
        small.go_on()
        assert not proof.differs(small.alone, small.here)
        assert not proof.unknown(small.run)


def test_what_is_copied_on_the_way_is_what_a_kill_leaves(proof, small):
    points = proof.walk(small)
    for number in (0, 20, 77, len(points) - 40):
        done = []

        def die(what, written, number=number, done=done):
            done.append(what)
            if len(done) > number:
                os._exit(9)

        def killed(die=die):
            with proof.watched(small.here, die):
                small.go_on()

        small.put(None)
        child = os.fork()
        if not child:
            killed()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        alike = [point["state"] for point in points if not point["what"].startswith("in the middle")]
        assert proof.digest_of(small.here) == alike[number]


def test_one_byte_one_file_too_many_and_one_that_is_not_in_the_ledger_are_seen(proof, small):
    shutil.copytree(small.alone, small.here)
    assert not proof.differs(small.alone, small.here)
    (small.run / ".metrics.json.1.tmp").touch()
    assert proof.differs(small.alone, small.here) == "run/.metrics.json.1.tmp is there or not there"
    (small.run / ".metrics.json.1.tmp").unlink()
    (small.run / "metrics.json").write_text(json.dumps({"accuracy": 0.6}))
    assert proof.differs(small.alone, small.here) == "run/metrics.json is another"
    assert proof.unknown(small.run) == "metrics.json: damaged"


def test_a_process_that_fails_or_hangs_is_told_of(proof):
    def fails():
        raise ValueError("lost")

    assert proof.forked(lambda: None) == ""
    assert proof.forked(fails).endswith("ValueError: lost\n")
    assert proof.forked(lambda: __import__("time").sleep(60), kill_after=0.05) == "killed"
