"""Which files of a folder are images, and which endings are passed over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillroom.data.companions import find_masks
from stillroom.files.walk import walk

IMAGE_EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo", ".apng", ".dib"),
)
"""Endings, in lower case, by which images are found in folders, the usual ones first. Decoding goes by content."""

_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def list_images(folder: Path) -> list[Path]:
    """Every image file under ``folder``, however deep, in natural order (``scan2`` before ``scan10``).

    What systems leave behind is left out and links are followed, as :func:`~stillroom.files.walk.walk` does.

    Raises:
        UsageError: a folder cannot be read, or a name is not valid text in UTF-8.
    """
    return images_among(walk(folder).files)


def list_pictures(folder: Path) -> tuple[list[Path], int]:
    """The images under ``folder`` as :func:`list_images` gives them without the masks of others, and the number of masks.

    Raises:
        UsageError: see :func:`list_images`.
    """
    images = list_images(folder)
    masks = find_masks({folder: images}).files
    return [image for image in images if image not in masks], len(masks)


def images_among(files: Sequence[Path]) -> list[Path]:
    """Those that are images by their endings, in the same order."""
    return [path for path in files if is_image_name(path.name)]


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image when a folder is listed."""
    return Path(name).suffix.lower() in IMAGE_EXTENSIONS


def ending_of(path: Path) -> str:
    """``.dcm``, ``.nii.gz``; empty where the name has none, or one that is a number, as the uids of DICOM files end."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if not suffixes or not suffixes[-1].strip(".").isascii() or suffixes[-1][1:].isdigit() or len(suffixes[-1]) > 12:
        return ""
    return "".join(suffixes[-2:] if suffixes[-1] in _PACKED else suffixes[-1:])
