"""How the files of a run, and of the cache, stand by their digests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.files.cache import cache_root
from stillroom.files.digests import LIST, META, State, ledger_states, sealed_states, sha256_of
from stillroom.files.own_digest import end_state, own_state
from stillroom.files.reading import read_json
from stillroom.run.claims import MANIFEST


@dataclass(frozen=True)
class Checked:
    """A file and how it stands.

    Attributes:
        path: the file.
        state: ``whole`` (as it was written), ``damaged`` (changed since), ``no digest`` (of before digests, or not of
            ours), ``missing`` or ``unreadable``.
        remade: whether what uses it makes it again where it is damaged, so that nothing need be done.
    """

    path: Path
    state: State
    remade: bool


def files_of_run(run: Path) -> list[Checked]:
    """Every file of a run folder, hidden ones left out, and those that are gone; each is read whole."""
    found, before = [], _noted_at_the_end(run)
    for name, state in ledger_states(run):
        path = run / name
        if state == "no digest" and name in before:
            state = _by(before[name], path)
        if "checkpoints" in path.parts[len(run.parts) :] and path.suffix == ".pt":
            numbered = "-" in path.stem
            found.append(Checked(path, end_state(path) if numbered else state, remade=True))
        elif path.suffix == ".onnx" and state in ("whole", "no digest"):
            own = own_state(path)
            found.append(Checked(path, state if own == "no digest" else own, remade=False))
        else:
            found.append(Checked(path, state, remade=False))
    return found


def _noted_at_the_end(run: Path) -> dict[str, Any]:
    """By name the SHA-256 that a finished run's manifest notes of networks, exported file and predictions.

    The one digest of a run that was made before there was a list of them.
    """
    try:
        hashes = read_json(run / MANIFEST).get("sha256")
    except (UsageError, FileNotFoundError):
        return {}
    return hashes if isinstance(hashes, dict) else {}


def _by(digest: Any, path: Path) -> State:
    if sha256_of(path) == digest:
        return "whole"
    return "no digest" if path.suffix == ".onnx" else "damaged"  # an earlier Stillroom exported again without noting it


def files_of_cache(root: Path | None = None) -> list[Checked]:
    """Every file of the cache's stores, banks and teachers; each is read whole. Default: the user's cache."""
    root = root or cache_root()
    folders = sorted(meta.parent for meta in root.glob(f"*/*/{META}")) if root.is_dir() else []
    folders += sorted(known.parent for known in root.glob(f"*/*/{LIST}") if not (known.parent / META).exists())
    return [
        Checked(folder / name, state, remade=True)
        for folder in folders
        if not folder.name.startswith(".")
        for name, state in sealed_states(folder).items()
    ]
