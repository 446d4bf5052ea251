"""Write files so that a killed process or a full disk never leaves half of one behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillroom.errors import RunError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Raises:
        RunError: the disk is full, or the folder cannot be written to. Nothing half-written stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        reason = _reason(error, path)
        if reason is None:
            raise
        raise RunError(reason) from error


def write_json(path: Path, content: Any) -> None:
    """``content`` as indented JSON, atomically. NaN is refused: an undefined figure is null."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda target: target.write_text(text + "\n", encoding="utf-8"))


def _reason(error: Exception, path: Path) -> str | None:
    # torch.save reports a full disk as a RuntimeError of its stream writer.
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "PytorchStreamWriter" in str(error):
        free = shutil.disk_usage(path.parent).free / 1e6
        return f"The disk is full: {path} could not be written ({free:.0f} MB free). Make room, then go on with --resume."
    if isinstance(error, OSError):
        return f"{path} could not be written: {error.strerror or error}."
    return None
