"""Nothing half-written is left behind."""

import errno

import pytest

from stillroom.errors import RunError
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
