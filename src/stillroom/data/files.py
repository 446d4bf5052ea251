"""Pixels from image files: what Pillow and pydicom decode, brought to the two forms of an :class:`ImageReader`.

Light on purpose (NumPy, Pillow and, for DICOM alone, pydicom), so that what is deployed may decode as training does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from stillroom.data.dicom.decoding import decode_dicom, refuse_larger
from stillroom.data.dicom.grey import Display
from stillroom.data.dicom.opening import MOST_PIXELS
from stillroom.data.dicom.recognising import looks_like_dicom
from stillroom.data.quiet import hush
from stillroom.data.table import UnreadableImage
from stillroom.data.tiff import as_meant, for_pillow, read_tiff, refuse_unclear, unknown_kind
from stillroom.files.walk import not_a_file

_AS_STORED = Display()
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
_GREY16 = ("I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class FileReader:
    """Reads a list of image files, each with any number of masks. Holds paths only, so it pickles.

    Attributes:
        paths: ``[N]`` image files; a DICOM file of several frames stands there once for each.
        masks: ``[N]`` tuples of mask files, or empty where no image has one.
        frames: ``[N]`` which frame of its file each image is, from 0; or empty where each is the first.
        display: how DICOM images are shown.
    """

    paths: tuple[Path, ...]
    masks: tuple[tuple[Path, ...], ...] = ()
    frames: tuple[int, ...] = ()
    display: Display = _AS_STORED

    def read(self, index: int) -> np.ndarray:
        """``[H, W]`` or ``[H, W, 3]``, uint8 or uint16, as :func:`decode_image` makes it."""
        return _decode_file(self.paths[index], self._frame(index), self.display)

    def _frame(self, index: int) -> int:
        return self.frames[index] if self.frames else 0

    @cached_property
    def _several(self) -> frozenset[Path]:
        """Files that more than one image is in."""
        return frozenset(path for path, frame in zip(self.paths, self.frames, strict=False) if frame)

    def name(self, index: int) -> str:
        """The image's path, and of a file of several frames which: ``scan.dcm#3``."""
        path = self.paths[index]
        return f"{path}#{self._frame(index) + 1}" if path in self._several else str(path)

    def read_mask(self, index: int) -> np.ndarray | None:
        """The union of the image's masks, ``[H, W]`` bool: True where any channel is above 0; None where it has none.

        ``H`` and ``W`` are the masks' own. Masks should be stored without loss: a JPEG's ringing around the lesion is above
        0 as well.

        Raises:
            UnreadableImage: one of the masks cannot be decoded, or they differ in size; the reason names the mask.
        """
        union: np.ndarray | None = None
        for path in self.masks[index] if self.masks else ():
            try:
                pixels = _decode_file(path)
            except UnreadableImage as error:
                raise UnreadableImage(f"its mask {path.name} cannot be read: {error}") from None
            inside = np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels > 0)
            if union is not None and inside.shape != union.shape:
                raise UnreadableImage(f"its masks differ in size: {path.name} is not of the size of the others")
            union = inside if union is None else np.logical_or(union, inside)
        return union

    def made_of(self, index: int) -> tuple[Path | str, ...]:
        """The image's file and those of its masks; of later frames which, and what window was asked for."""
        frame, window = self._frame(index), self.display.window
        said = [*([f"frame {frame}"] if frame else []), *([f"window {window}"] if window else [])]
        return (self.paths[index], *(self.masks[index] if self.masks else ()), *said)


