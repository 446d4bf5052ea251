"""Published weights from timm's hub: out of the local cache, else over the network, failing fast."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.utils import get_session

from stillroom.errors import UsageError

FILE = "model.safetensors"
TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer."""


def fetch(name: str, source: str) -> Path:
    """The local copy of a model's published weights, downloaded if need be.

    Args:
        name: the model's, for errors.
        source: a repository of the hub, or the address of a file.

    Raises:
        UsageError: the hub or the file cannot be reached.
    """
    try:
        return _from_address(source) if source.startswith("https://") else _from_hub(source)
    except Exception as error:  # the hub's client has changed its exceptions with every major version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"Could not download the pretrained weights of {name} ({source}): {reason}. Give --weights with "
            "a file or folder that holds them, or start from random weights."
        ) from error


def is_cached(source: str) -> bool:
    """Whether published weights lie in the local cache already; see :func:`fetch` for ``source``."""
    if source.startswith("https://"):
        return _file_of(source).is_file()
    return isinstance(try_to_load_from_cache(source, FILE), str)


def answers(seconds: float) -> bool:
    """Whether the hub can be reached, and answers within so many seconds."""
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception:  # the hub's client has changed its exceptions with every major version
        return False
    return True


def _from_hub(repository: str) -> Path:
    cached = try_to_load_from_cache(repository, FILE)
    if isinstance(cached, str):
        return Path(cached)
    # Without a connection the client would try again and again for the better part of a minute.
    get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    return Path(hf_hub_download(repository, FILE))


def _from_address(address: str) -> Path:
    file = _file_of(address)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(file))
    return file


def _file_of(address: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(address).path).name
