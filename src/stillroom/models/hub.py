"""Published models from a hub that speaks Hugging Face's protocol: out of the local cache, else over the network."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, validate_repo_id

from stillroom.errors import StillroomError, StorageError, UsageError
from stillroom.files.atomic import write_atomically
from stillroom.files.download import Digest, download

FILE = "model.safetensors"

_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./+-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"\w[\w-]*(\.[\w-]+)+", re.ASCII)
_SHOWN = 12


def split(name: str) -> tuple[str, str | None]:
    """``OWNER/NAME[@revision]`` as repository and revision; None where no revision is named.

    Raises:
        UsageError: it is written otherwise.
    """
    found = _NAME.fullmatch(name)
    try:
        validate_repo_id(found["repository"] if found else "")
    except HFValidationError:
        found = None
    if found is None or ".." in name:
        raise UsageError(
            f"{name!r} is no repository of the hub: write OWNER/NAME or OWNER/NAME@revision (a branch, tag or commit), "
            "e.g. timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k@main."
        )
    return found["repository"], found["revision"]


def fetch(name: str, source: str, *, file: str = FILE, revision: str | None = None) -> Path:
    """The local copy of a model's published file, downloaded if need be. See :func:`fetch_any`.

    Args:
        name: the model's, for errors and progress.
        source: a repository of the hub, or the address of a file.
        file: which of the repository's files.
        revision: which of the repository's branches, tags or commits.
    """
    return _from_address(name, source) if _is_address(source) else fetch_any(name, source, (file,), revision=revision)


def fetch_any(name: str, repository: str, files: Sequence[str], *, revision: str | None = None) -> Path:
    """The local copy of the first of several files that a repository has.

    The cache answers first, without asking the hub: what was downloaded once stays as it is, and all files of a
    revision come from one commit. A download goes on where it was cut, and is taken only if it has the digest that
    the hub states.

    Args:
        name: the model's, for errors and progress.
        repository: ``OWNER/NAME``.
        files: their names, the best first.
        revision: a branch, tag or commit. None is ``main``.

    Raises:
        UsageError: there is no connection, no such repository, revision or file, or no access to it.
        RunError: the download was cut, or is not what the hub states.
        StorageError: the disk is full, or the cache cannot be written to.
    """
    for file in files:
        if cached := _cached(repository, file, revision):
            return cached
    # A commit that is in the cache goes on being used: config and weights must not come from two.
    commit = commit_of(repository, revision)
    for file in files:
        try:
            return _from_hub(name, repository, file, revision or constants.DEFAULT_REVISION, commit)
        except StillroomError:
            raise
        except Exception as error:  # the hub's client has changed its exceptions with every major version
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            raise _refusal(error, name, repository, file, revision, commit) from error
    raise UsageError(
        f"{repository} has no {' and no '.join(files)}{_at(revision)}.{_list(repository, commit or revision)} "
        f"See {_page(repository)}."
    )


def fetch_shards(
    name: str, repository: str, *, index: str = f"{FILE}.index.json", revision: str | None = None
) -> list[Path]:
    """The local copies of weights that are published in several files, in the order of their names.

    Args:
        name: the model's, for errors and progress.
        repository: ``OWNER/NAME``.
        index: the file that says which tensor is in which file.
        revision: see :func:`fetch_any`, which also says what is raised.
    """
    table = fetch_config(name, repository, file=index, revision=revision)
    places = table.get("weight_map")
    files = sorted({str(file) for file in places.values()}) if isinstance(places, dict) else []
    if not files or not all(_SHARD.fullmatch(file) for file in files):
        raise UsageError(f"{index} of {repository} has no table weight_map of tensors and files.")
    return [fetch(name, repository, file=file, revision=revision) for file in files]


def fetch_config(
    name: str, repository: str, *, file: str = "config.json", revision: str | None = None
) -> dict[str, Any]:
    """What a repository's JSON file says. See :func:`fetch_any` for the arguments and what is raised."""
    path = fetch(name, repository, file=file, revision=revision)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} of {repository} is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} of {repository} is not a JSON object.")
    return content


def commit_of(repository: str, revision: str | None = None) -> str | None:
    """The 40 digits of the commit that the local cache holds of a revision; None where it holds none. No network."""
    revision = revision or constants.DEFAULT_REVISION
    folder = _folder(repository)
    if (folder / "snapshots" / revision).is_dir() and _COMMIT.fullmatch(revision):
        return revision
    ref = folder / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""
    return commit if _COMMIT.fullmatch(commit) else None


def is_cached(source: str, *, file: str = FILE, revision: str | None = None) -> bool:
    """Whether a published file lies in the local cache already; see :func:`fetch` for the arguments."""
    if _is_address(source):
        return _file_of(source).is_file()
    return _cached(source, file, revision) is not None


def answers(seconds: float) -> bool:
    """Whether the hub can be reached, and answers within so many seconds."""
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception:  # the hub's client has changed its exceptions with every major version
        return False
    return True


