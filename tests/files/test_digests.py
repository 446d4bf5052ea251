"""Digests: files are known again, whatever bit of them, or of what they are known by, is flipped."""

import hashlib
import json
import os
import time

import numpy as np
import pytest

from stillroom.errors import UsageError
from stillroom.files import digests
from stillroom.files.cache import publish, write_meta
from stillroom.files.digests import LEDGER, begin_ledger, mend_ledger, record
from stillroom.progress import remark


def flip(path, bit):
    """One bit of the file, and of nothing else."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def bits(path):
    """A bit of every byte."""
    return (8 * byte + byte * 5 % 8 for byte in range(path.stat().st_size))


@pytest.fixture
def run(tmp_path):
    """A folder with a ledger, and three files in it."""
    digests.begin_ledger(tmp_path)
    for name in ("metrics.json", "student/model.json", "student/model.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(hashlib.sha512(name.encode()).digest())
        digests.record(path)
    remark.cache_clear()
    return tmp_path


def test_the_digest_is_that_of_the_standard(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert digests.sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_a_settled_file_is_read_once_and_a_touched_one_again(tmp_path, monkeypatch):
    read = []
    plain = hashlib.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda file, name: (read.append(file.name), plain(file, name))[1])
    path = tmp_path / "array"
    path.write_bytes(b"1")
    before = path.stat()
    with monkeypatch.context() as later:
        later.setattr("time.time", lambda: before.st_ctime + 10)
        first = [digests.sha256_of(path) for _ in range(3)]
        assert len(read) == 1
        time.sleep(0.02)
        path.write_bytes(b"2")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as though nothing had been
        assert digests.sha256_of(path) == hashlib.sha256(b"2").hexdigest() != first[0]
    path.write_bytes(b"3")
    digests.sha256_of(path)
    # Changed just now: the next change might bear the same time, so that it is not trusted.
    before = len(read)
    digests.sha256_of(path)
    assert len(read) == before + 1


# -- folders that grow ----------------------------------------------------------------------------------------------
def test_every_bit_of_a_file_counts(run):
    path = run / "student/model.json"
    for bit in bits(path):
        flip(path, bit)
        assert digests.state_of(path) == "damaged"
        flip(path, bit)
    assert digests.state_of(path) == "whole"


def test_a_damaged_file_is_refused_by_name(run):
    digests.require_whole(run / "metrics.json")
    flip(run / "metrics.json", 5)
    with pytest.raises(
        UsageError, match=r"metrics\.json was changed or damaged after it was written: call a friend\.$"
    ):
        digests.require_whole(run / "metrics.json", "call a friend")


def test_a_kill_between_the_line_and_the_file_leaves_the_old_file_known(run):
    new = run / ".metrics.json.tmp"
    new.write_text("another")
    digests.record(run / "metrics.json", new)
    assert digests.state_of(run / "metrics.json") == "whole"
    new.replace(run / "metrics.json")
    assert digests.state_of(run / "metrics.json") == "whole"


def test_every_bit_of_the_ledger_is_noticed_and_condemns_no_file(run, capsys):
    ledger, files = run / digests.LEDGER, ["metrics.json", "student/model.json", "student/model.safetensors"]
    for bit in bits(ledger):
        flip(ledger, bit)
        assert dict(digests.ledger_states(run))[digests.LEDGER] == "damaged", bit
        remark.cache_clear()
        for name in files:
            digests.require_whole(run / name)  # raises nothing
        assert f"{ledger} is damaged in line " in capsys.readouterr().err, bit
        flip(ledger, bit)


def test_lines_that_are_added_after_half_a_line_stand_apart(run):
    ledger = run / digests.LEDGER
    ledger.write_bytes(ledger.read_bytes()[:-20])
    (run / "late").write_text("late")
    digests.record(run / "late")
    assert digests.state_of(run / "late") == "whole"
    assert digests.read_lines(ledger).damaged == [3]


def test_files_of_before_and_of_others_have_no_digest(run, tmp_path_factory):
    old = tmp_path_factory.mktemp("old")
    (old / "metrics.json").write_text("{}")
    (old / "history.jsonl").write_text('{"epoch": 1}\n')
    digests.require_whole(old / "metrics.json")
    assert dict(digests.ledger_states(old)) == {"history.jsonl": "no digest", "metrics.json": "no digest"}
    (run / "notes.txt").write_text("mine")
    digests.require_whole(run / "notes.txt")
    assert digests.state_of(run / "notes.txt") == "no digest"


def test_the_states_name_every_file(run):
    flip(run / "student/model.safetensors", 0)
    (run / "metrics.json").unlink()
    (run / ".hidden.tmp").write_text("half")
    (run / "repeats/2").mkdir(parents=True)
    (run / "repeats/2/history.jsonl").write_text(digests.signed({"epoch": 1}) + "\n")
    assert dict(digests.ledger_states(run)) == {
        "digests.jsonl": "whole",
        "metrics.json": "missing",
        "repeats/2/history.jsonl": "whole",
        "student/model.json": "whole",
        "student/model.safetensors": "damaged",
    }


def test_what_was_removed_is_not_missed_until_it_is_written_again(run):
    path = run / "metrics.json"
    digests.remove(path)
    assert not path.exists()
    assert "metrics.json" not in dict(digests.ledger_states(run))
    digests.remove(path)
    path.write_text("{}")
    digests.record(path)
    assert dict(digests.ledger_states(run))["metrics.json"] == "whole"
    path.unlink()
    assert dict(digests.ledger_states(run))["metrics.json"] == "missing"


def test_a_run_that_was_moved_is_known_still(run, tmp_path_factory):
    moved = run.rename(tmp_path_factory.mktemp("elsewhere") / "run")
    assert set(dict(digests.ledger_states(moved)).values()) == {"whole"}


# -- lines ----------------------------------------------------------------------------------------------------------
def test_every_bit_of_a_signed_line_counts(run):
    path = run / "history.jsonl"
    entries = [{"role": "student", "epoch": 1, "loss": 0.25}, {"role": "Schüler", "epoch": 2, "loss": None}]
    path.write_text("".join(digests.signed(entry) + "\n" for entry in entries))
    assert digests.read_lines(path) == digests.Lines(entries, [])
    for bit in bits(path):
        flip(path, bit)
        assert digests.read_lines(path).damaged, bit
        flip(path, bit)


def test_a_line_that_a_kill_cut_short_is_no_damage(run):
    path, line = run / "history.jsonl", digests.signed({"epoch": 1}).encode()
    for length in range(len(line) + 1):
        path.write_bytes(line + b"\n" + line[:length])
        assert digests.read_lines(path).damaged == []
        assert len(digests.read_lines(path).entries) == (2 if length == len(line) else 1)


def test_a_line_is_json_for_others(run):
    assert json.loads(digests.signed({"epoch": 1})).keys() == {"epoch", "check"}
    with pytest.raises(ValueError):
        digests.signed({"loss": float("nan")})


# -- folders that appear whole --------------------------------------------------------------------------------------
def test_every_bit_of_a_sealed_folder_counts(tmp_path):
    folder = tmp_path / "bank"
    folder.mkdir()
    np.save(folder / "logits.npy", np.arange(4, dtype=np.float16))
    (folder / "meta.json").write_text("{}")
    assert digests.damage_in(folder) is None  # of before: nothing is known
    assert set(digests.sealed_states(folder).values()) == {"no digest"}
    digests.seal(folder)
    assert digests.damage_in(folder) is None
    for path in sorted(folder.iterdir()):
        for bit in bits(path):
            flip(path, bit)
            assert digests.damage_in(folder) is not None, (path.name, bit)
            flip(path, bit)


def test_a_sealed_folder_lacks_no_file_and_has_no_other(tmp_path):
    (tmp_path / "meta.json").write_text("{}")
    digests.seal(tmp_path)
    (tmp_path / "more.npy").write_text("more")
    assert digests.damage_in(tmp_path) == "more.npy"
    (tmp_path / "more.npy").unlink()
    (tmp_path / "meta.json").unlink()
    assert digests.damage_in(tmp_path) == "meta.json"


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_text("")], ids=["gone", "empty"])
def test_a_list_that_was_lost_is_damage_where_one_was_kept(tmp_path, capsys, lose):
    def build(folder, text="first"):
        (folder / "data").write_text(text)
        write_meta(folder, {"n": 1})

    folder = publish(tmp_path / "store", build)
    lose(folder / digests.LIST)
    assert digests.damage_in(folder) == digests.LIST
    publish(folder, lambda scratch: build(scratch, "second"))
    assert (folder / "data").read_text() == "second"
    assert f"{folder / digests.LIST} was changed or damaged" in capsys.readouterr().err
    assert digests.damage_in(folder) is None


def test_half_a_line_of_a_kill_is_taken_from_the_ledger_and_nothing_else_is(tmp_path):
    begin_ledger(tmp_path)
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
        record(tmp_path / name)
    ledger = tmp_path / LEDGER
    whole = ledger.read_bytes()
    first = whole.index(b"\n") + 1
    for end in (first + 1, first + 40, len(whole) - 2):
        ledger.write_bytes(whole[:end])
        mend_ledger(tmp_path)
        assert ledger.read_bytes() == whole[:first]
    for left in (whole, whole[:-1], whole[:-1] + b"!"):  # the last line's end was changed, not cut
        ledger.write_bytes(left)
        mend_ledger(tmp_path)
        assert ledger.read_bytes() == left
    mend_ledger(tmp_path / "nowhere")
