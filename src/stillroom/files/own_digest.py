"""Files that carry their own digest, so that they are known again where nothing stands beside them.

An ONNX file has it among its metadata: the SHA-256 of the file's bytes with the 64 digits of the digest itself replaced by
zeros. It is found in the bytes, as protobuf writes it: no onnx package is needed. A checkpoint has it at its end.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import BinaryIO

from stillroom.errors import UsageError
from stillroom.files.digests import State

KEY = "stillroom.sha256"
"""The metadata property; like the others it holds a JSON text."""

BLANK = '"' + "0" * 64 + '"'
"""Its value before the digest is known."""

_SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")
_SEAL_BYTES = 73
_BLOCK = 1 << 20

_EXPORTED = b"stillroom.format"
"""A property that every exported file has."""

_VALUE = re.compile('"[0-9a-f]{64}"')
_PLACE = re.compile(re.escape(KEY.encode()) + rb'\x12\x42"([0-9a-f]{64})"')  # field 2 of an entry, 66 bytes long


def with_own_digest(content: bytes) -> bytes:
    """An ONNX file's bytes in which :data:`KEY` has the value :data:`BLANK`, with the digest in its place."""
    (place,) = _PLACE.finditer(content)
    digest = _without(memoryview(content), *place.span(1))
    return content[: place.start(1)] + digest.encode() + content[place.end(1) :]


def own_state(path: Path) -> State:
    """How an ONNX file stands by the digest within it, read in pieces; ``no digest`` where it has none.

    Raises:
        UsageError: it is there and cannot be opened.
    """
    if not path.is_file():
        return "missing"
    if not path.stat().st_size:
        return "no digest"
    with _opened(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        places = [(*place.span(1), place[1].decode()) for place in _PLACE.finditer(content)]
        if not places:
            return "no digest"
        start, stop, stated = places[-1]
        with memoryview(content) as view:
            return "whole" if _without(view, start, stop) == stated else "damaged"


def is_exported(path: Path) -> bool:
    """Whether a file is one that Stillroom exported, of any version, whole or not."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with _opened(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_EXPORTED) >= 0


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None


def states_digest(properties: Mapping[str, str]) -> bool:
    """Whether a file's metadata hold a digest: where it must, and does not, its name or its form was damaged."""
    return _VALUE.fullmatch(properties.get(KEY, "")) is not None


def seal_end(path: Path) -> None:
    """Add the digest of a file to its end. What reads an archive of torch's passes over it."""
    with path.open("rb+") as file:
        digest = file_digest(file, "sha256").hexdigest()
        file.write(f"\nsha256 {digest}\n".encode())


def end_state(path: Path) -> State:
    """How a file stands by the digest at its end, read in pieces. One that has none is damaged: its end is gone."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size - _SEAL_BYTES
    digest = sha256()
    with path.open("rb") as file:
        for start in range(0, size, _BLOCK):
            digest.update(file.read(min(_BLOCK, size - start)))
        seal = _SEAL.fullmatch(file.read())
    return "whole" if seal and seal[1].decode() == digest.hexdigest() else "damaged"


def _without(content: memoryview, start: int, stop: int) -> str:
    """The SHA-256 of the bytes, zeros in the place of those from ``start`` to ``stop``."""
    digest = sha256()
    for part in (content[:start], b"0" * (stop - start), content[stop:]):
        digest.update(part)
    return digest.hexdigest()
