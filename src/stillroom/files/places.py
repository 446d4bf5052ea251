"""Whether something can be written to a place, tried before the work that would be lost otherwise."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from stillroom.errors import UsageError

_REMEDY = "Choose another --out."
_LONGEST_NAME = 255
_LONGEST_PATH = 4096
"""Bytes, on nearly every disk."""
_TEMPORARY = len(".untried..1234567.tmp")
"""What is added to a file's name while it is being written."""


def require_file_place(path: Path, remedy: str = _REMEDY) -> None:
    """Raises UsageError where no file can be written to ``path``. Nothing is left there."""
    _require(path, remedy, folder=False)


def require_folder_place(path: Path, remedy: str = _REMEDY) -> None:
    """Raises UsageError where ``path``, is no folder that can be written to, nor can be made one."""
    _require(path, remedy, folder=True)


def _require(path: Path, remedy: str, *, folder: bool) -> None:
    try:
        reason = _reason(path, folder)
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        reason = getattr(error, "strerror", None) or str(error)
    if reason:
        raise UsageError(f"Nothing can be written to {path}: {reason}. {remedy}")


def _reason(path: Path, folder: bool) -> str:
    if "\0" in str(path):
        return "a name holds no zero byte"
    there = os.path.lexists(path)
    if there and path.is_dir() != folder:
        return f"{path} is a file" if folder else f"{path} is a folder: name a file"
    if there and not folder and not path.is_file():
        return "it is no ordinary file"  # a device or pipe, which a file would take the place of
    inside = path if there and folder else path.absolute().parent
    place = next(above for above in (inside, *inside.absolute().parents) if os.path.lexists(above))
    longest = max(len(os.fsencode(part)) for part in ("", *path.absolute().relative_to(place.absolute()).parts))
    if longest > _LONGEST_NAME - _TEMPORARY or len(os.fsencode(path.absolute())) > _LONGEST_PATH - _TEMPORARY:
        return "its name is too long"
    if not place.is_dir():
        return f"{place} is a file"
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"{place}: {error.strerror or error}"
