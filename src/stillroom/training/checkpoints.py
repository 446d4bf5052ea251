"""The states that a training goes on from: the last two are kept, each with its digest at its end.

A folder holds ``checkpoint-<epoch>.pt`` and, where the best weights are of another epoch than the last, ``best-<epoch>.pt``.
One that is damaged is thrown away, and the training goes on from the one before; it repeats the epochs since, and ends with
the same weights. Without any it starts anew.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillroom.files.atomic import write_atomically
from stillroom.files.own_digest import end_state, seal_end
from stillroom.progress import remark

State = dict[str, Any]
"""What a checkpoint holds: tensors, plain values, and dicts and lists of them; ``epoch`` and ``best_epoch`` among them."""

_KEPT = 2
_BEST = {"student": dict}
_STATE = {"student": dict, "objective": dict, "optimizer": dict, "epoch": int, "best_epoch": int, "waited": int}
"""What a training takes from a file, and of what type; one that lacks any of it is damaged."""


def save(folder: Path, state: State, best: State | None) -> None:
    """Write a checkpoint, and remove those that are older than the one before it.

    Args:
        folder: made if need be.
        state: what training goes on from.
        best: the best weights, where this epoch's are.

    Raises:
        StorageError: the disk is full.
    """
    epoch = state["epoch"]
    if best is not None:  # first: if the process dies in between, the epoch is repeated and both are written again
        _write(_best(folder, epoch), best)
    _write(folder / f"checkpoint-{epoch}.pt", state)
    kept = _numbered(folder, "checkpoint")[-_KEPT:]
    bests = _numbered(folder, "best")
    needed = {state["best_epoch"], max((number for number in bests if number <= kept[0]), default=0)}
    for number in set(_numbered(folder, "checkpoint")) - set(kept):
        (folder / f"checkpoint-{number}.pt").unlink()
    for number in set(bests) - needed:
        _best(folder, number).unlink()


def newest(folder: Path, device: torch.device, fits: Callable[[State], bool] = lambda state: True) -> State | None:
    """The last state that can be gone on from; None where there is none. What is damaged is removed, which is said.

    Args:
        folder: may be absent.
        device: where its tensors are wanted.
        fits: whether a state is one of this training, see :func:`is_of`; also asked of the best weights.
    """
    found = [folder / f"checkpoint-{number}.pt" for number in reversed(_numbered(folder, "checkpoint"))]
    if (before := folder / "checkpoint.pt").is_file():  # of a Stillroom that kept one, without a digest
        found.append(before)
    for path in found:
        state = _read(path, device, _STATE, sealed=path != before)
        state = state if state is not None and fits(state) else None
        if state is not None and _has_best(folder, state, fits):
            return state
        path.unlink()
        damaged = path if state is None else _best(folder, state["best_epoch"])
        goes_on = "training goes on from the one before" if path != found[-1] else "this training starts anew"
        remark(f"{damaged} was changed or damaged after it was written: {goes_on}.")
    return None


def best_weights(folder: Path, epoch: int, device: torch.device) -> State | None:
    """The best weights, of this epoch; None where they are damaged or gone."""
    path = _best(folder, epoch)
    return _read(path, device, _BEST) if path.is_file() else _read(folder / "best.pt", device, _BEST, sealed=False)


def is_of(state: State, student: State, objective: State, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a state, or best weights alone, can be taken up: the same names and shapes as what stands now.

    Args:
        state: as read from a file.
        student: what :func:`~stillroom.models.adapters.learnt` tells of the network that it is for.
        objective: the same of the objective.
        optimizer: of both.
    """
    if not _alike(state["student"], student):
        return False
    if "epoch" not in state:
        return True
    losses = [state.get(name, 0) for name in ("losses", "best_losses")]
    told = all(value is None or (isinstance(value, Tensor) and value.ndim == 1) for value in losses)
    return told and _alike(state["objective"], objective) and _is_of_optimizer(state["optimizer"], optimizer)


def _alike(found: Any, wanted: State) -> bool:
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        return False
    pairs = ((found[name], value) for name, value in wanted.items())
    return all(isinstance(one, Tensor) and one.shape == other.shape for one, other in pairs)


def _is_of_optimizer(found: State, optimizer: torch.optim.Optimizer) -> bool:
    """Its groups have the sizes of the optimizer's, and what it notes of a weight is a number or has the weight's shape."""
    wanted = [group["params"] for group in optimizer.param_groups]
    weights = dict(enumerate(weight for group in wanted for weight in group))
    try:
        sizes = [len(group["params"]) for group in found["param_groups"]]
        noted = [(weights[number], value) for number, kept in found["state"].items() for value in kept.values()]
    except (KeyError, TypeError, AttributeError):
        return False
    return sizes == list(map(len, wanted)) and all(
        not isinstance(value, Tensor) or value.shape in (torch.Size(()), weight.shape) for weight, value in noted
    )


def _has_best(folder: Path, state: State, fits: Callable[[State], bool]) -> bool:
    epoch = state["best_epoch"]
    best = best_weights(folder, epoch, torch.device("cpu")) if epoch else None
    return not epoch or (best is not None and fits(best))


def _best(folder: Path, epoch: int) -> Path:
    return folder / f"best-{epoch}.pt"


def _numbered(folder: Path, kind: str) -> list[int]:
    """The epochs of the files of a kind, ascending."""
    named = re.compile(rf"{kind}-([0-9]{{1,9}})\.pt")
    found = ((named.fullmatch(path.name), path) for path in folder.glob(f"{kind}-*.pt"))
    return sorted(int(name[1]) for name, path in found if name and path.is_file())


def _write(path: Path, state: State) -> None:
    def write(target: Path) -> None:
        torch.save(state, target)
        seal_end(target)

    write_atomically(path, write, digest=False)


def _read(path: Path, device: torch.device, needed: Mapping[str, type], *, sealed: bool = True) -> State | None:
    """What a file holds; None where it is damaged or gone. No pickle is run."""
    if not path.is_file() or (sealed and end_state(path) != "whole"):
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError):
        return None
    held = isinstance(state, dict) and all(isinstance(state.get(key), kind) for key, kind in needed.items())
    return state if held else None
