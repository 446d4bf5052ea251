"""Write files so that a killed process or a full disk never leaves half of one behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import StorageError

_FULL = 1 << 16
"""With fewer bytes free than this, a write failed because the disk is full."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to. Nothing half-written stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except Exception as error:  # every library has its own exception for a full disk
        reason = _reason(error, path)
        if reason is None:
            raise
        raise StorageError(reason) from error
    finally:
        with suppress(OSError):
            temporary.unlink()  # also after Ctrl-C


def write_json(path: Path, content: Any) -> None:
    """``content`` as indented JSON, atomically. NaN is refused: an undefined figure is null."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda target: target.write_text(text + "\n", encoding="utf-8"))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays by name as a compressed .npz file, atomically."""

    def write(target: Path) -> None:
        with target.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def append_line(path: Path, line: str) -> None:
    """Append a line of text, in place of half a line that a killed process or a full disk may have left at the end.

    Raises:
        StorageError: the disk is full, or the file cannot be written to.
    """
    try:
        with path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode() + b"\n")
    except OSError as error:
        raise StorageError(_reason(error, path)) from error


def _reason(error: Exception, path: Path) -> str | None:
    number = error.errno if isinstance(error, OSError) else None
    free = shutil.disk_usage(path.parent).free if path.parent.exists() else _FULL
    # torch.save, safetensors and others raise errors of their own, which do not say that the disk is full.
    if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and free < _FULL):
        return f"The disk is full: {path} could not be written. Make room."
    if isinstance(error, OSError):
        return f"{path} could not be written: {error.strerror or error}."
    return None
