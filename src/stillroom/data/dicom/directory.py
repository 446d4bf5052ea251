"""The DICOMDIR of a disc or stick: a list of the files on it, read for those that hold images (PS3.10, chapter 8)."""

from __future__ import annotations

from pathlib import Path

from stillroom.data.dicom.opening import open_dicom, sequence_of, value_of
from stillroom.data.table import UnreadableImage
from stillroom.errors import UsageError

_IMAGE = "IMAGE"


def listed_images(path: Path) -> list[Path]:
    """The image files that a DICOMDIR lists, in its order, also such as are not there; below its own folder, all of them.

    Raises:
        UsageError: it cannot be read, lists no image, or names a file outside its folder.
    """
    try:
        with path.open("rb") as file:
            records = sequence_of(open_dicom(file).header, "DirectoryRecordSequence")
            told = [(value_of(one, "DirectoryRecordType"), value_of(one, "ReferencedFileID")) for one in records]
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}).") from None
    except UnreadableImage:
        raise UsageError(f"{path} is no DICOMDIR that can be read: name the folder that its images are in.") from None
    found = [_place(path, name) for kind, name in told if str(kind).strip() == _IMAGE and name is not None]
    if not found:
        raise UsageError(f"{path} lists no image.")
    return list(dict.fromkeys(found))


def _place(directory: Path, name: object) -> Path:
    """The file of a record, whose name comes in parts; found in any case, as discs are copied in lower case."""
    parts = [str(part) for part in ([name] if isinstance(name, str) else list(name))]  # type: ignore[call-overload]
    if any(part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part or ":" in part for part in parts):
        raise UsageError(f"{directory} names a file outside its folder: it is not followed.")
    place = directory.parent
    for part in parts:
        below = place / part
        place = below if below.exists() else place / (_alike(place, part) or part)
    return place


def _alike(folder: Path, name: str) -> str | None:
    try:
        names = [path.name for path in folder.iterdir() if path.name.casefold() == name.casefold()]
    except OSError:
        return None
    return names[0] if len(names) == 1 else None