def _cached(repository: str, file: str, revision: str | None) -> Path | None:
    found = try_to_load_from_cache(repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _folder(repository: str) -> Path:
    """Where the client's cache keeps a repository."""
    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _from_hub(name: str, repository: str, file: str, revision: str, commit: str | None) -> Path:
    """Download a file into the client's cache, in the layout that the client documents.

    The client itself (2.4) throws away what came before a cut, and checks no more of a file than its size. So the
    content is brought here, under the name that the client gives it, and the client is left to put it into its place.
    """
    # Where there is no connection some versions of the client try again and again for most of a minute.
    get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    facts = get_hf_file_metadata(
        hf_hub_url(repository, file, revision=commit or revision), timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    etag = facts.etag or ""
    if facts.commit_hash is None or not (_SHA256.fullmatch(etag) or _COMMIT.fullmatch(etag)):
        raise UsageError(
            f"{constants.ENDPOINT} does not answer as a hub does: it states no commit or no digest for {file} of "
            f"{repository}. Check HF_ENDPOINT and the proxy."
        )
    # The hub names large files by SHA-256 and small ones as git does.
    digest = Digest("sha256" if _SHA256.fullmatch(etag) else "git", etag)
    # What lies elsewhere has a signed address, and no other host is to see the token.
    ours = urlsplit(facts.location)[:2] in [
        urlsplit(hub)[:2] for hub in (constants.ENDPOINT, constants.HUGGINGFACE_CO_URL_HOME)
    ]
    authorization = build_hf_headers().get("authorization", "") if ours else ""
    blob = _folder(repository) / "blobs" / etag
    try:
        download(
            facts.location,
            blob,
            name=f"{file} of {name}",
            digest=digest,
            authorization=authorization,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
    except StorageError as error:
        raise StorageError(f"{error} Or set HF_HOME to a folder on another disk.") from error
    except UsageError as error:
        raise UsageError(f"{error} {_elsewhere(file)}.") from error
    path = Path(hf_hub_download(repository, file, revision=facts.commit_hash))
    if revision != facts.commit_hash and commit is None:
        write_atomically(_folder(repository) / "refs" / revision, lambda ref: ref.write_text(str(facts.commit_hash)))
    return path


def _refusal(
    error: Exception, name: str, repository: str, file: str, revision: str | None, commit: str | None
) -> UsageError:
    """What the client's exception means, and what can be done about it."""
    page = _page(repository)
    known = "authorization" in build_hf_headers()
    status = getattr(getattr(error, "response", None), "status_code", None)
    words = str(getattr(error, "server_message", None) or "").strip()
    gated = isinstance(error, GatedRepoError) or (status == 403 and "gated" in words)
    login = "`hf auth login`, or put a token of your account into HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        said = (
            f"HF_HUB_OFFLINE is set, and the cache {constants.HF_HUB_CACHE} does not hold it. Unset HF_HUB_OFFLINE, or "
            "copy the cache of a machine that has it"
        )
    elif isinstance(error, RevisionNotFoundError):
        held = f" (which the cache held; remove {_folder(repository)} to begin anew)" if commit else ""
        said = f"the repository has no revision {commit or revision}{held}. See {page}/tree/main for what it has"
    elif gated:
        said = f"it is gated, and no token is given. Ask for access on {page}, then run {login}"
        if known and status == 403:
            said = (
                f"it is gated, and your token has no access to it. Ask for access on {page} with the account of the "
                "token, and wait until it is granted; a fine-grained token must also be allowed to read gated repositories"
            )
        elif known:
            said = f"it is gated, and the hub does not accept your token. Run {login}; access is asked for on {page}"
    elif status == 401 and known and not isinstance(error, RepositoryNotFoundError):
        said = f"the hub does not accept your token. Run {login}"
    elif status in (401, 404):
        private = "your token must have access" if known else f"run {login}"
        said = f"{constants.ENDPOINT} has no such repository. If it is a private one, {private}"
    elif status is not None:
        reason = f" ({words.splitlines()[0].rstrip('.')})" if words else ""
        said = f"{constants.ENDPOINT} answers {status}{reason}. Try again later. {_elsewhere(file)}"
    else:
        said = f"{constants.ENDPOINT} cannot be reached ({_first_line(error)}). {_elsewhere(file)}"
    of = name if repository in name else f"{name} ({repository})"
    return UsageError(f"Could not download {file} of {of}: {said}.")


def _elsewhere(file: str) -> str:
    """Where else a file can come from."""
    given = "--weights with a file or folder that holds them"
    if file.endswith(".json"):
        given = f"the path of a folder that holds {file} and the weights instead of this name"
    return (
        f"Give {given}, name a mirror in HF_ENDPOINT, bring the cache of a machine that has it, or take random weights"
    )


def _list(repository: str, revision: str | None) -> str:
    """The files that a repository has, as a sentence; empty where the hub does not say."""
    try:
        there = sorted(
            s.rfilename
            for s in HfApi().model_info(repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT).siblings
            or ()
        )
    except Exception:  # no list is no failure of its own
        return ""
    rest = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return f" There are: {', '.join(there[:_SHOWN])}{rest}." if there else " It has no files."


def _at(revision: str | None) -> str:
    return f" at revision {revision}" if revision else ""


def _page(repository: str) -> str:
    return f"{constants.ENDPOINT}/{repository}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _is_address(source: str) -> bool:
    return source.startswith(("https://", "http://"))


def _from_address(name: str, address: str) -> Path:
    """A file that stands under no hub. Its size is all that can be checked."""
    file = _file_of(address)
    if file.is_file():
        return file
    try:
        if constants.HF_HUB_OFFLINE:
            raise UsageError(f"HF_HUB_OFFLINE is set, and {file}, the weights of {name}, is not there.")
        return download(address, file, name=f"the weights of {name}")
    except StorageError:
        raise
    except StillroomError as error:
        raise type(error)(f"{error} {_elsewhere(FILE)}.") from error


def _file_of(address: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(address).path).name
