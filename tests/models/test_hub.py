"""A hub on loopback: what is downloaded, gone on with, checked, refused and kept, and in which words."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import huggingface_hub
import pytest
from hub_server import Hub
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from stillroom import progress
from stillroom.errors import RunError, StorageError, UsageError
from stillroom.files import download as downloading
from stillroom.models import hub as client
from stillroom.models.zoo import create

WEIGHTS = bytes(range(256)) * 4000
"""1,024,000 bytes: large enough to be redirected to another host, as large files of the hub are."""
BLOB = f"/blobs/{hashlib.sha256(WEIGHTS).hexdigest()}"
CONFIG = json.dumps({"architecture": "test_vit"}).encode()
NAME = "clinic/eye"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one repository, which the client takes for the hub; its cache is empty and nobody is logged in."""
    server = Hub()
    server.publish(NAME, {"config.json": CONFIG, "model.safetensors": WEIGHTS})
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(downloading, "PAUSES_S", (0.0, 0.0))
    yield server
    server.stop()


def stray(tmp_path):
    """Files of the cache that are no whole file."""
    return list((tmp_path / "cache").rglob(".*.part"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("timm/vit_tiny.augreg", ("timm/vit_tiny.augreg", None)),
        ("a/b@v1.0", ("a/b", "v1.0")),
        ("a/b@refs/pr/1", ("a/b", "refs/pr/1")),
    ],
)
def test_names_are_split(name, parts):
    assert client.split(name) == parts


@pytest.mark.parametrize(
    "name",
    [
        "vit",
        "a/b/c",
        "a/b@",
        "/b",
        "a/../b",
        "a/b@../x",
        "a b/c",
        "https://a/b",
        "a/b@x@y",
        "",
        "a--b/c",
        "a/" + 99 * "b",
    ],
)
def test_other_names_are_refused_with_an_example(name):
    with pytest.raises(UsageError, match=r"OWNER/NAME@revision.*e\.g\. timm/"):
        client.split(name)


def test_files_come_whole_and_stay(hub, tmp_path):
    commit = hub.repositories[NAME].revisions["main"]
    assert client.commit_of(NAME) is None
    assert client.fetch_config("Eye", NAME) == {"architecture": "test_vit"}
    path = client.fetch("Eye", NAME)
    assert path.read_bytes() == WEIGHTS
    assert client.commit_of(NAME) == client.commit_of(NAME, commit) == commit == path.parent.name
    assert client.is_cached(NAME)
    hub.stop()
    assert client.fetch("Eye", NAME) == path == client.fetch_any("Eye", NAME, ("other.bin", "model.safetensors"))
    assert client.fetch("Eye", NAME, revision=commit) == path
    # Other programs find it as if the client had downloaded it.
    assert huggingface_hub.hf_hub_download(NAME, "model.safetensors", local_files_only=True) == str(path)
    assert stray(tmp_path) == []


def refused(*arguments, kind=UsageError, **keywords):
    """The words in which ``fetch`` refuses, in one line."""
    with pytest.raises(kind) as caught:
        client.fetch("Eye", *(arguments or (NAME,)), **keywords)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what came ----------------------------------------------------------------------------------------------------
def test_a_cut_download_goes_on_at_once(hub):
    hub.cdn.cuts = [400_000]
    assert client.fetch("Eye", NAME).read_bytes() == WEIGHTS
    assert [seen.range for seen in hub.cdn.requests] == [None, "bytes=400000-"]


def test_a_cut_download_goes_on_with_the_next_call(hub, tmp_path):
    hub.cdn.cuts = [400_000, 0, 0]
    assert "model.safetensors of Eye from http://127" in (said := refused(kind=RunError))
    assert "was cut after 0.4 MB" in said
    assert "the next try goes on from there" in said
    assert not client.is_cached(NAME)
    assert len(stray(tmp_path)) == 1
    hub.cdn.requests.clear()
    assert client.fetch("Eye", NAME).read_bytes() == WEIGHTS
    assert [seen.range for seen in hub.cdn.requests] == ["bytes=400000-"]
    assert stray(tmp_path) == []


def test_weights_of_another_digest_are_refused(hub, tmp_path):
    hub.cdn.files[BLOB] = WEIGHTS[:-1] + b"!"
    assert "its sha256 digest is not" in (said := refused(kind=RunError))
    assert "thrown away" in said
    assert not client.is_cached(NAME)
    assert stray(tmp_path) == []
    hub.cdn.files[BLOB] = WEIGHTS
    assert client.fetch("Eye", NAME).read_bytes() == WEIGHTS


