import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stillroom.errors import RunError
from stillroom.files import digests
from stillroom.files.cache import cache_root, fingerprint, is_complete, publish, read_meta, write_meta


def filling(text="x"):
    def build(folder: Path) -> None:
        (folder / "data.txt").write_text(text)
        write_meta(folder, {"text": text})

    return build


def leftovers(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name.startswith(".")]


def test_cache_root_follows_the_environment_and_its_home(monkeypatch, tmp_path):
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    monkeypatch.setenv("STILLROOM_CACHE", "~/there")
    assert cache_root() == Path.home() / "there"
    monkeypatch.delenv("STILLROOM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_root() == tmp_path / "stillroom"


@pytest.mark.parametrize("name", ["data.txt", "meta.json", digests.LIST])
def test_a_damaged_folder_is_built_anew_with_a_word(tmp_path, capsys, name):
    folder = publish(tmp_path / "folder", filling("first"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(content)
    publish(folder, filling("second"))
    assert (folder / "data.txt").read_text() == "second"
    assert digests.damage_in(folder) is None
    assert capsys.readouterr().err == (
        f"{folder / name} was changed or damaged after it was written: what the folder holds is made again.\n"
    )
    assert leftovers(tmp_path) == []


def test_a_folder_of_before_digests_is_taken_as_it_is(tmp_path, capsys):
    folder = publish(tmp_path / "folder", filling("first"))
    (folder / digests.LIST).unlink()
    (folder / "meta.json").write_text('{"text": "first"}')
    publish(folder, filling("second"))
    assert (folder / "data.txt").read_text() == "first"
    assert capsys.readouterr().err == ""


def test_fingerprint_depends_on_content_only():
    @dataclass
    class Settings:
        size: int

    parts = ({"b": 1, "a": [1, 2.5, None]}, Path("x"), np.int64(3), Settings(4))
    same = ({"a": (1, 2.5, None), "b": 1}, Path("x"), 3, Settings(4))
    assert fingerprint(*parts) == fingerprint(*same)
    assert len(fingerprint(*parts)) == 32
    assert len({fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint(["a", "bc"]), fingerprint("abc")}) == 4
    with pytest.raises(TypeError, match="ndarray"):
        fingerprint(np.zeros(2))


def test_a_folder_is_built_once(tmp_path):
    folder = tmp_path / "deep" / "folder"
    assert publish(folder, filling("first")) == folder
    publish(folder, filling("second"))
    assert (folder / "data.txt").read_text() == "first"
    assert read_meta(folder) == {"text": "first"}
    assert leftovers(folder.parent) == []


def test_a_folder_without_meta_is_rebuilt(tmp_path):
    folder = publish(tmp_path / "folder", filling("first"))
    (folder / "meta.json").write_text('{"text": "fir')
    assert not is_complete(folder)
    publish(folder, filling("second"))
    assert (folder / "data.txt").read_text() == "second"
    assert leftovers(tmp_path) == []


def test_a_folder_that_is_not_valid_is_replaced(tmp_path):
    folder = publish(tmp_path / "folder", filling("old"))
    publish(folder, filling("new"), valid=lambda place: read_meta(place) == {"text": "new"})
    assert (folder / "data.txt").read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_an_interrupted_build_leaves_nothing(tmp_path, error):
    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        publish(tmp_path / "folder", build)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_in_one_line(tmp_path):
    def build(folder: Path) -> None:
        (folder / "half").write_bytes(bytes(5000))
        with Path("/dev/full").open("wb") as file:
            file.write(bytes(100_000))

    with pytest.raises(RunError, match=r"folder.*more than .* needed, .* free.*STILLROOM_CACHE") as caught:
        publish(tmp_path / "folder", build)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_fit_is_refused_before_it_is_built(tmp_path):
    with pytest.raises(RunError, match=r"more than 1000000\.0 GB needed"):
        publish(tmp_path / "folder", lambda folder: pytest.fail("was built"), needs=10**15)


def test_a_build_that_loses_the_race_keeps_the_winner(tmp_path):
    folder = tmp_path / "folder"

    def overtaken(scratch: Path) -> None:
        publish(folder, filling("winner"))
        filling("loser")(scratch)

    publish(folder, overtaken)
    assert (folder / "data.txt").read_text() == "winner"
    assert leftovers(tmp_path) == []


def test_builds_of_killed_processes_are_swept_and_those_at_work_left(tmp_path):
    """A process at work holds a lock on the folder that it fills; whose it is, and when it was touched, is all one."""
    for name in ("folder.killed", "other.killed"):
        (tmp_path / f".{name}.building").mkdir()
        (tmp_path / f".{name}.building" / "data").write_text("x")
    code = """
import sys, time
from pathlib import Path
from stillroom.files.cache import publish
def build(folder):
    (folder / "data").write_text("x")
    print("at work", flush=True)
    time.sleep(600)
publish(Path(sys.argv[1]), build)
"""
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "slow"], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"at work\n"  # it has swept what was left
        (there,) = leftovers(tmp_path)
        os.utime(tmp_path / there, (0, 0))
        publish(tmp_path / "folder", filling())
        assert leftovers(tmp_path) == [there]
    finally:
        process.kill()
        process.wait()
    publish(tmp_path / "another", filling())
    assert leftovers(tmp_path) == []


def test_where_folders_have_no_locks_only_builds_that_nobody_touched_for_a_day_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("stillroom.files.cache.take_folder", lambda folder: None)
    for name, age in (("old", 2 * 86400), ("fresh", 60)):
        scratch = tmp_path / f".folder.{name}.building"
        scratch.mkdir()
        (scratch / "data").write_text("x")
        for path in (scratch / "data", scratch):
            os.utime(path, (time.time() - age,) * 2)
    publish(tmp_path / "folder", filling())
    assert leftovers(tmp_path) == [".folder.fresh.building"]


def test_processes_at_the_same_time_agree(tmp_path):
    code = """
import json, os, sys, time
from pathlib import Path
from stillroom.files.cache import publish, read_meta, write_meta
def build(folder):
    (folder / "data.txt").write_text(str(os.getpid()) * 1000)
    time.sleep(0.3)
    write_meta(folder, {"pid": os.getpid()})
folder = publish(Path(sys.argv[1]), build)
print(json.dumps([read_meta(folder)["pid"], (folder / "data.txt").read_text()]))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "folder")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    seen = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len({pid for pid, _ in seen}) == 1
    assert all(text == str(pid) * 1000 for pid, text in seen)
    assert leftovers(tmp_path) == []
