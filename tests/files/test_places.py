"""Places to write are tried before there is anything to write, and nothing is left there."""

from __future__ import annotations

import os
import sys

import pytest

from stillroom.errors import UsageError
from stillroom.files.places import require_file_place, require_folder_place


def test_places_that_will_do_are_left_as_they_were(tmp_path):
    (tmp_path / "old.onnx").write_text("old")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for name in ("new.onnx", "old.onnx", "not/yet/there.onnx", f"{'a' * 200}.onnx"):
        require_file_place(tmp_path / name)
    for name in ("new", "folder", "not/yet/there"):
        require_folder_place(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old.onnx").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("folder", "folder is a folder: name a file"),
        ("file/x.onnx", "file is a file"),
        ("file/deep/x.onnx", "file is a file"),
        (f"{'a' * 300}.onnx", "too long"),
        (f"not/yet/{'a' * 300}/x.onnx", "too long"),
        (f"{'ä' * 125}.onnx", "too long"),  # in bytes
        ("/".join(["a" * 200] * 30), "too long"),
        ("nul\0.onnx", "zero byte"),
    ],
)
def test_a_file_that_cannot_be_written_is_named(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=said) as caught:
        require_file_place(tmp_path / name, "Choose another place.")
    assert str(caught.value).endswith("Choose another place.")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    for name, said in (("file", "is a file"), ("file/x", "is a file"), ("a" * 300, "too long"), ("nul\0", "zero byte")):
        with pytest.raises(UsageError, match=said):
            require_folder_place(tmp_path / name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a place where not even root can write")
def test_a_disk_that_cannot_be_written_to_is_named():
    from pathlib import Path

    for require in (require_file_place, require_folder_place):
        with pytest.raises(UsageError, match=r"/proc: .*Choose another --out"):
            require(Path("/proc/stillroom/x"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_no_file_takes_the_place_of_a_pipe_or_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe: it is no ordinary file"):
        require_file_place(tmp_path / "pipe")
