"""A DICOM file's header and where its pixels stand, read within stated limits. Nothing of its text gets into an error.

What pydicom says of a damaged file may quote it, and so a patient. Every reason here is in our own words.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stillroom.data.dicom.recognising import is_dicom_file, looks_like_dicom
from stillroom.data.quiet import hush
from stillroom.data.table import UnreadableImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MOST_PIXELS = 2 * 89_478_485
"""Of one frame, as of any other image: what Pillow takes for an attack."""
MOST_FRAMES = 100_000
"""Of one file."""
MOST_INFLATED = 2**29
"""Bytes that a deflated file may unpack to."""

_PIECE = 2**20  # bytes unpacked at a time
_PREFIX, _MARK = 128, b"DICM"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_UNDEFINED = 0xFFFFFFFF
_PIXELS = {(0x7FE0, 0x0010): "PixelData", (0x7FE0, 0x0008): "float", (0x7FE0, 0x0009): "float"}
_LEAST_SHARE = 2 / 3  # of a frame's bytes, where colours are stored at half the resolution
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN", b"UT")
_DAMAGED = "the DICOM file is truncated or damaged"


@dataclass(frozen=True)
class Opened:
    """A DICOM file.

    Attributes:
        header: all elements before the pixels, unparsed until asked for.
        file: where the pixels are read.
        start: where their value begins in it, in bytes; None where the file has none.
        length: of the value, in bytes; None where it is in fragments.
        vr: the value's representation, ``OB`` or ``OW``.
        floating: whether the pixels are floating-point numbers.
        syntax: the transfer syntax, by its UID.
    """

    header: Dataset
    file: BinaryIO
    start: int | None
    length: int | None
    vr: str
    floating: bool
    syntax: str


def open_dicom(file: BinaryIO) -> Opened:
    """Read an open file up to its pixels.

    Raises:
        UnreadableImage: it is damaged, or unpacks to more than :data:`MOST_INFLATED`.
    """
    be_quiet()
    from pydicom import dcmread

    try:
        file = _inflated(file)
        header = dcmread(file, stop_before_pixels=True, force=True)
        implicit, little = header.original_encoding
        syntax = str(header.file_meta.get("TransferSyntaxUID") or "") or _guessed(bool(implicit), bool(little))
        place = _pixels_at(file, bool(implicit), "<" if little else ">")
    except UnreadableImage:
        raise
    except Exception:  # pydicom raises nearly anything on damaged files
        raise UnreadableImage(_DAMAGED) from None
    return Opened(header, file, *place, syntax)


def value_of(header: Dataset, keyword: str, default: Any = None) -> Any:
    """An element's value; ``default`` where it is missing, empty, or cannot be parsed."""
    try:
        value = header.get(keyword)
    except Exception:
        return default
    return default if value is None or value == "" else value


def number_of(header: Dataset, keyword: str, default: float | None = None) -> float | None:
    """The first of an element's numbers; ``default`` where it has none."""
    value = value_of(header, keyword)
    try:
        if not isinstance(value, str) and hasattr(value, "__len__"):
            value = value[0] if len(value) else default
        return default if value is None else float(value)
    except (TypeError, ValueError):
        return default


