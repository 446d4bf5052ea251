"""Locks that the operating system lets go of when a process ends, however it ends: what is left of one blocks nobody.

A lock is a small file that says who holds it; it goes when it is given back. On a network disk it holds between machines
where the disk has locks (NFS 4, SMB); where a disk has none, nothing can be promised, which is said in a line.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from stillroom.progress import remark

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_BEYOND = 1 << 30
"""Windows keeps others from reading what is locked: a byte far behind the text is."""
_HELD: dict[int, tuple[int, int]] = {}
"""Handles of this process's locks, with the device and number of what they are on."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        pid: the process; 0 where that is not known.
        host: its machine.
        since: when it took the lock, as ISO 8601 in UTC.
    """

    pid: int = 0
    host: str = ""
    since: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        here = self.host == socket.gethostname()
        if here and self.pid == os.getpid():
            return f"this process (since {self.since})"
        return f"process {self.pid}{'' if here else f' on {self.host}'} (since {self.since})"


class Busy(Exception):
    """Somebody else holds the lock: ``holder``."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(str(holder))
        self.holder = holder


class Lock:
    """A lock that is held until :meth:`release`.

    Attributes:
        file: where the lock stands; None for a folder's. Where the folder that it lies in is renamed, this is to be changed.
    """

    def __init__(self, file: Path | None, handle: int) -> None:
        self.file, self._handle = file, handle

    def release(self) -> None:
        """Give the lock back; once is enough."""
        if self._handle not in _HELD:
            return
        if sys.platform != "win32":  # while it is held still, so that nobody's new file is removed
            self._unlink()
        del _HELD[self._handle]
        os.close(self._handle)
        if sys.platform == "win32":
            self._unlink()

    def _unlink(self) -> None:
        if self.file:
            with suppress(OSError):
                self.file.unlink()


def take(file: Path) -> Lock:
    """Take the lock that is this file, at once or not at all.

    Raises:
        Busy: it is held, by another process or by this one.
        OSError: the file cannot be written.
    """
    while True:
        if (there := _identity(file)) is not None and there in _HELD.values():
            raise Busy(_holder(file))
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(handle)
        except BlockingIOError:
            os.close(handle)
            raise Busy(_holder(file)) from None
        status = os.fstat(handle)
        if _identity(file) == (status.st_dev, status.st_ino):  # else it went while this waited for nothing
            break
        os.close(handle)
    if not locked:
        remark(f"The disk of {file.parent} has no locks: see to it that no second process works there.")
    holder = Holder(os.getpid(), socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds"))
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(asdict(holder)).encode())
    _HELD[handle] = (status.st_dev, status.st_ino)
    return Lock(file, handle)


def take_folder(folder: Path) -> Lock | None:
    """Take a lock on a folder itself, which leaves nothing in it; None where the system or the disk has no such locks.

    Raises:
        Busy: it is held.
        OSError: there is no such folder.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        locked = _lock(handle)
    except BlockingIOError:
        os.close(handle)
        raise Busy(Holder()) from None
    if not locked:
        os.close(handle)
        return None
    status = os.fstat(handle)
    if _identity(folder) != (status.st_dev, status.st_ino):
        os.close(handle)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    _HELD[handle] = (status.st_dev, status.st_ino)
    return Lock(None, handle)


def _lock(handle: int) -> bool:
    """Lock an open file; False where the disk cannot. Raises BlockingIOError where another has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _BEYOND, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise BlockingIOError(error.errno, error.strerror) from None
        return False
    return True


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _holder(file: Path) -> Holder:
    try:
        return Holder(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # it is being written, or has just gone
        return Holder()


def _let_go() -> None:
    """In a process that was forked off: the lock is its parent's, and must not outlive it here."""
    for handle in _HELD:
        with suppress(OSError):
            os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
