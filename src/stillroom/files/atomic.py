"""Write files so that a killed process or a full disk never leaves half of one behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.errors import StorageError
from stillroom.files.digests import record

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""Names of files that :func:`write_atomically` has not renamed yet; the number is its process."""

_FULL = 1 << 16
"""With fewer bytes free than this, a write failed because the disk is full."""


def write_atomically(path: Path, write: Callable[[Path], object], *, digest: bool = True) -> None:
    """Let ``write`` fill a temporary file beside ``path``, push it to the disk, then rename it into place.

    Args:
        path: the file; its folder is made if need be.
        write: is given the temporary file's path.
        digest: whether the file's digest is noted in the ledger of the run that it belongs to, if it belongs to one.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to. Nothing half-written stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = (
            temporary.stat().st_mode
        )  # what the umask gives: some writers make files of their own that nobody else may read
        write(temporary)
        if temporary.stat().st_mode != mode:
            temporary.chmod(stat.S_IMODE(mode))
        sync_file(temporary)
        if digest:
            record(path, temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except Exception as error:  # every library has its own exception for a full disk
        reason = _reason(error, path)
        if reason is None:
            raise
        raise StorageError(reason) from error
    finally:
        with suppress(OSError):
            temporary.unlink()  # also after Ctrl-C


def sweep(files: Iterable[Path], *, untouched_s: float = 3600.0) -> None:
    """Remove what killed writes left behind, of these files.

    Args:
        files: others among them are left alone.
        untouched_s: for how long nobody has touched what is removed: a write at work does so all the time. 0 where no other
            process can be writing.
    """
    for file in files:
        with suppress(OSError):  # another process has swept it, or may not be written to
            if TEMPORARY.fullmatch(file.name) and time.time() - file.stat().st_mtime >= untouched_s:
                file.unlink()


def write_json(path: Path, content: Any) -> None:
    """``content`` as indented JSON, atomically. NaN is refused: an undefined figure is null."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda target: target.write_text(text + "\n", encoding="utf-8"))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays by name as a compressed .npz file, atomically."""
    import numpy as np

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
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(_reason(error, path)) from error


def sync_file(path: Path) -> None:
    """Push a file's content to the disk: after a power cut its name must not stand for what never arrived."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Push the names in a folder to the disk."""
    if sys.platform == "win32":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception, path: Path) -> str | None:
    number = error.errno if isinstance(error, OSError) else None
    free = shutil.disk_usage(path.parent).free if path.parent.exists() else _FULL
    # torch.save, safetensors and others raise errors of their own, which do not say that the disk is full.
    if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and free < _FULL):
        return f"The disk is full: {path} could not be written. Make room."
    if isinstance(error, OSError):
        return f"{path} could not be written: {error.strerror or error}."
    return None
