"""A hub on loopback: what is downloaded, gone on with, checked, refused and kept, and in which words."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
from hub_server import Hub
from huggingface_hub import constants

from stillroom.errors import UsageError
from stillroom.files import download as downloading
from stillroom.models import hub as client

WEIGHTS = bytes(range(256)) * 4000
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
    "name", ["vit", "a/b/c", "a/b@", "/b", "a/../b", "a/b@../x", "a b/c", "https://a/b", "a/b@x@y", ""]
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