def sequence_of(header: Dataset, keyword: str) -> list[Dataset]:
    """A sequence's items; none where it is missing or cannot be parsed."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    found = value_of(header, keyword)
    return [item for item in found if isinstance(item, Dataset)] if isinstance(found, Sequence) else []


def frames_in(opened: Opened) -> int:
    """How many frames a file has, at least 1. Of those that it claims and cannot hold, one is left and says so when read."""
    header = opened.header
    claimed = number_of(header, "NumberOfFrames", 1.0) or 1.0
    if opened.start is None or not 1 < claimed <= MOST_FRAMES:
        return 1
    room = opened.file.seek(0, 2) - opened.start
    least = 8.0  # bytes of a fragment that holds nothing
    if opened.length is not None:
        sides = (
            number_of(header, name, 1.0) or 1.0 for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
        )
        least = max(prod(sides) / 8 * _LEAST_SHARE, least)
    return min(int(claimed), int(room // least) + 1)


def count_frames(path: Path) -> int:
    """The same of a path; 1 of what is no DICOM file or cannot be read."""
    if not is_dicom_file(path):
        return 1
    try:
        with path.open("rb") as file:
            return frames_of(file)
    except (OSError, ValueError):
        return 1


def frames_of(file: BinaryIO) -> int:
    """The same of any open file."""
    if not looks_like_dicom(file):
        return 1
    try:
        return frames_in(open_dicom(file))
    except (OSError, ValueError, UnreadableImage):
        return 1


def be_quiet() -> None:
    """Keep pydicom's warnings, which quote what files say, and GDCM's from every output of this process."""
    hush("pydicom")
    hush("stillroom.data.dicom")  # whom pydicom names as the caller
    try:
        import gdcm
    except ImportError:
        return
    for level in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        level()


# -- bytes --------------------------------------------------------------------------------------------------------
def _guessed(implicit: bool, little: bool) -> str:
    """Of a file that does not say: the syntax that its elements are written in."""
    if implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def _pixels_at(file: BinaryIO, implicit: bool, order: str) -> tuple[int | None, int | None, str, bool]:
    """Start, length, representation and kind of the pixels, of a file that stands where reading stopped."""
    start = file.tell()
    head = file.read(12)
    if len(head) < 8 or (what := _PIXELS.get(struct.unpack(f"{order}HH", head[:4]))) is None:
        return None, None, "", False
    vr = "OW"
    if implicit or not head[4:6].isalpha():  # some writers change over to implicit
        start, length = start + 8, struct.unpack(f"{order}I", head[4:8])[0]
    elif head[4:6] in _LONG_VRS and len(head) == 12:
        start, length, vr = start + 12, struct.unpack(f"{order}I", head[8:12])[0], head[4:6].decode()
    else:
        raise UnreadableImage(_DAMAGED)
    return start, None if length == _UNDEFINED else length, vr, what == "float"


def _inflated(file: BinaryIO) -> BinaryIO:
    """A file of the deflated transfer syntax unpacked, any other as it is. pydicom would unpack it to any size."""
    file.seek(0)
    head = file.read(4096)
    file.seek(0)
    if _DEFLATED.encode() not in head:
        return file
    syntax, end = _meta_of(head)
    if syntax != _DEFLATED:
        return file
    file.seek(end)
    packed = file.read()
    if sum(map(len, _pieces(packed))) > MOST_INFLATED:  # counted before any of it is kept
        raise UnreadableImage(
            f"the DICOM file unpacks to more than {MOST_INFLATED / 1e6:.0f} MB, which may be an attack"
        )
    plain = BytesIO()
    plain.write(bytes(_PREFIX) + _MARK + struct.pack("<HH2sH20s", 2, 0x0010, b"UI", 20, b"1.2.840.10008.1.2.1"))
    plain.writelines(_pieces(packed))
    plain.seek(0)
    return plain


def _pieces(packed: bytes) -> Iterator[bytes]:
    """What is deflated unpacked, piece by piece, until it is more than may be."""
    unpacking, left = zlib.decompressobj(-zlib.MAX_WBITS), MOST_INFLATED
    while left >= 0 and not unpacking.eof:
        piece = unpacking.decompress(packed, _PIECE)
        packed, left = unpacking.unconsumed_tail, left - len(piece)
        if not piece:  # cut short: what is there is read, and its pixels say that they are truncated
            return
        yield piece


def _meta_of(head: bytes) -> tuple[str, int]:
    """The transfer syntax that group 2 names, and where the group ends."""
    at, syntax = (_PREFIX + 4 if head[_PREFIX : _PREFIX + 4] == _MARK else 0), ""
    while len(head) >= at + 12:
        group, element, vr, length = struct.unpack_from("<HH2sH", head, at)
        if group != 2:
            break
        size = 8
        if vr in _LONG_VRS:
            length, size = struct.unpack_from("<I", head, at + 8)[0], 12
        if element == 0x0010:
            syntax = head[at + size : at + size + length].rstrip(b"\0 ").decode("latin-1")
        at += size + length
    return syntax, at
