"""Downloads from a server on loopback that cuts, alters, refuses and stalls."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hub_server import FileServer

from stillroom import progress
from stillroom.errors import RunError, StorageError, UsageError
from stillroom.files import download as source
from stillroom.files.download import Digest, download

CONTENT = os.urandom(1_000_000)
DIGEST = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def server(monkeypatch):
    server = FileServer()
    server.files["/set.npz"] = CONTENT
    monkeypatch.setattr(source, "PAUSES_S", (0.0, 0.0))
    yield server
    server.stop()


@pytest.fixture
def bring(server, tmp_path):
    """``bring()`` downloads the file; keywords as of ``download``."""
    file = tmp_path / "new" / "set.npz"

    def bring(path="/set.npz", **how):
        return download(server.address + path, file, name="the set", **{"digest": DIGEST, **how})

    bring.file = file
    return bring


def left_behind(file):
    return sorted(path.name for path in file.parent.iterdir() if path != file)


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
def test_digests_are_those_of_other_programs(tmp_path, kind):
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    # As sha256sum, md5sum and git hash-object say it.
    value = {
        "sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "md5": "b1946ac92492d2347c6235b4d2611184",
        "git": "ce013625030ba8dba906f756967f9e9ca394464a",
    }[kind]
    assert Digest(kind, value).fits(file)
    assert Digest(kind, value.upper()).fits(file)
    file.write_bytes(b"hellO\n")
    assert not Digest(kind, value).fits(file)


def test_a_file_comes_once(server, bring):
    assert bring() == bring.file == bring()
    assert bring.file.read_bytes() == CONTENT
    assert [seen.range for seen in server.requests] == [None]
    assert left_behind(bring.file) == []


def test_a_cut_connection_is_taken_up_again(server, bring):
    server.cuts = [300_000, 200_000]
    assert bring().read_bytes() == CONTENT
    assert [seen.range for seen in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_bad_line_is_borne_as_long_as_bytes_come(server, bring):
    server.cuts = [150_000] * 6
    assert bring().read_bytes() == CONTENT
    assert len(server.requests) == 7


def test_what_came_is_kept_for_the_next_call(server, bring):
    server.cuts = [300_000, 0, 0]
    with pytest.raises(RunError) as caught:
        bring()
    assert str(caught.value) == (
        f"The download of the set from {server.address} was cut after 0.3 MB (the server closed the connection after "
        "0.3 MB of 1.0 MB); what came is kept, and the next try goes on from there. Try again."
    )
    assert not bring.file.exists()
    server.requests.clear()
    assert bring().read_bytes() == CONTENT
    assert [seen.range for seen in server.requests] == ["bytes=300000-"]


def test_a_killed_process_is_taken_up_again(server, bring, tmp_path):
    server.stall = (400_000, threading.Event())
    program = (
        "import sys; from pathlib import Path; from stillroom.files.download import *;"
        f"download({server.address + '/set.npz'!r}, Path({str(bring.file)!r}), name='x', digest={DIGEST!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    part = bring.file.with_name(".set.npz.part")
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size == 400_000):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.stall[1].set()
    server.stall = None
    server.requests.clear()
    assert bring().read_bytes() == CONTENT
    assert [seen.range for seen in server.requests] == ["bytes=400000-"]
    assert left_behind(bring.file) == []


def test_what_others_began_long_ago_is_removed(bring):
    """With its lock beside it a part is ours; one of another program, or one that may be gone on with, is left."""
    folder = bring.file.parent
    folder.mkdir()
    for name, days, lock in (("old", 20, True), ("new", 1, True), ("another", 20, False)):
        (folder / f".{name}.part").write_bytes(b"x")
        os.utime(folder / f".{name}.part", (time.time() - days * 86400,) * 2)
        if lock:
            (folder / f".{name}.lock").touch()
    bring()
    assert left_behind(bring.file) == [".another.part", ".new.lock", ".new.part"]


def test_a_server_that_gives_the_whole_all_the_same(server, bring):
    server.ranges = False
    server.cuts = [300_000]
    assert bring().read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_part_that_is_whole_already_is_checked_and_taken(server, bring):
    bring.file.parent.mkdir()
    bring.file.with_name(".set.npz.part").write_bytes(CONTENT)
    assert bring().read_bytes() == CONTENT
    assert [seen.range for seen in server.requests] == ["bytes=1000000-"]


@pytest.mark.parametrize("change", ["altered", "shorter", "part of another"])
def test_other_content_is_refused_and_thrown_away(server, bring, change):
    if change == "part of another":
        bring.file.parent.mkdir()
        bring.file.with_name(".set.npz.part").write_bytes(b"x" * 1000)
    else:
        server.files["/set.npz"] = CONTENT[:-1] + (b"!" if CONTENT[-1:] != b"!" else b"?") * (change == "altered")
    with pytest.raises(
        RunError, match=f"is not what was promised: its sha256 digest is not {DIGEST.value}. It was thrown"
    ):
        bring()
    assert not bring.file.exists()
    assert [name for name in left_behind(bring.file) if name.endswith(".part")] == []
    server.files["/set.npz"] = CONTENT
    assert bring().read_bytes() == CONTENT


def test_without_a_digest_every_try_begins_anew(server, bring):
    server.cuts = [300_000, 400_000]
    assert bring(digest=None).read_bytes() == CONTENT
    assert [seen.range for seen in server.requests] == [None, None, None]


def test_a_busy_server_is_asked_again(server, bring):
    server.status = 503
    with pytest.raises(UsageError, match=r"the set could not be had from http://127\S+: it answers 503"):
        bring()
    assert len(server.requests) == 3
    server.status = None
    assert bring().read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_not_asked_for_again(server, bring):
    with pytest.raises(UsageError, match="it answers 404 Not Found"):
        bring("/other")
    assert len(server.requests) == 1


def test_nobody_there(bring, server):
    server.stop()
    started = time.monotonic()
    with pytest.raises(UsageError, match=r"could not be had from .*: Connection refused"):
        bring()
    assert time.monotonic() - started < 5


def test_a_server_that_never_answers(bring):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UsageError, match="timed out"):
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/x", bring.file, name="the set", timeout=0.2)


def test_no_other_kind_of_address(bring, tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(UsageError, match="no address"):
        download((tmp_path / "secret").as_uri(), bring.file, name="the set")


def test_authorization_stays_with_the_host_it_is_for(server, bring):
    elsewhere = FileServer()
    elsewhere.files["/set.npz"] = CONTENT
    server.redirects["/set.npz"] = elsewhere.address + "/set.npz"
    assert bring(authorization="Bearer mine").read_bytes() == CONTENT
    assert [seen.authorization for seen in server.requests] == ["Bearer mine"]
    assert [seen.authorization for seen in elsewhere.requests] == [None]
    elsewhere.stop()


def test_several_at_once_download_once(server, bring, capsys):
    server.stall = (400_000, threading.Event())
    threads = [threading.Thread(target=bring) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    server.stall[1].set()
    for thread in threads:
        thread.join()
    assert bring.file.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert capsys.readouterr().err.count("Waiting for another process that downloads the set.") == 2


def test_no_room(bring, monkeypatch):
    monkeypatch.setattr(source.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 500_000}))
    with pytest.raises(StorageError, match=r"too full for .*: 1\.0 MB more needed, 0\.5 MB free"):
        bring()


def test_a_disk_that_fills_up_is_no_cut_connection(server, bring, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    bring.file.parent.mkdir()
    bring.file.with_name(".set.npz.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        bring()
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_written_to(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        download(server.address + "/set.npz", tmp_path / "file" / "set.npz", name="the set")
    assert server.requests == []


def test_a_log_says_how_far_it_is(server, bring, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    bring()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("download: ")
    assert lines[0].endswith("of 1.0 MB")
    assert " left; the set, " in lines[0]
