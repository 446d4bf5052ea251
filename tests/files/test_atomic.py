"""Nothing half-written is left behind."""

import errno
import os
import sys
import tempfile
from pathlib import Path

import pytest

from stillroom.errors import RunError
from stillroom.files import digests
from stillroom.files.atomic import write_atomically, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half(target):
        target.write_text("hal")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="disk is full"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_other_errors_are_not_disguised(tmp_path):
    def broken(target):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        write_atomically(tmp_path / "a", broken)


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"ä": [1, None]})
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8").startswith('{\n  "ä"')
    with pytest.raises(ValueError):
        write_json(tmp_path / "c.json", {"x": float("nan")})
    assert not (tmp_path / "c.json").exists()


def test_what_is_written_below_a_ledger_is_known_by_its_digest(tmp_path):
    write_json(tmp_path / "before.json", {})
    digests.begin_ledger(tmp_path)
    write_json(tmp_path / "a" / "b.json", {"x": 1})
    write_json(tmp_path / "a" / "b.json", {"x": 2})
    write_atomically(tmp_path / "c", lambda target: target.write_text("c"), digest=False)
    states = {"a/b.json": "whole", "before.json": "no digest", "c": "no digest", "digests.jsonl": "whole"}
    assert dict(digests.ledger_states(tmp_path)) == states


def test_a_kill_before_the_file_takes_its_name_leaves_the_old_one_whole(tmp_path, monkeypatch):
    digests.begin_ledger(tmp_path)
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_json(path, {"x": 2})
    assert digests.state_of(path) == "whole"
    write_json(path, {"x": 3})
    assert digests.state_of(path) == "whole"


@pytest.mark.skipif(sys.platform == "win32", reason="modes are those of POSIX")
def test_a_file_has_the_mode_that_umask_gives_whoever_wrote_it(tmp_path):
    def privately(target):  # as safetensors does
        handle, name = tempfile.mkstemp(dir=target.parent)
        os.close(handle)
        Path(name).replace(target)

    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "weights", privately)
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o640
