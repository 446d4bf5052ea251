"""What a TIFF file says of its samples, asked before Pillow decodes them.

Pillow opens some kinds of TIFF as if they were another: it does not invert 16-bit WhiteIsZero, reads signed bytes as unsigned
and swaps the bytes of some compressed files. Here such files are set right, or refused by name. Tags are those of TIFF 6.0.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import BinaryIO

import numpy as np

from stillroom.data.table import UnreadableImage

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_DESCRIPTION, _SAMPLES, _GREATEST, _COLOUR_MAP, _INK_SET, _EXTRA, _FORMAT = 270, 277, 281, 320, 332, 338, 339
_SUBSAMPLING, _DEPTH = 530, 32997
_READ = {254, 255, 256, 257, 258, 259, 262, 270, 277, 281, 320, 332, 338, 339, 530, 32997}

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {0: "grey, 0 is white", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
_KINDS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex integer", 6: "complex"}
_INKS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _PALETTE: 1, _RGB: 3, _CMYK: 4, _YCBCR: 3}
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TEXT = 2
_MOST = 1_000_000  # bytes of a tag's value that are read; what is larger is none of ours
_ADVICE = "save it as grey of 8 or 16 bits, or as RGB of 8"


@dataclass(frozen=True)
class Tiff:
    """The first image of a TIFF file in its own words.

    Attributes:
        order: ``<`` or ``>``, the byte order.
        large: whether it is a BigTIFF.
        numbers: the values of each tag of interest that holds whole numbers.
        description: the text of ImageDescription.
        places: where the value of a tag of one 16-bit number stands in the file, in bytes.
    """

    order: str
    large: bool
    numbers: dict[int, tuple[int, ...]]
    description: str
    places: dict[int, int]

    def one(self, tag: int, default: int) -> int:
        """The tag's first value."""
        return self.numbers.get(tag, (default,))[0]

    @property
    def samples(self) -> int:
        """Numbers per pixel."""
        return self.one(_SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Bits of the widest sample."""
        return max(self.numbers.get(_BITS, (1,)))

    @property
    def kind(self) -> str:
        """Such as ``grey, 0 is white, 32-bit floating-point, big-endian``, for a message."""
        numbers = _KINDS.get(self.one(_FORMAT, 1), "of unknown meaning")
        words = [_COLOURS.get(self.one(_PHOTOMETRIC, -1), "colours of a rare kind"), f"{self.bits}-bit {numbers}"]
        words += [f"{self.samples} samples a pixel"] if self.samples > 1 else []
        words += ["big-endian"] if self.order == ">" else []
        words += ["BigTIFF"] if self.large else []
        return ", ".join(words)

    @property
    def signed(self) -> bool:
        """Whether samples are signed."""
        return self.one(_FORMAT, 1) == 2

    @property
    def grey(self) -> bool:
        """One number per pixel that is its brightness, or its darkness."""
        return self.samples == 1 and self.one(_PHOTOMETRIC, -1) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)


def read_tiff(file: BinaryIO) -> Tiff | None:
    """The tags of an open file's first image; None where it is no TIFF, or one too damaged to have any.

    The file is left at its beginning.
    """
    try:
        return _read(file)
    except (struct.error, ValueError, OverflowError):
        return None
    finally:
        file.seek(0)


def refuse_unclear(tiff: Tiff) -> None:
    """Raises UnreadableImage for what Pillow would show with a guess, or only in part, and for what means nothing."""
    photometric = tiff.one(_PHOTOMETRIC, -1)
    if photometric < 0:
        raise UnreadableImage(
            "the TIFF does not say whether 0 is black or white (its PhotometricInterpretation is missing);"
            " save the image anew"
        )
    if tiff.one(_SUBFILE, 0) & 5 or tiff.one(_OLD_SUBFILE, 1) == 2:
        raise UnreadableImage("the TIFF begins with a small copy or a mask of its image; save the image on its own")
    if (slices := _slices(tiff)) > 1:
        raise UnreadableImage(f"the TIFF is a stack of {slices} slices; save the one wanted as an image of its own")
    if tiff.one(_FORMAT, 1) == 3:
        raise UnreadableImage(
            "the pixels are floating-point numbers of unknown range; save the image with 8 or 16 bits"
        )
    if tiff.signed and (tiff.bits not in (16, 32) or not tiff.grey or photometric == _WHITE_IS_ZERO):
        raise UnreadableImage(f"the TIFF has signed samples ({tiff.kind}) without a known black and white; {_ADVICE}")
    if tiff.bits > 16 and tiff.order == ">" and tiff.one(_COMPRESSION, 1) != 1:
        raise UnreadableImage(f"the TIFF is compressed and {tiff.kind}, which cannot be read safely; {_ADVICE}")
    if photometric not in _INKS:
        raise unknown_kind(tiff)
    _refuse_colours(tiff, photometric)


def _refuse_colours(tiff: Tiff, photometric: int) -> None:
    extra = tiff.numbers.get(_EXTRA, ())
    spare = tiff.samples - _INKS.get(photometric, tiff.samples)
    if 0 in extra or spare > len(extra):
        raise UnreadableImage(
            f"the TIFF has {max(spare, 1)} samples a pixel beside its colours that it does not explain;"
            " save it without them"
        )
    if photometric == _PALETTE and 0 < max(tiff.numbers.get(_COLOUR_MAP, (0,))) < 256:
        raise UnreadableImage("the TIFF's palette is all but black (8-bit values where 16 bits are due); save it anew")
    if photometric == _CMYK and tiff.one(_INK_SET, 1) != 1:
        raise UnreadableImage("the TIFF is printed in inks that are not CMYK; save it as RGB")
    plain = tiff.one(_COMPRESSION, 1) == 1
    if photometric == _YCBCR and (tiff.samples < 3 or (plain and tiff.numbers.get(_SUBSAMPLING) != (1, 1))):
        raise UnreadableImage(f"the TIFF is {tiff.kind} with colours at half the resolution; save it as RGB")


def unknown_kind(tiff: Tiff) -> UnreadableImage:
    """Why a TIFF that Pillow has no name for is set aside."""
    return UnreadableImage(f"this kind of TIFF cannot be read ({tiff.kind}); {_ADVICE}")


def for_pillow(file: BinaryIO, tiff: Tiff) -> BinaryIO:
    """The file in a form that Pillow opens as it is meant, to be followed by :func:`as_meant`.

    Grey of 12 and 16 bits is declared unsigned with 0 for black: the rest Pillow knows in some byte orders only.
    """
    if not (tiff.grey and tiff.bits in (12, 16)):
        return file
    wanted = {_PHOTOMETRIC: _BLACK_IS_ZERO, _FORMAT: 1}
    changes = {tag: value for tag, value in wanted.items() if tag in tiff.numbers and tiff.one(tag, 0) != value}
    if not changes:
        return file
    if missing := changes.keys() - tiff.places.keys():
        raise UnreadableImage(f"the TIFF's tag {min(missing)} is not a single 16-bit number; save the image anew")
    content = bytearray(file.read())
    for tag, value in changes.items():
        struct.pack_into(f"{tiff.order}H", content, tiff.places[tag], value)
    return BytesIO(bytes(content))


def as_meant(pixels: np.ndarray, tiff: Tiff) -> np.ndarray:
    """``[H, W]`` uint16 as Pillow decoded what :func:`for_pillow` gave it, with 0 for black.

    Where 0 is white, black is the greatest value of as many bits as the file's MaxSampleValue needs (some write the image's
    own maximum there, which is no black), and of its whole depth where it has none, or holds more than that.

    Raises UnreadableImage where signed samples are below 0, since nothing says which value is black.
    """
    if not (tiff.grey and tiff.bits in (12, 16)):
        return pixels
    if tiff.signed and (low := int(pixels.view(np.int16).min(initial=0))) < 0:
        high = int(pixels.view(np.int16).max(initial=0))
        raise UnreadableImage(
            f"the pixels reach from {low} to {high}, and nothing says which is black; choose a window, and {_ADVICE}"
        )
    if tiff.one(_PHOTOMETRIC, _BLACK_IS_ZERO) == _WHITE_IS_ZERO:
        whole = 2**tiff.bits - 1
        declared = tiff.one(_GREATEST, whole)
        meant = 2 ** declared.bit_length() - 1 if 0 < declared < whole else whole
        return ((meant if int(pixels.max(initial=0)) <= meant else whole) - pixels).astype(np.uint16)
    return pixels


# -- reading ------------------------------------------------------------------------------------------------------
def _read(file: BinaryIO) -> Tiff | None:
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return None
    version = struct.unpack(f"{order}H", head[2:4])[0]
    if version in (0x2A00, 0x2B00):  # Pillow opens these as well
        raise UnreadableImage("the TIFF contradicts itself about its byte order; save the image anew")
    if version not in (42, 43):
        return None
    large = version == 43
    # Count and offsets have 8 bytes in BigTIFF.
    first = struct.unpack(f"{order}Q", head[8:16])[0] if large else struct.unpack(f"{order}I", head[4:8])[0]
    file.seek(first)
    count = struct.unpack(f"{order}Q", file.read(8))[0] if large else struct.unpack(f"{order}H", file.read(2))[0]
    entry, start = (20, first + 8) if large else (12, first + 2)
    table = file.read(entry * min(count, 4096))
    numbers: dict[int, tuple[int, ...]] = {}
    places: dict[int, int] = {}
    description = ""
    for at in range(0, len(table) - entry + 1, entry):
        tag, kind = struct.unpack_from(f"{order}HH", table, at)
        length = struct.unpack_from(f"{order}{'Q' if large else 'I'}", table, at + 4)[0]
        if tag not in _READ or (kind not in _TYPES and kind != _TEXT):
            continue
        form = f"{order}{length}{_TYPES.get(kind, 's')}"
        size, inside = struct.calcsize(form), 8 if large else 4
        place = start + at + entry - inside
        if size > _MOST:
            continue
        if size > inside:
            place = struct.unpack_from(f"{order}{'Q' if large else 'I'}", table, at + entry - inside)[0]
        file.seek(place)
        values = struct.unpack(form, file.read(size))
        if kind == _TEXT:
            description = values[0].decode("latin-1") if tag == _DESCRIPTION else description
        elif values and tag not in numbers:  # of a tag that comes twice Pillow takes the first as well
            numbers[tag] = values
            if kind == 3 and length == 1:
                places[tag] = place
    return Tiff(order, large, numbers, description, places)


def _slices(tiff: Tiff) -> int:
    """Slices that stand in one page, which ImageJ and tifffile tell in the description alone."""
    if depth := tiff.one(_DEPTH, 1) - 1:
        return depth + 1
    if tiff.description.startswith("ImageJ=") and (found := re.search(r"^images=(\d{1,9})", tiff.description, re.M)):
        return int(found[1])
    if found := re.match(r'\{"shape": \[([\d, ]+)\]', tiff.description):
        page = tiff.one(_WIDTH, 1) * tiff.one(_HEIGHT, 1) * tiff.samples
        return prod(int(side) for side in found[1].split(",") if side.strip()) // max(page, 1)
    return 1
