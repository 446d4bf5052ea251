"""Which files of a folder are images, and which endings are passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from stillroom.data.companions import find_masks
from stillroom.data.dicom.recognising import DICOM_ENDINGS, is_dicom_file, is_directory
from stillroom.files.walk import walk

PICTURE_EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo", ".apng", ".dib"),
)
IMAGE_EXTENSIONS = (*PICTURE_EXTENSIONS, *DICOM_ENDINGS)
"""Endings, in lower case, by which images are found in folders, the usual ones first. Decoding goes by content.

A file without an ending is an image where it is DICOM by its content.
"""

BESIDE = (
    *(".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".htm", ".pdf", ".log", ".ini", ".db"),
    *(".xls", ".xlsx", ".ods", ".doc", ".docx", ".py", ".ipynb", ".sh", ".m", ".r"),
)
"""Endings of what lies beside images and is none. Any other may be an image that somebody counts on."""

_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def list_images(folder: Path) -> list[Path]:
    """Every image file under ``folder``, however deep, in natural order (``scan2`` before ``scan10``).

    What systems leave behind is left out and links are followed, as :func:`~stillroom.files.walk.walk` does.

    Raises:
        UsageError: a folder cannot be read, or a name is not valid text in UTF-8.
    """
    return images_among(walk(folder).files)


def list_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """The images under ``folder`` as :func:`list_images` gives them without the masks of others, and what was left out.

    The latter is a line each of the masks, of files that may be masks, and of files that may be images but are not read; none
    where there are none.

    Raises:
        UsageError: see :func:`list_images`.
    """
    files = walk(folder).files
    images = images_among(files)
    found = find_masks({folder: images})
    masks = found.files | {*found.lone}
    notes = [f"Masks of images in {folder} are left out: {len(found.files):,}."] if found.files else []
    for files_told, text in (
        (found.lone, "Masks without their image in {} are left out"),
        ((*found.unclear, *found.doubtful), "Files in {} that may be masks by their names are taken for images"),
    ):
        if files_told:
            names = [file.relative_to(folder).as_posix() for file in files_told[:3]]
            more = f" and {len(files_told) - 3:,} more" if len(files_told) > 3 else ""
            notes.append(f"{text.format(folder)}: {', '.join(names)}{more}.")
    if endings := [ending for ending in endings_in(files) if ending not in BESIDE]:
        notes.append(f"Some files in {folder} are passed over, for such are not read: {', '.join(endings[:5])}.")
    return [image for image in images if image not in masks], notes


def images_among(files: Sequence[Path]) -> list[Path]:
    """Those that are images by their endings, or DICOM files without one, in the same order."""
    return [path for path in files if is_image(path)]


def is_image(path: Path) -> bool:
    """Whether a file is taken for an image when a folder is listed. A DICOMDIR, which lists images, is none."""
    if is_directory(path):
        return False
    return path.suffix.lower() in IMAGE_EXTENSIONS or (not ending_of(path) and is_dicom_file(path))


def passed_over_among(files: Iterable[Path]) -> list[Path]:
    """Those that are not read as images, but for a DICOMDIR: what it lists is found without it."""
    return [path for path in files if not is_directory(path) and not is_image(path)]


def endings_in(files: Iterable[Path]) -> list[str]:
    """The endings of those files that are no images, the commonest first: ``.dcm``, ``without an ending``."""
    counts = Counter(ending_of(path) for path in passed_over_among(files))
    return [ending or "without an ending" for ending, _ in counts.most_common()]


def ending_of(path: Path) -> str:
    """``.dcm``, ``.nii.gz``; empty where the name has none, or one that is a number, as the uids of DICOM files end."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if not suffixes or not suffixes[-1].strip(".").isascii() or suffixes[-1][1:].isdigit() or len(suffixes[-1]) > 12:
        return ""
    return "".join(suffixes[-2:] if suffixes[-1] in _PACKED else suffixes[-1:])
