"""Folders that are built once and used by many runs: where they stand, what they are called, how they appear at once."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stillroom.errors import StorageError
from stillroom.files import digests
from stillroom.files.atomic import sync_file, sync_folder
from stillroom.files.digests import KEPT, META
from stillroom.files.locks import Busy, Lock, take_folder
from stillroom.progress import remark, size_in_words

_ABANDONED_AFTER = 24 * 3600.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


def cache_root() -> Path:
    """``$STILLROOM_CACHE``, else ``stillroom`` in the platform's cache folder of this user. It need not exist yet."""
    if chosen := os.environ.get("STILLROOM_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "stillroom"


def fingerprint(*parts: Any) -> str:
    """32 hex digits that name the parts: equal for equal parts, in every process and on every machine.

    Args:
        parts: JSON values, paths, dataclasses and NumPy scalars, nested at will. Order matters, but not among the keys
            of a dict. Anything else raises ``TypeError``: what has no one spelling must not name a folder.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write the folder's ``meta.json``, the file that makes it complete. Call it last.

    It notes that the folder holds digests, which :func:`publish` adds; :func:`read_meta` leaves that note out.
    """
    (folder / META).write_text(json.dumps(meta | {KEPT: True}, indent=1, default=_plain), encoding="utf-8")


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The folder's ``meta.json``; None where it is missing, unreadable or not a JSON object: the folder is not complete."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {key: value for key, value in meta.items() if key != KEPT} if isinstance(meta, dict) else None


def is_complete(folder: Path) -> bool:
    """Whether the folder was published, as far as its ``meta.json`` tells."""
    return read_meta(folder) is not None


def publish(
    folder: Path,
    build: Callable[[Path], None],
    *,
    valid: Callable[[Path], bool] = is_complete,
    needs: int = 0,
) -> Path:
    """Make sure that ``folder`` stands there whole, building it where it does not. Safe under several processes.

    The build happens in a hidden folder beside it, which takes the name at the very end; whoever comes second throws
    its own away. A folder that is there but not ``valid`` is replaced. Whatever ends the build early, also Ctrl-C,
    removes the unfinished folder.

    The finished folder holds ``digests.json``, and is checked by it when it is found again. One that is damaged is built
    anew, which is said in a line.

    Args:
        folder: the final folder. Its parents are created.
        build: fills the empty folder it is given and calls :func:`write_meta` last. It should write through ordinary
            files: a disk that fills up under a memory map kills the process instead of raising an error.
        valid: whether a folder that is whole may be used. Called again after the build, in case another process won.
        needs: bytes that the finished folder takes at least; more than the disk has free is refused at once.

    Returns:
        ``folder``.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """

    def usable(candidate: Path) -> bool:
        return digests.damage_in(candidate) is None and valid(candidate)

    damage = digests.damage_in(folder)
    if damage is not None:
        remark(f"{folder / damage} was changed or damaged after it was written: what the folder holds is made again.")
    elif valid(folder):
        return folder
    scratch: Path | None = None
    lock: Lock | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        if needs > (free := shutil.disk_usage(folder.parent).free):
            raise _disk_full(folder, needs, free)
        scratch, lock = _scratch(folder)
        build(scratch)
        if not (scratch / META).is_file():
            raise ValueError(f"The build of {folder} wrote no {META}.")
        digests.seal(scratch)
        _sync(scratch)
        _take_place(scratch, folder, usable)
    except OSError as error:
        if error.errno in _DISK_FULL:
            free = shutil.disk_usage(folder.parent).free + _bytes_in(scratch)
            raise _disk_full(folder, max(needs, free), free) from error
        if isinstance(error, PermissionError) and not os.access(folder.parent, os.W_OK):
            raise StorageError(
                f"The cache folder {folder.parent} cannot be written to. Set STILLROOM_CACHE to one that can."
            ) from error
        raise
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            lock.release()
    return folder


def _take_place(scratch: Path, folder: Path, valid: Callable[[Path], bool]) -> None:
    """Rename ``scratch`` to ``folder``, unless a valid one appeared there meanwhile."""
    while True:
        try:
            # Before anything is asked: what stands there may have come since it was last looked at.
            scratch.rename(folder)
            sync_folder(folder.parent)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        if valid(folder):
            return
        # Moved aside first, so that nobody ever sees half of it; open memory maps of it stay good.
        stale, lock = _scratch(folder)
        folder.replace(stale / "stale")
        shutil.rmtree(stale, ignore_errors=True)
        if lock is not None:
            lock.release()


def _scratch(folder: Path) -> tuple[Path, Lock | None]:
    """A hidden folder beside ``folder``, on the same disk, so that a rename is all it takes to publish. And its lock."""
    while True:
        scratch = folder.parent / f".{folder.name}.{secrets.token_hex(8)}.building"
        scratch.mkdir()
        with suppress(Busy, FileNotFoundError):  # swept by another process, just before it was locked
            return scratch, take_folder(scratch)


def _sweep(place: Path) -> None:
    """Remove what killed builds left behind in this part of the cache: folders whose lock nobody holds.

    Where there are no locks on folders, those that nobody has touched for a day: a build at work touches its files.
    """
    for scratch in place.glob(".*.building"):
        try:
            lock = take_folder(scratch)
            if lock is None:
                touched = max(path.stat().st_mtime for path in (scratch, *scratch.rglob("*")))
                if time.time() - touched < _ABANDONED_AFTER:
                    continue
        except (Busy, OSError):  # its owner is at work, or has just finished
            continue
        shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            lock.release()


def _sync(folder: Path) -> None:
    """Push every file to the disk, ``meta.json`` last: after a power cut it must not vouch for data that never arrived."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == META):
        sync_file(path)
    sync_folder(folder)


def _bytes_in(folder: Path | None) -> int:
    if folder is None:
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _disk_full(folder: Path, needs: int, free: int) -> StorageError:
    return StorageError(
        f"The disk is too full for {folder}: more than {size_in_words(needs)} needed, {size_in_words(free)} free. "
        "Make room, or set STILLROOM_CACHE to a folder on a larger disk."
    )


def _plain(value: Any) -> Any:
    """What JSON does not know: paths, dataclasses and NumPy scalars."""
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no canonical JSON form.")
