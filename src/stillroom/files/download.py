"""Large files off the network: shown as they come, gone on with where they were cut, named only once they are checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from stillroom.errors import RunError, StorageError, UsageError
from stillroom.extras import need
from stillroom.progress import progress

TIMEOUT_S = 20.0
PAUSES_S = (1.0, 3.0)
"""Before trying again. A file is given up when so many tries in turn brought not a byte."""
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers of servers that are busy, not of those that lack the file."""
_BLOCK = 1 << 18
_FORGOTTEN_S = 14 * 24 * 3600.0
"""What was begun longer ago is not gone on with."""


@dataclass(frozen=True)
class Digest:
    """What a file must hash to.

    Attributes:
        kind: ``git`` is SHA-1 with git's header, as git names the content of a file.
        value: in hex.
    """

    kind: Literal["sha256", "md5", "git"]
    value: str

    def fits(self, file: Path) -> bool:
        """Whether the file's content has this digest."""
        with file.open("rb") as content:
            if self.kind == "git":
                header = b"blob %d\0" % os.fstat(content.fileno()).st_size
                found = hashlib.file_digest(content, lambda: hashlib.sha1(header, usedforsecurity=False))
            else:
                found = hashlib.file_digest(content, self.kind)
        return found.hexdigest() == self.value.lower()


def download(
    address: str,
    file: Path,
    *,
    name: str,
    digest: Digest | None = None,
    authorization: str = "",
    timeout: float = TIMEOUT_S,
) -> Path:
    """Bring what lies at an address to ``file``, unless it is there. Safe under several processes: one brings it.

    What comes is kept beside ``file`` in a hidden ``.part``, which stays when the connection is cut or the process
    killed: this call tries again, and so may the next, each going on from there. ``file`` appears at the very end,
    whole and with the right digest. Without a digest nobody could tell whether two parts belong together, so that
    every try begins anew.

    Args:
        address: http or https.
        file: where to. Its folder is created.
        name: what it is, for progress and errors.
        digest: what the content must be.
        authorization: sent to the address itself, never to where it redirects.
        timeout: seconds without a byte after which a connection counts as cut.

    Returns:
        ``file``.

    Raises:
        UsageError: the server cannot be reached, or does not give the file.
        RunError: the connection was cut again and again, or the content is another.
        StorageError: the disk is full, or the folder cannot be written to.
    """
    need("truststore", f"Downloading {name}")
    part = file.with_name(f".{file.name}.part")
    with _storing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        _sweep(file.parent, part)
    with _alone(part.with_suffix(".lock"), name):
        if not file.is_file():
            _fill(part, address, name, digest, authorization, timeout)
            with _storing(file):
                part.replace(file)
    return file


def _sweep(folder: Path, wanted: Path) -> None:
    """Remove what other downloads began here and nobody went on with; one at work writes every few seconds."""
    for part in folder.glob(".*.part"):
        lock = part.with_suffix(".lock")  # which tells our parts from those of other programs
        with suppress(FileNotFoundError):  # finished just now
            if part != wanted and lock.exists() and time.time() - part.stat().st_mtime > _FORGOTTEN_S:
                part.unlink()
                lock.unlink()


@contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    """Wait until no other process downloads the same. The lock's file goes when it has served: the file is there then."""
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    with _storing(lock):
        try:
            held.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that downloads {name}.", file=sys.stderr, flush=True)
            held.acquire()
    try:
        yield
        with suppress(OSError):  # Windows removes no file that others have open
            lock.unlink()
    finally:
        held.release()


def _fill(part: Path, address: str, name: str, digest: Digest | None, authorization: str, timeout: float) -> None:
    """Try until ``part`` is whole and right."""
    pauses = list(PAUSES_S)
    while True:
        if digest is None:
            part.unlink(missing_ok=True)
        before = _size(part)
        try:
            _receive(part, address, name, authorization, timeout)
            break
        except (OSError, HTTPException) as error:
            came = _size(part)
            pauses = list(PAUSES_S) if digest is not None and came > before else pauses
            if not pauses or (isinstance(error, HTTPError) and error.code not in _PASSING):
                raise _given_up(address, name, came, digest, error) from error
            time.sleep(pauses.pop(0))
    if digest is not None and not digest.fits(part):
        part.unlink()
        raise RunError(
            f"What {_host(address)} sent as {name} is not what was promised: its {digest.kind} digest is not "
            f"{digest.value}. It was thrown away. Try again; if it comes to this again, something alters files on the way."
        )


def _receive(part: Path, address: str, name: str, authorization: str, timeout: float) -> None:
    """Add to ``part`` what it lacks. Raises OSError or HTTPException where the connection fails."""
    if not address.startswith(("https://", "http://")):
        raise UsageError(f"{address} is no address of a file on the web.")
    request = Request(address, headers={"User-Agent": "stillroom"})
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    have = _size(part)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response: HTTPResponse = urlopen(request, timeout=timeout, context=_trusted())
    except HTTPError as error:
        if have and error.code == 416:  # there is no more than that: the digest will tell
            return
        raise
    with response:
        if response.status != 206:  # the whole file, whatever was asked for
            have = 0
        total = _total(response)
        _room(part, total - have)
        with _storing(part):
            file = part.open("ab" if have else "wb")
        with file, progress("download", total, done=have) as advance:
            while block := response.read1(_BLOCK):
                with _storing(part):
                    file.write(block)
                    file.flush()
                have += len(block)
                advance(len(block), note=f"{name}, {megabytes(have)} of {megabytes(total)}")
            with _storing(part):
                os.fsync(file.fileno())
    if have < total:
        raise ConnectionError(f"the server closed the connection after {megabytes(have)} of {megabytes(total)}")


def _trusted() -> ssl.SSLContext:
    """The operating system's certificates, a clinic's own among them, as the hub's client trusts them."""
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _total(response: HTTPResponse) -> int:
    """Bytes of the whole file; 0 where the server does not say."""
    of = response.headers.get("Content-Range", "").rpartition("/")[2]
    length = of if response.status == 206 else response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else 0


def _given_up(address: str, name: str, came: int, digest: Digest | None, error: Exception) -> UsageError | RunError:
    reason = getattr(error, "reason", error)
    said = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(error).__name__
    if isinstance(error, HTTPError):
        said = f"it answers {error.code} {error.reason}"
    if not came:
        return UsageError(f"{name} could not be had from {_host(address)}: {said}.")
    kept = (
        "what came is kept, and the next try goes on from there" if digest is not None else "the next try begins anew"
    )
    return RunError(
        f"The download of {name} from {_host(address)} was cut after {megabytes(came)} ({said}); {kept}. Try again."
    )


def _host(address: str) -> str:
    """Without the path, which may be signed and long."""
    return "://".join(urlsplit(address)[:2])


def _room(part: Path, needs: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needs > free:
        raise StorageError(
            f"The disk is too full for {part.parent}: {megabytes(needs)} more needed, {megabytes(free)} free. Make room."
        )


@contextmanager
def _storing(file: Path) -> Iterator[None]:
    """What the disk refuses is no fault of the connection, and is not tried again."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{file} could not be written: {error.strerror or error}.") from error


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def megabytes(count: int) -> str:
    """E.g. ``86.6 MB``, and ``12 kB`` of little."""
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"