def test_small_files_are_held_against_gits_name_for_them(hub):
    hub.repositories[NAME].etags["config.json"] = "0" * 40
    assert "its git digest is not 0000" in refused(NAME, file="config.json", kind=RunError)


def test_a_server_without_digests_is_not_believed(hub):
    hub.repositories[NAME].etags["config.json"] = "../../of-a-proxy"
    assert "does not answer as a hub does" in refused(NAME, file="config.json")


def test_progress_is_shown(hub, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    client.fetch("Eye", NAME)
    first = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(r"download: \d+ %, about \d+ s left; model\.safetensors of Eye, .* of 1\.0 MB", first)


def test_two_at_once_download_once(hub):
    threads = [threading.Thread(target=client.fetch, args=("Eye", NAME)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.is_cached(NAME)
    assert len(hub.cdn.gets()) == 1


# -- which file of which commit -----------------------------------------------------------------------------------
def test_the_first_of_several_names(hub):
    hub.publish("clinic/old", {"open_clip_model.bin": b"old", "pytorch_model.bin": b"new"})
    names = ("model.safetensors", "pytorch_model.bin", "open_clip_model.bin")
    assert client.fetch_any("Old", "clinic/old", names).read_bytes() == b"new"
    hub.publish("clinic/old", {"model.safetensors": b"newer"})
    # What is in the cache is taken, though the hub has a better one by now.
    assert client.fetch_any("Old", "clinic/old", names).read_bytes() == b"new"


def test_a_fixed_revision(hub):
    first = hub.publish("clinic/lung", {"config.json": b'{"a": 1}'}, tag="v1")
    second = hub.publish("clinic/lung", {"config.json": b'{"a": 2}'})
    read = lambda revision: client.fetch_config("Lung", "clinic/lung", revision=revision)["a"]  # noqa: E731
    assert [read(first), read("v1"), read("main"), read(None), read(second)] == [1, 1, 2, 2, 2]
    assert client.commit_of("clinic/lung", "v1") == client.commit_of("clinic/lung", first) == first
    assert client.commit_of("clinic/lung") == second
    assert client.commit_of("clinic/lung", "v2") is None


def test_files_of_a_revision_come_from_one_commit(hub):
    first = hub.publish("clinic/lung", {"config.json": b'{"a": 1}', "model.safetensors": b"of 1"})
    assert client.fetch_config("Lung", "clinic/lung") == {"a": 1}
    hub.publish("clinic/lung", {"config.json": b'{"a": 2}', "model.safetensors": b"of 2"})
    assert client.fetch("Lung", "clinic/lung").read_bytes() == b"of 1"
    assert client.commit_of("clinic/lung") == first
    # A commit that the hub has lost meanwhile is said to come from the cache.
    del hub.repositories["clinic/lung"].commits[first]
    assert f"no revision {first} (which the cache held; remove " in refused("clinic/lung", file="other.bin")


def test_shards(hub):
    shards = {"model-1-of-2.safetensors": b"one", "model-2-of-2.safetensors": b"two"}
    table = {"head": "model-2-of-2.safetensors", "a": "model-1-of-2.safetensors", "b": "model-1-of-2.safetensors"}
    index = {"model.safetensors.index.json": json.dumps({"weight_map": table}).encode()}
    hub.publish("clinic/giant", {**index, **shards})
    assert [path.read_bytes() for path in client.fetch_shards("Giant", "clinic/giant")] == [b"one", b"two"]


@pytest.mark.parametrize("table", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../b.bin"}}])
def test_a_broken_table_of_shards(hub, table):
    hub.publish("clinic/flat", {"model.safetensors.index.json": json.dumps(table).encode()})
    with pytest.raises(UsageError, match="has no table weight_map"):
        client.fetch_shards("Flat", "clinic/flat")


@pytest.mark.parametrize(("content", "words"), [(b"{", "is not JSON"), (b"[]", "is not a JSON object")])
def test_a_broken_config(hub, content, words):
    hub.publish("clinic/broken", {"config.json": content})
    with pytest.raises(UsageError, match=f"config.json of clinic/broken {words}"):
        client.fetch_config("Broken", "clinic/broken")


# -- what is not there --------------------------------------------------------------------------------------------
def test_an_unknown_file(hub):
    said = refused(NAME, file="weights.bin")
    assert said.startswith(
        f"{NAME} has no weights.bin. There are: config.json, model.safetensors. See {hub.address}/{NAME}"
    )


def test_an_unknown_revision(hub):
    assert f"no revision v9. See {hub.address}/{NAME}/tree/main" in refused(NAME, revision="v9")


def test_an_unknown_repository(hub, monkeypatch):
    said = refused("clinic/nothing")
    assert f"{hub.address} has no such repository. If it is a private one, run `hf auth login`" in said
    hub.accounts["hf_mine"] = "me"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert "has no such repository. If it is a private one, your token must have access" in refused("clinic/nothing")


def test_nobody_answers(hub):
    hub.stop()
    started = time.monotonic()
    said = refused()
    assert time.monotonic() - started < 5
    assert f"{hub.address} cannot be reached (" in said
    assert "--weights" in said
    assert "HF_ENDPOINT" in said
    assert not client.answers(1)


def test_somebody_who_never_answers(monkeypatch, hub):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        assert "cannot be reached (timed out)" in refused()


def test_a_hub_that_is_lost_at_the_very_end(hub, monkeypatch):
    def lost(*_, **__):
        raise LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub")

    with monkeypatch.context() as patched:
        patched.setattr(client, "hf_hub_download", lost)
        assert f"{hub.address} cannot be reached" in refused()
    assert client.fetch("Eye", NAME).read_bytes() == WEIGHTS
    assert len(hub.cdn.gets()) == 1


def test_the_host_of_the_large_files_does_not_answer(hub):
    hub.cdn.stop()
    assert (
        f"model.safetensors of Eye could not be had from {hub.cdn.address}: Connection refused. Give --w" in refused()
    )


def test_a_hub_in_trouble(hub):
    hub.status = 500
    assert f"{hub.address} answers 500. Try again later" in refused()


def test_a_proxy_that_forbids_is_not_taken_for_a_gate(hub):
    hub.status = 403
    said = refused()
    assert f"{hub.address} answers 403. Try again later" in said
    assert "gated" not in said


def test_a_full_disk(hub, monkeypatch):
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 500_000}))
    assert "1.0 MB more needed, 0.5 MB free. Make room. Or set HF_HOME" in refused(kind=StorageError)


def test_offline_by_wish(hub, monkeypatch, tmp_path):
    client.fetch("Eye", NAME, file="config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert client.fetch_config("Eye", NAME) == {"architecture": "test_vit"}
    assert f"HF_HUB_OFFLINE is set, and the cache {tmp_path / 'cache'} does not hold it" in refused()
    assert "HF_HUB_OFFLINE is set" in refused("https://example.org/eye.pth")
    assert not client.answers(1)
    assert hub.requests == []


def test_a_file_under_no_hub(hub, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    address = hub.cdn.address + "/releases/eye-1234.pth?download=1"
    hub.cdn.files["/releases/eye-1234.pth"] = WEIGHTS
    hub.cdn.cuts = [400_000]
    assert not client.is_cached(address)
    path = client.fetch("Eye", address)
    assert path.read_bytes() == WEIGHTS
    assert path == tmp_path / "torch" / "checkpoints" / "eye-1234.pth"
    assert client.is_cached(address)
    hub.stop()
    assert client.fetch("Eye", address) == path
    said = refused(hub.cdn.address + "/other.pth")
    assert "the weights of Eye could not be had from http://127" in said
    assert "Give --weights" in said


# -- who may have it ----------------------------------------------------------------------------------------------
@pytest.fixture
def gated(hub):
    hub.publish("clinic/uni", {"config.json": CONFIG, "model.safetensors": WEIGHTS}, gated=True)
    hub.accounts |= {"hf_member": "member", "hf_other": "other"}
    hub.repositories["clinic/uni"].members = ("member",)
    return hub


def test_a_gated_repository_without_a_token(gated):
    said = refused("clinic/uni")
    assert "it is gated, and no token is given" in said
    assert f"Ask for access on {gated.address}/clinic/uni, then run `hf auth login`, or put a token" in said
    assert "HF_TOKEN" in said


def test_a_token_without_access(gated, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    said = refused("clinic/uni")
    assert "it is gated, and your token has no access to it" in said
    assert f"Ask for access on {gated.address}/clinic/uni with the account of the token" in said
    assert "hf_other" not in said


def test_a_token_that_may_not_read_gated_repositories(gated, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    words = "Please enable access to public gated repositories in your fine-grained token settings."
    monkeypatch.setattr(gated, "respond", lambda to, path: gated.refuse(to, 403, "", words))
    assert "a fine-grained token must also be allowed to read gated repositories" in refused("clinic/uni")


def test_a_token_that_nobody_knows(gated, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "the hub does not accept your token. Run `hf auth login`" in refused("clinic/uni")
    assert "the hub does not accept your token" in refused()


@pytest.mark.parametrize("way", ["environment", "login"])
def test_a_token_with_access_goes_to_the_hub_alone(gated, monkeypatch, tmp_path, way):
    if way == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_member")
    else:
        (tmp_path / "token").write_text("hf_member")
    assert client.fetch_config("Uni", "clinic/uni") == {"architecture": "test_vit"}
    assert client.fetch("Uni", "clinic/uni").read_bytes() == WEIGHTS
    assert {seen.authorization for seen in gated.requests if "resolve" in seen.path} == {"Bearer hf_member"}
    assert {seen.authorization for seen in gated.cdn.requests} == {None}


# -- networks -----------------------------------------------------------------------------------------------------
def test_a_network_of_a_gated_repository_at_a_revision(gated, monkeypatch):
    import timm
    import torch
    from safetensors.torch import save

    published = timm.create_model("test_vit")
    files = {
        "config.json": CONFIG,
        "pytorch_model.bin": b"an older form",
        "model.safetensors": save(published.state_dict()),
    }
    commit = gated.publish("clinic/uni", files, tag="v1")
    gated.publish("clinic/uni", {"config.json": b"{}"})
    name = "hf-hub:clinic/uni@v1"
    with pytest.raises(UsageError, match=r"config\.json of hf-hub:clinic/uni@v1: it is gated, and no token is given"):
        create(name, classes=2, pretrained=True)
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    network = create(name, classes=2, pretrained=True)
    assert torch.equal(network.backbone.blocks[0].mlp.fc1.weight, published.blocks[0].mlp.fc1.weight)
    assert client.commit_of("clinic/uni", "v1") == commit


# -- the command itself -------------------------------------------------------------------------------------------
TINY = [
    *("--student", "test_resnet", "--no-student-pretrained", "--teacher", "test_vit", "--teacher-size", "32"),
    *("--size", "32", "--epochs", "1", "--views", "1", "--batch-size", "16", "--resamples", "100", "--no-latency"),
    *("--device", "cpu", "--explain", "0", "--no-plan", "--no-control", "--no-rivals"),
]


@pytest.fixture
def stillroom(tmp_path, monkeypatch):
    """``stillroom(words, **environment)`` runs the command on a terminal; returns its exit code and what stands there."""
    pty = pytest.importorskip("pty")
    for variable in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "STILLROOM_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)

    def run(*words, **environment):
        screen, terminal = pty.openpty()
        ours = {"HF_HOME": str(tmp_path / "home"), "COLUMNS": "120", "TERM": "xterm"}
        process = subprocess.Popen(
            [sys.executable, "-m", "stillroom", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            env={**os.environ, **ours, **environment},
        )
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # the end of a terminal
            while block := os.read(screen, 4096):
                shown += block
        os.close(screen)
        return process.wait(), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r\n", "\n")

    return run


@pytest.mark.prove
def test_a_run_downloads_its_teacher_and_needs_no_hub_afterwards(hub, stillroom, tmp_path):
    import timm
    from safetensors.torch import save

    hub.publish("timm/test_vit.r160_in1k", {"model.safetensors": save(timm.create_model("test_vit").state_dict())})
    hub.cdn.cuts = [500_000]
    distill = ["distill", "phantoms:60", *TINY]
    code, shown = stillroom(*distill, "--out", tmp_path / "first", HF_ENDPOINT=hub.address)
    assert code == 0, shown
    assert re.search(r"download .*\d% +\S+ +left +model\.safetensors of test_vit, .* of 1\.\d MB", shown), shown
    assert [seen.range for seen in hub.cdn.gets()] == [None, "bytes=500000-"]
    assert (tmp_path / "first" / "report.html").is_file()
    hub.stop()
    code, shown = stillroom(*distill, "--out", tmp_path / "again", HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="1")
    assert code == 0, shown
    assert "download" not in shown
    # Other weights would have given another teacher's answers.
    first, again = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("first", "again"))
    assert first["test"]["teacher"] == again["test"]["teacher"]


@pytest.mark.parametrize("trouble", ["nobody there", "gated"])
def test_the_command_says_what_is_wrong_in_one_line(hub, stillroom, tmp_path, trouble):
    hub.publish("timm/test_vit.r160_in1k", {"model.safetensors": WEIGHTS}, gated=True)
    if trouble == "nobody there":
        hub.stop()
    code, shown = stillroom("distill", "phantoms:60", *TINY, "--out", tmp_path / "run", HF_ENDPOINT=hub.address)
    assert code == 2
    assert "Traceback" not in shown
    words = {"nobody there": f"{hub.address} cannot be reached", "gated": "it is gated, and no token is given"}[trouble]
    assert words in " ".join(shown.split())
