"""Folders that others filled, walked to their end: what systems leave behind, links that lead back, what is no file."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stillroom.errors import UsageError
from stillroom.files.walk import is_left_behind, look_into, natural_key, not_a_file, walk


@pytest.fixture
def lay(tmp_path):
    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return write


def below(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "@tmp", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "~snapshot"),
        *("$RECYCLE.BIN", "System Volume Information", "FOUND.000", "Thumbs.db", "desktop.ini", "~$notes.docx"),
        *("__MACOSX", ".Trashes", ".AppleDouble", ".DS_Store", "._scan.png", ".Spotlight-V100"),
        *("Thumbs", "thumbnails", "_vti_cnf", "CVS", "node_modules"),
        *("lost+found", ".git", ".ipynb_checkpoints", "__pycache__", "SYNOPHOTO_THUMB_XL.jpg", ".@__thumb"),
    ],
)
def test_what_systems_leave_behind(name):
    assert is_left_behind(name)


@pytest.mark.parametrize(
    "name",
    [
        "recycle",
        "found",
        "tmp",
        "snapshot",
        "thumbs",
        "cvs",
        "Thumbnails",
        "my_CVS",
        "@home",
        "#1",
        "a.b",
        "lost",
        "normal",
    ],
)
def test_names_that_a_class_may_have(name):
    assert not is_left_behind(name)


def test_left_behind_at_every_depth(lay):
    root = lay(
        "a.png", "@eaDir/a.png/SM.jpg", "in/#recycle/b.png", "in/side/er/@tmp/x/c.png", "in/.git/d.png", "in/e.png"
    )
    found = walk(root)
    assert below(root, found.files) == ["a.png", "in/e.png"]
    assert below(root, found.left_behind) == ["@eaDir", "in/#recycle", "in/side/er/@tmp"]


def test_a_link_to_a_folder_that_it_stands_in_is_not_followed(lay):
    root = lay("a/1.png", "b/2.png")
    for name, target in (("back", root), ("a/up", root), ("a/self", root / "a"), ("above", root.parent)):
        (root / name).symlink_to(target, target_is_directory=True)
    (root / "a" / "knot").symlink_to("knot")
    level = look_into(root)
    assert below(root, level.folders) == ["a", "b"]
    assert below(root, level.circular) == ["above", "back"]
    found = walk(root / "a")
    assert below(root, found.files) == ["a/1.png", "a/knot"]
    assert below(root, found.circular) == ["a/self", "a/up"]


def test_a_folder_is_walked_once_and_by_its_own_name(lay, tmp_path):
    root = lay("set/z/1.png", "set/other/2.png", "away/3.png") / "set"
    (root / "alias").symlink_to(root / "z", target_is_directory=True)
    (root / "far").symlink_to(tmp_path / "away", target_is_directory=True)
    (root / "far again").symlink_to(tmp_path / "away", target_is_directory=True)
    (root / "other" / "cross").symlink_to(root / "z", target_is_directory=True)
    (root / "z" / "cross").symlink_to(root / "other", target_is_directory=True)
    assert below(root, walk(root).files) == ["far/3.png", "other/2.png", "z/1.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="names are no bytes there")
def test_a_name_that_python_was_told_to_misread_is_not_blamed(tmp_path):
    name = os.fsdecode(
        os.fsencode(tmp_path) + "/säle".encode().replace(b"\xc3", b"\xe3")
    )  # cut in the middle of a letter
    Path(name).mkdir()
    with pytest.raises(UsageError, match=r"is not valid UTF-8; rename it\.$"):
        look_into(tmp_path)
    Path(name).rmdir()
    (tmp_path / "säle").mkdir()
    look_into(tmp_path)
    command = (
        f"from pathlib import Path; from stillroom.files.walk import look_into; look_into(Path({str(tmp_path)!r}))"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}
    told = subprocess.run([sys.executable, "-c", command], env=os.environ | plain, capture_output=True, check=False)
    said = told.stderr.decode().splitlines()[-1]
    assert said.endswith(
        "säle cannot be read: this Python was told to take names of files for ASCII, so set PYTHONUTF8=1."
    )


def test_what_cannot_be_listed_is_refused_by_name(lay, monkeypatch):
    root = lay("a/1.png")

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"The folder .*a cannot be read \(permission denied\)"):
        walk(root / "a")


def test_what_is_no_file_is_named(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
    (tmp_path / "file").touch()
    kinds = {name: not_a_file(tmp_path / name) for name in ("pipe", "link", "socket", ".", "file", "gone", "a\0b")}
    assert kinds == {
        "pipe": "a named pipe",
        "link": "a named pipe",
        "socket": "a socket",
        ".": "a folder",
        "file": None,
        "gone": None,
        "a\0b": None,
    }
    assert not_a_file(Path(os.devnull)) == "a device"


def test_natural_key_never_compares_text_with_numbers():
    names = ["1", "a", "a1", "1a", "a10b2", "a10b", "", "10", "²", "٣"]
    turned = names[4:] + names[:4]
    assert sorted(names, key=natural_key) == sorted(turned, key=natural_key)
    assert sorted(["c10", "c9", "C1"], key=natural_key) == ["C1", "c9", "c10"]
