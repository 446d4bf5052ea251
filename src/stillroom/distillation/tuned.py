"""Fine-tuned teachers in the cache: the same teacher, trained the same way on the same images, is trained once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.files.atomic import write_atomically
from stillroom.files.cache import cache_root, is_complete, publish, write_meta
from stillroom.files.digests import LIST, damage_in, sealed_states
from stillroom.models.saving import DESCRIPTION, WEIGHTS, load_network
from stillroom.progress import remark

_HISTORY = "history.json"


History = list[dict[str, Any]]
"""What a training logged, one entry per epoch."""


def recall(name: str, folder: Path, tell: Callable[[History], object] = lambda history: None) -> History | None:
    """Put the teacher called ``name`` into ``folder`` as a saved network.

    Args:
        name: a fingerprint of all that decided its training.
        folder: made if need be.
        tell: is given what its training logged, before the network stands in ``folder``: a kill in between loses nothing.

    Returns:
        What its training logged, one entry per epoch; None where it is not in the cache, and ``folder`` is left alone.
    """
    kept = _place(name)
    if not kept.is_dir():
        return None
    history = _history(kept)
    if history is None:
        damaged = kept / (damage_in(kept) or "")
        remark(f"{damaged} was changed or damaged after it was written: the teacher is thrown away and trained again.")
        shutil.rmtree(kept, ignore_errors=True)
        return None
    tell(history)
    for file in (WEIGHTS, DESCRIPTION):  # the description last: it tells that the network is there
        write_atomically(folder / file, partial(shutil.copyfile, kept / file))
    return history


def keep(name: str, folder: Path, history: list[dict[str, Any]]) -> None:
    """Put the network saved in ``folder`` into the cache, with what its training logged.

    Raises:
        StorageError: the disk is full.
    """

    def build(target: Path) -> None:
        for file in (WEIGHTS, DESCRIPTION):
            shutil.copyfile(folder / file, target / file)
        (target / _HISTORY).write_text(json.dumps(history), encoding="utf-8")
        write_meta(target, {"network": name})

    publish(_place(name), build)


def _history(kept: Path) -> list[dict[str, Any]] | None:
    """What the training of a teacher in the cache logged; None where anything of the teacher is damaged."""
    states = sealed_states(kept)
    if not is_complete(kept) or not {"whole", "no digest"}.issuperset(states.values()):
        return None
    try:
        if LIST not in states:  # of before digests: the network knows its own
            load_network(kept)
        history = json.loads((kept / _HISTORY).read_text(encoding="utf-8"))
    except (UsageError, OSError, ValueError):
        return None
    return history if isinstance(history, list) and all(isinstance(line, dict) for line in history) else None


def _place(name: str) -> Path:
    return cache_root() / "teachers" / name