def decode_image(file: BinaryIO, frame: int = 0, display: Display = _AS_STORED, most: int = MOST_PIXELS) -> np.ndarray:
    """``[H, W]`` or ``[H, W, 3]``, uint8 or uint16, from an open PNG, JPEG, BMP, TIFF, WebP, GIF or DICOM file.

    - EXIF and TIFF orientation is applied. Colour profiles (ICC) and gamma are not: values count as they are stored.
    - 0 is black: what a TIFF stores as WhiteIsZero is inverted.
    - 1-bit images become 0 and 255; palettes (of 16 bits too) become RGB of 8 bits; CMYK and YCbCr become RGB.
    - Transparency is laid on black, the background of most medical images and of padding.
    - 12- and 16-bit grey is uint16, as are 32-bit and signed 16-bit integers whose values fit.
    - Of a stereo or preview JPEG (MPO, as some phones write) the main picture is read.
    - DICOM is shown as :func:`~stillroom.data.dicom.decoding.decode_dicom` says.

    Args:
        file: open, and read from its beginning.
        frame: which frame of a DICOM file, from 0.
        display: how DICOM images are shown; others are taken as they are.
        most: pixels that the image, or the frame, may have by its head; more than the default never.

    Raises:
        UnreadableImage: no image, or a damaged one; more than ``most`` pixels, about 179 million; several frames or
            pages; floating point, values below 0 or above 65535; 16-bit colour, which Pillow would cut to 8 bits;
            nothing but transparent pixels; a TIFF that is refused by
            :func:`~stillroom.data.tiff.refuse_unclear`.
    """
    # A damaged file may raise nearly anything inside a decoder. Whatever it is, it belongs to this one image,
    # which is reported by name; it must not end a run over thousands of good ones.
    tiff = None
    try:
        if not file.seek(0, os.SEEK_END):
            raise UnreadableImage("the file is empty (0 bytes)")
        if looks_like_dicom(file):
            return decode_dicom(file, frame, display, most)
        if tiff := read_tiff(file):
            refuse_unclear(tiff)
            file = for_pillow(file, tiff)
        hush("PIL")  # whatever it warns of is refused below, or does not matter
        with Image.open(file, formats=_FORMATS) as image:
            refuse_larger(*image.size, most)
            _refuse_unsupported(image, tiff.bits if tiff else 0)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            pixels = _to_array(image)
        return as_meant(pixels, tiff) if tiff else pixels
    except UnreadableImage:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        if most < MOST_PIXELS:
            limit_here = f"at most {most / 1e6:g} million are taken here: make it smaller"
            raise UnreadableImage(f"the image has more than {limit} million pixels; {limit_here}") from None
        raise UnreadableImage(f"the image has more than {limit} million pixels, which may be an attack") from None
    except UnidentifiedImageError:
        if tiff:
            raise unknown_kind(tiff) from None
        raise UnreadableImage(
            "the content is no PNG, JPEG, BMP, TIFF, WebP, GIF or DICOM image of a known kind"
        ) from None
    except Exception as error:
        raise UnreadableImage(f"the image is truncated or damaged ({_first_line(error)})") from None


def _decode_file(path: Path, frame: int = 0, display: Display = _AS_STORED) -> np.ndarray:
    if kind := not_a_file(path):
        raise UnreadableImage(f"it is {kind}, not a file")
    try:
        with path.open("rb") as file:
            return decode_image(file, frame, display)
    except OSError as error:
        raise UnreadableImage(_why_not_opened(error)) from None


def _refuse_unsupported(image: ImageFile, tiff_bits: int) -> None:
    """What Pillow would open, but only by dropping frames or bits without a word."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UnreadableImage(f"the file holds {frames} frames or pages; save the one wanted as an image of its own")
    if image.mode == "F":
        raise UnreadableImage(
            "the pixels are floating-point numbers of unknown range; save the image with 8 or 16 bits"
        )
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        raise UnreadableImage("the JPEG does not say whether 0 is all of an ink or none of it; save it as RGB")
    if image.mode in (*_GREY16, "I"):
        return
    if tiff_bits > 8 or (image.format == "PNG" and any(str(tile[3]).endswith(";16B") for tile in image.tile)):
        raise UnreadableImage(
            "the image has 16 bits per colour channel, which Pillow cannot keep; save it in 8 bits or grey"
        )


def _to_array(image: Image.Image) -> np.ndarray:
    """The pixels in one of the two forms, with 0 where nothing is shown."""
    if image.mode in _GREY16:
        return _keyed(np.asarray(image).astype(np.uint16), image)
    if image.mode == "I":
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise UnreadableImage(f"the pixels reach from {low} to {high}, outside the 16-bit range 0 to 65535")
        return _keyed(values.astype(np.uint16), image)
    if image.mode in ("1", "L"):
        return _keyed(np.asarray(image if image.mode == "L" else image.convert("L")), image)
    if image.mode == "La":  # its brightness is multiplied by its opacity already: what that leaves on black
        return np.asarray(image).reshape(*reversed(image.size), 2)[..., 0].copy()
    if image.mode == "LA":
        return np.asarray(_on_black(image).convert("L"))
    if image.has_transparency_data:
        return np.asarray(_on_black(image))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _keyed(grey: np.ndarray, image: Image.Image) -> np.ndarray:
    """Grey pixels with 0 where they have the one value that a PNG may declare transparent."""
    key = image.info.get("transparency")
    return grey if key is None else np.where(grey == key, 0, grey).astype(grey.dtype)


def _on_black(image: Image.Image) -> Image.Image:
    colour = image.convert("RGBA")
    *channels, opacity = colour.split()
    if opacity.getextrema() == (0, 0) and any(low != high for low, high in (c.getextrema() for c in channels)):
        raise UnreadableImage("every pixel is transparent: a viewer shows nothing of the image; save it opaque")
    return Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour).convert("RGB")


def _why_not_opened(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    return f"the file cannot be opened ({(error.strerror or str(error)).lower()})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
