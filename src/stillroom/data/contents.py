"""What images are read from, known by content: the digests of their files' bytes, wherever the files are.

Reading bytes costs a tenth of decoding them, and looking whether a file was touched a thousandth. So the cache keeps an
index: what each file looked like from outside when its bytes were last read, and their digest. A file that looks otherwise
(copied, touched, moved, written) is read again, and no more than that. The index is nothing but a shortcut: one that is
lost or damaged costs a reading, for what it says wrongly names a store that is not there.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from stillroom.data.table import Table
from stillroom.errors import StorageError
from stillroom.files.atomic import sweep, write_atomically
from stillroom.files.cache import cache_root, fingerprint
from stillroom.files.digests import sha256_of
from stillroom.progress import progress

_FORMAT = 1
_SETTLED_NS = 2_000_000_000
"""A file that was changed less than this ago may change again without looking otherwise: clocks of disks are coarse."""
_AT_ONCE = 1024
_NOT_READ = ("no file", "unreadable")

Looks = tuple[int, int, int, int]
"""Of a file from outside: bytes, time of change, time of any change to what the system knows of it, and number on its disk.

The third cannot be set back, as programs set the second back when they copy or edit.
"""


def contents_of(table: Table, *, cache: Path | None = None, show_progress: bool = True) -> list[Any]:
    """For each row what it is read from, by content: equal for two rows whose files hold the same bytes.

    Args:
        table: the rows.
        cache: root of the cache; default :func:`stillroom.files.cache.cache_root`. The index is in ``digests/``.
        show_progress: show how far reading has come.

    Returns:
        ``[N]`` lists of digests, of the image and of its masks, and of what else the reader says it depends on; or what it
        says of an image that has no file.
    """
    rows = [table.reader.made_of(int(row)) for row in table.rows]
    files = sorted({part for parts in rows if not isinstance(parts, str) for part in parts if isinstance(part, Path)})
    digests = file_digests(files, cache=cache, show_progress=show_progress)
    return [parts if isinstance(parts, str) else [_known(part, digests) for part in parts] for parts in rows]


def _known(part: Path | str, digests: dict[Path, str]) -> str:
    return digests[part] if isinstance(part, Path) else part


def file_digests(files: Sequence[Path], *, cache: Path | None = None, show_progress: bool = True) -> dict[Path, str]:
    """The SHA-256 of each file's bytes in hex; in its place a word for what cannot be read. See :func:`contents_of`."""
    if not files:
        return {}
    names = {path: os.path.abspath(path) for path in files}  # noqa: PTH100  (resolve() would follow links)
    folder = _common(list(names.values()))
    index = (cache or cache_root()) / "digests" / f"{fingerprint('digests', _FORMAT, folder)}.json"
    kept, now = _read(index), time.time_ns()
    looks = {path: _looks(path) for path in files}
    found = {
        path: kept[names[path]][1] for path in files if looks[path] and kept.get(names[path], "?")[0] == looks[path]
    }
    unknown = [path for path in files if path not in found]
    with progress("reading image files", len(unknown), enabled=show_progress) as advance, _pool() as pool:
        for start in range(0, len(unknown), _AT_ONCE):  # a few at a time, or Ctrl-C would wait for all
            for path, digest in zip(some := unknown[start : start + _AT_ONCE], pool.map(_digest, some), strict=True):
                found[path] = digest
                advance()
    news = {
        names[path]: [looks[path], found[path]]
        for path in unknown
        if found[path] not in _NOT_READ and _settled(looks[path], now) and _looks(path) == looks[path]
    }
    if news:
        text = json.dumps({"files": kept | news})
        with suppress(StorageError):  # a shortcut less; whatever needs the disk more says so
            sweep(index.parent.glob(".*.tmp"))
            write_atomically(index, lambda target: target.write_text(text, encoding="utf-8"))
    return found


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="digest")


def _looks(path: Path) -> Looks | None:
    """None for what is no file: it does not exist, or is a folder, a pipe or a device, which must not be opened."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # a name that no file can have
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _settled(looks: Looks | None, now: int) -> bool:
    return looks is not None and max(looks[1:3]) < now - _SETTLED_NS


def _digest(path: Path) -> str:
    if _looks(path) is None:
        return _NOT_READ[0]
    try:
        return sha256_of(path)
    except OSError:
        return _NOT_READ[1]


def _common(names: list[str]) -> str:
    try:
        return os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
    except ValueError:  # on Windows: on several drives
        return ""


def _read(index: Path) -> dict[str, Any]:
    """By path how it looked and its digest; nothing where the index is missing or damaged."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["files"]
        return {name: [tuple(looks), str(digest)] for name, (looks, digest) in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
