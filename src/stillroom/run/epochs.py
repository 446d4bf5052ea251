"""Which epochs a run has trained, by what else stands in its folder, and which of them its history.jsonl lacks.

A line of history.jsonl is on the disk before the checkpoint of its epoch, and before the manifest notes the network at the
end of its training. Whenever a process is killed, every epoch that these tell of has its line.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.files.digests import ledger_above, read_lines
from stillroom.files.reading import in_short, read_json
from stillroom.run.claims import MANIFEST

HISTORY, CHECKPOINTS = "history.jsonl", "checkpoints"
NOTED = "networks"
"""In a manifest: each network that the run has made, by its role, as ``{"weights": digest, "epochs": lines in history}``."""

_DESCRIPTION = "model.json"  # as models/saving.py has it, which needs torch
_CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,9})\.pt")


def noted(manifest: dict[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """The networks of a manifest; none of a run of before they were noted. Raises UsageError, naming the file, if damaged."""
    found = manifest.get(NOTED, {})
    parts = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(part, dict) and isinstance(part.get("epochs"), int) for part in parts):
        raise UsageError(
            f"{file} is damaged: `{NOTED}` should hold weights and epochs by role, found {in_short(found)}."
        )
    return dict(found)


def lost_epochs(folder: Path) -> dict[str, list[int]]:
    """By role the epochs, from 1, that were trained and have no line in a run's or a part's history.jsonl.

    Empty where all have one, and for runs of before digests, whose lines cannot be told from damaged ones.

    Raises:
        UsageError: the manifest is damaged.
    """
    if ledger_above(folder / HISTORY) is None:
        return {}
    manifest = folder / MANIFEST
    trained = {
        role: network["epochs"]
        for role, network in noted(read_json(manifest), manifest).items()
        if (folder / role / _DESCRIPTION).is_file()
    }
    for path in (folder / CHECKPOINTS).rglob("checkpoint-*.pt"):
        if number := _CHECKPOINT.fullmatch(path.name):
            role = path.parent.relative_to(folder / CHECKPOINTS).as_posix()
            trained[role] = max(trained.get(role, 0), int(number[1]))
    told = {(line.get("role"), line.get("epoch")) for line in read_lines(folder / HISTORY).entries}
    missed = {role: [epoch for epoch in range(1, n + 1) if (role, epoch) not in told] for role, n in trained.items()}
    return {role: epochs for role, epochs in missed.items() if epochs}


def parts_of(run: Path) -> list[Path]:
    """The run's folder and those of its repeats and folds: each has a manifest and a history of its own."""
    return [run, *sorted(path.parent for kind in ("repeats", "folds") for path in run.glob(f"{kind}/*/{MANIFEST}"))]


def in_words(folder: Path, lost: dict[str, list[int]]) -> str:
    """What :func:`lost_epochs` found, as the beginning of a sentence."""
    epochs = "; ".join(f"{role} {_numbers(numbers)}" for role, numbers in lost.items())
    return f"{folder / HISTORY} lacks epochs that were trained ({epochs}), for lines of it were cut off or damaged"


def require_every_epoch(run: Path) -> None:
    """Raises UsageError where lines are lost by which an unfinished run would count what it has shown its networks."""
    for folder in parts_of(run):
        if lost := lost_epochs(folder):
            places = [place / role for role in lost for place in (folder / CHECKPOINTS, folder)]
            remove = shlex.join(["rm", "-r", *(str(place) for place in places if place.exists())])
            raise UsageError(
                f"{in_words(folder, lost)}: how long a control is to be trained is counted by it. Put back a copy of it, or "
                f"`{remove}`: what is removed is trained again, which on a CPU gives the same."
            )


def _numbers(epochs: list[int]) -> str:
    return str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
