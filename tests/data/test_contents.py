"""What images are read from, known by their files' bytes: wherever the files are, and without reading them again."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillroom.data import contents
from stillroom.data.contents import file_digests
from stillroom.data.load import load_data
from stillroom.errors import RunError
from stillroom.settings.sections import DataSettings


@pytest.fixture
def files(tmp_path):
    """Three files that look as if they had been there for long."""
    paths = [tmp_path / "set" / name for name in ("a.png", "sub/b.png", "c.png")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode() * 100)
    return paths


@pytest.fixture
def look(tmp_path, monkeypatch):
    """``look(files)``: their digests in order, and the names of those that were read."""
    read = []
    monkeypatch.setattr(contents, "_SETTLED_NS", -(10**12))
    monkeypatch.setattr(contents, "sha256_of", lambda path: (read.append(path.name), sha256(path))[1])

    def look(files):
        read.clear()
        found = file_digests(files, cache=tmp_path / "cache", show_progress=False)
        return [found[path] for path in files], sorted(read)

    return look


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_are_read_once(files, look):
    expected = [sha256(path) for path in files]
    assert look(files) == (expected, ["a.png", "b.png", "c.png"])
    assert look(files) == (expected, [])
    assert look(files[1:2]) == (expected[1:2], ["b.png"])  # another folder holds all of them, so another index
    assert look(files[1:]) == (expected[1:], [])


def test_what_was_touched_is_read_again_and_nothing_else(files, look):
    expected, _ = look(files)
    os.utime(files[1], ns=(1, 1))
    assert look(files) == (expected, ["b.png"])
    assert look(files) == (expected, [])


def test_a_change_that_keeps_size_and_time_is_seen(files, look):
    """The time of the last change of all cannot be set back, so that the shortcut is not fooled."""
    before, status = look(files)[0], files[0].stat()
    files[0].write_bytes(files[0].read_bytes()[::-1])
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (files[0].stat().st_size, files[0].stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after, read = look(files)
    assert (after, read) == ([sha256(files[0]), *before[1:]], ["a.png"])


def test_another_file_put_in_its_place_is_seen(files, look, tmp_path):
    """As ``cp -p`` and a rename do it: size and time are the old ones, the number on the disk is not."""
    look(files)
    other = tmp_path / "other"
    other.write_bytes(b"x" * files[0].stat().st_size)
    shutil.copystat(files[0], other)
    other.replace(files[0])
    assert look(files)[0][0] == hashlib.sha256(b"x" * 500).hexdigest()


def test_what_changed_a_moment_ago_is_not_kept(files, tmp_path, monkeypatch):
    """Within one tick of a disk's clock a file may be written twice and look the same."""
    read = []
    monkeypatch.setattr(contents, "sha256_of", lambda path: (read.append(path), "0" * 64)[1])
    for _ in range(2):
        file_digests(files, cache=tmp_path / "cache", show_progress=False)
    assert len(read) == 6
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"files": 3}', '{"files": {"x": 3}}', None])
def test_a_damaged_index_costs_a_reading(files, look, tmp_path, damage):
    expected, _ = look(files)
    (index,) = (tmp_path / "cache" / "digests").iterdir()
    index.unlink() if damage is None else index.write_text(damage)
    assert look(files) == (expected, ["a.png", "b.png", "c.png"])
    assert len(json.loads(index.read_text())["files"]) == 3


def test_what_is_no_file_is_not_opened(look, tmp_path):
    """A pipe would be waited for. A name with a zero byte is one that no file can have."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    paths = [tmp_path / name for name in ("pipe.png", "folder.png", "absent.png", "a\0b.png")]
    assert look(paths) == (["no file"] * 4, [])


def test_a_cache_that_cannot_be_written_to_is_no_hindrance(files, look, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert look(files)[0] == [sha256(path) for path in files]


# -- through the store --------------------------------------------------------------------------------------------
@pytest.fixture
def pictures(picture_folder, tmp_path):
    return shutil.copytree(picture_folder, tmp_path / "pictures")


@pytest.fixture
def load(tmp_path):
    def load(source):
        return load_data(source, DataSettings(size=32), cache=tmp_path / "cache", show_progress=False)

    load.stores = lambda: list((tmp_path / "cache" / "stores").iterdir())
    return load


def test_a_copy_in_another_place_shares_the_store(load, pictures, tmp_path):
    first = load(pictures)
    again = load(shutil.copytree(pictures, tmp_path / "elsewhere" / "copy"))
    os.utime(pictures / "left" / "000.png")
    assert load(pictures).fingerprint == again.fingerprint == first.fingerprint
    assert len(load.stores()) == 1


def test_another_format_is_decoded_and_still_the_same_images(load, pictures):
    first = load(pictures)
    for path in pictures.glob("*/*.png"):
        Image.open(path).save(path, compress_level=0)
    assert load(pictures).fingerprint == first.fingerprint
    assert len(load.stores()) == 2


def test_a_changed_pixel_is_another_image_though_size_and_time_are_kept(load, pictures):
    first, path = load(pictures), pictures / "left" / "000.bmp"
    for target in (pictures / "left" / "000.png",):
        Image.open(target).save(path)
        target.unlink()
    with_bmp = load(pictures)
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = load(pictures)
    assert first.store.fingerprint == with_bmp.store.fingerprint != changed.store.fingerprint
    assert np.flatnonzero(changed.store.digests != first.store.digests).tolist() == [0]


def test_files_that_change_while_they_are_read_are_not_kept(load, pictures, monkeypatch):
    from stillroom.data import store

    decode_all = store.decode_all

    def slowly(*given):
        decode_all(*given)
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(pictures / "left" / "000.png")

    monkeypatch.setattr(store, "decode_all", slowly)
    with pytest.raises(RunError, match="changed while they were being read: start again"):
        load(pictures)
    assert not load.stores()


def test_paths_as_they_are_given(look, files, monkeypatch):
    """Relative ones are the same files."""
    expected, _ = look(files)
    monkeypatch.chdir(files[0].parent)
    assert look([Path("a.png"), Path("sub/b.png"), Path("c.png")]) == (expected, [])
