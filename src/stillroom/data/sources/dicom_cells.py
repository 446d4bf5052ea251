"""What a table's cell names besides a file: a DICOM image or series by its UID, a DICOMDIR, or a folder of a series."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stillroom.data.dicom.directory import listed_images
from stillroom.data.dicom.headers import read_header
from stillroom.data.dicom.recognising import is_directory
from stillroom.data.listing import PICTURE_EXTENSIONS, images_among
from stillroom.data.sources.paths import Finder
from stillroom.errors import UsageError
from stillroom.files.walk import walk

_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*)){3,}")
_LONGEST = 64


@dataclass(frozen=True)
class Places:
    """Where the files of a table's cells are.

    Attributes:
        find: the file that a cell names, of a UID's the first.
        all: all of them; one, the path as it is named, where there is none.
    """

    find: Finder
    all: Callable[[str], tuple[Path, ...]]


def places_in(folder: Path, find: Finder) -> Places:
    """Cells of a table in ``folder``, whose paths are found by ``find``. UIDs are those of files in the folder and below.

    A UID of an instance names its file, one of a series or study all files of it.
    """

    @cache
    def by_uid() -> Mapping[str, tuple[Path, ...]]:
        found: dict[str, list[Path]] = defaultdict(list)
        seen: dict[str, Path] = {}
        for path in _dicom_files(folder):
            header = read_header(path, None, b"")
            for uid in filter(None, header.uids if header else ()):
                found[uid].append(path)
            if header and header.uids[0] and seen.setdefault(header.uids[0], path) != path:
                raise UsageError(
                    f"{seen[header.uids[0]]} and {path} have one SOPInstanceUID, so that a table cannot name them by it: "
                    "name files by their paths, or remove one."
                )
        return {uid: tuple(paths) for uid, paths in found.items()}

    @cache
    def files(cell: str) -> tuple[Path, ...]:
        path = find(cell)
        if is_directory(path) and path.is_file():
            return tuple(listed_images(path))
        if is_uid(cell) and not path.exists():
            return by_uid().get(cell, (path,))
        return (path,)

    def every(cell: str) -> tuple[Path, ...]:
        named = files(cell)
        return tuple(_dicom_files(named[0])) or named if len(named) == 1 and _is_folder(named[0]) else named

    return Places(lambda cell: files(cell)[0], every)


def is_uid(cell: str) -> bool:
    """Whether a cell may be a DICOM UID."""
    return len(cell) <= _LONGEST and _UID.fullmatch(cell) is not None


def _dicom_files(folder: Path) -> list[Path]:
    return [path for path in images_among(walk(folder).files) if path.suffix.lower() not in PICTURE_EXTENSIONS]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False
