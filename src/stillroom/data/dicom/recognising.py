"""Which files are DICOM, by their first bytes: most have no ending, and some lack the preamble. Needs no pydicom."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from stillroom.files.walk import not_a_file

DICOM_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
"""Endings, in lower case, by which DICOM files are found in folders; files without an ending are looked into."""

DIRECTORY = "DICOMDIR"
"""Name of the file that lists what is on a medium."""

_HEAD = 132
_MARK = b"DICM"
_FIRST_GROUPS = (0x0002, 0x0008)
_VRS = frozenset(b"AE AS CS DA DT IS LO LT OB OW PN SH SQ ST TM UI UL UN US UT".split())
_LONGEST = 1024  # of the first element's value


def looks_like_dicom(file: BinaryIO) -> bool:
    """Whether an open file begins as DICOM does: with ``DICM`` at byte 128, or without preamble by its first element.

    The file is left at its beginning.
    """
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    return head[128:] == _MARK or any(_is_first_element(head[:8], order) for order in "<>")


def is_dicom_file(path: Path) -> bool:
    """The same of a path; False for what cannot be opened or is no file, which may wait for ever: it says so when read."""
    if not_a_file(path):
        return False
    try:
        with path.open("rb") as file:
            return looks_like_dicom(file)
    except (OSError, ValueError):  # a name that no file can have
        return False


def is_directory(path: Path) -> bool:
    """Whether a file is a DICOMDIR, by its name."""
    return path.name.upper().removesuffix(".DCM") == DIRECTORY


def _is_first_element(head: bytes, order: str) -> bool:
    """An element of group 2 or 8 with a small even number and a plausible length, as old files without preamble begin."""
    if len(head) < 8:
        return False
    group, element, length = struct.unpack(f"{order}HHI", head)
    if group not in _FIRST_GROUPS or element > 0x0100:
        return False
    if head[4:6] in _VRS:
        return True
    return order == "<" and 0 < length <= _LONGEST and length % 2 == 0
