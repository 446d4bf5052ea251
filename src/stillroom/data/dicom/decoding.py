"""Frames of DICOM files to the two forms of an image reader: grey through the grey chain, colour as RGB.

One decoder is asked first for each way of compression, so that one file gives the same pixels wherever it stands. What the
compressed picture says of its own size is held against the header before.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from stillroom.data.dicom.apart import decode_apart
from stillroom.data.dicom.grey import Display, grey_table
from stillroom.data.dicom.opening import (
    MOST_FRAMES,
    MOST_PIXELS,
    Opened,
    frames_in,
    number_of,
    open_dicom,
    value_of,
)
from stillroom.data.table import UnreadableImage

_WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "1.2.840.10008.1.2.4.50": ("JPEG", ("pillow",)),
    "1.2.840.10008.1.2.4.51": ("JPEG Extended", ("pillow",)),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", ("gdcm",)),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless", ("gdcm",)),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", ("pyjpegls", "gdcm")),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", ("pyjpegls", "gdcm")),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", ("pillow", "pylibjpeg", "gdcm")),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", ("pillow", "pylibjpeg", "gdcm")),
    "1.2.840.10008.1.2.4.201": ("High-Throughput JPEG 2000", ("pylibjpeg",)),
    "1.2.840.10008.1.2.4.202": ("High-Throughput JPEG 2000", ("pylibjpeg",)),
    "1.2.840.10008.1.2.4.203": ("High-Throughput JPEG 2000", ("pylibjpeg",)),
    "1.2.840.10008.1.2.5": ("RLE", ("pydicom",)),
}
"""Of a transfer syntax its name for people, and the decoders that are asked, each where those before it give up."""

_SAFE = ("pillow", "pydicom")
"""Decoders that are asked in this process."""
_DAMAGED = "its pixels are truncated or damaged"
_INSTALL = "pip install 'stillroom[dicom]'"

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
_RLE = "1.2.840.10008.1.2.5"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_NO_PICTURES = {"RTDOSE": "a radiotherapy dose", "SEG": "a segmentation", "RTSTRUCT": "contours", "SR": "a report"}
_NO_SIZE = tuple(range(0xFFD0, 0xFFDA))
_FRAMES = {*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC}


def decode_dicom(file: BinaryIO, frame: int, display: Display, most: int = MOST_PIXELS) -> np.ndarray:
    """``[H, W]`` or ``[H, W, 3]``, uint8 or uint16, of one frame of an open DICOM file.

    - Grey goes through modality, VOI and presentation (:func:`~stillroom.data.dicom.grey.grey_table`): 0 is black and the
      display's white is white, of uint16; uint8 where all 8 bits are shown as they are.
    - RGB, YBR and palettes become RGB of 8 bits, RGB of more bits is spread over the display's range.
    - Overlays, shutters and colour profiles are not applied; pixels stay as they lie, square or not.

    Raises:
        UnreadableImage: there are no pixels, or such as no picture is made of (1 bit, 32 bits, floating point, a dose);
            they are damaged, more than ``most``, or compressed in a way that cannot be read here.
    """
    opened = open_dicom(file)
    _refuse_no_picture(opened)
    rows, columns, bits = _shape_of(opened)
    refuse_larger(rows, columns, most)
    frames = frames_in(opened)
    if (number_of(opened.header, "NumberOfFrames", 1) or 1) > MOST_FRAMES:
        raise UnreadableImage(f"it claims to have more than {MOST_FRAMES:,} frames, which may be an attack")
    if frame >= frames:
        raise UnreadableImage(f"it has no frame {frame + 1}")
    header = opened.header
    kind = str(value_of(header, "PhotometricInterpretation", "")).strip().upper()
    samples = int(number_of(header, "SamplesPerPixel", 1) or 1)
    if (kind in _COLOUR) != (samples == 3) or kind not in (*_GREY, *_COLOUR, "PALETTE COLOR") or samples not in (1, 3):
        raise UnreadableImage("its kind of colour cannot be read: neither grey, nor a palette, RGB or YBR")
    if display.window is not None and kind not in _GREY:
        raise UnreadableImage("a window is for grey images, and it is in colour")
    stored, kind = _stored(opened, frame, frames, rows, columns)
    if samples == 1 and kind in _GREY:
        signed = bool(number_of(header, "PixelRepresentation", 0))
        low, shown = grey_table(header, frame, bits, signed, display)
        return shown[np.clip(stored.astype(np.int32) - low, 0, len(shown) - 1)]
    if kind == "PALETTE COLOR":
        return _from_palette(header, stored)
    return _in_range(stored, bits, display.white)


def refuse_larger(height: int, width: int, most: int) -> None:
    """Raises UnreadableImage where a picture has more than ``most`` pixels, before one of them is decoded."""
    if height * width > most:
        found = f"the image has {height * width / 1e6:.1f} million pixels"
        raise UnreadableImage(f"{found}; at most {most / 1e6:g} million are taken here: make it smaller")


# -- refusing -----------------------------------------------------------------------------------------------------
def _refuse_no_picture(opened: Opened) -> None:
    header = opened.header
    modality = str(value_of(header, "Modality", ""))
    if str(value_of(header.file_meta, "MediaStorageSOPClassUID", "")) == "1.2.840.10008.1.3.10":
        raise UnreadableImage("it is a DICOMDIR, which lists images and holds none")
    if modality == "RTDOSE":
        raise UnreadableImage("it is a radiotherapy dose (RTDOSE), not a picture")
    if opened.floating:
        raise UnreadableImage("its pixels are floating-point numbers of unknown range")
    if opened.start is None:
        what = _NO_PICTURES.get(modality) or ("a document" if "EncapsulatedDocument" in header else "")
        raise UnreadableImage(f"the DICOM file holds no pixels{f': it is {what}' if what else ''}")
    if not (opened.syntax in _NATIVE or opened.syntax in _WAYS):
        raise UnreadableImage("its pixels are compressed in a way that is not read, such as a video")
    if (opened.length is None) == (opened.syntax in _NATIVE):
        raise UnreadableImage("the DICOM file contradicts itself: its pixels are not compressed as it says")


def _shape_of(opened: Opened) -> tuple[int, int, int]:
    """Rows, columns and stored bits."""
    header = opened.header
    numbers = [number_of(header, name) for name in ("Rows", "Columns", "BitsAllocated")]
    if None in numbers or any(number != int(number or 0) for number in numbers):
        raise UnreadableImage("the DICOM header lacks rows, columns or bits")
    rows, columns, allocated = (int(number or 0) for number in numbers)
    bits = int(number_of(header, "BitsStored", allocated) or allocated)
    if min(rows, columns) < 1:
        raise UnreadableImage("it has no pixels")
    if rows * columns > MOST_PIXELS:
        raise UnreadableImage(f"the image has more than {MOST_PIXELS // 10**6} million pixels, which may be an attack")
    if allocated == 1 or bits == 1:
        raise UnreadableImage("its pixels are single bits: a mask or overlay, not a picture")
    if allocated not in (8, 16):
        raise UnreadableImage(f"its pixels have {allocated} bits; save the image with 8 or 16")
    if not 1 < bits <= allocated:
        raise UnreadableImage("the DICOM header contradicts itself: it stores more bits than it has room for")
    return rows, columns, bits


# -- decoding -----------------------------------------------------------------------------------------------------
def _stored(opened: Opened, frame: int, frames: int, rows: int, columns: int) -> tuple[np.ndarray, str]:
    """The frame's stored values, ``[H, W]`` or ``[H, W, 3]``, and what kind of colour they are by now."""
    from pydicom.pixels import get_decoder

    options = _options(opened, frames, rows, columns)
    syntax = opened.syntax if opened.syntax != _NATIVE[2] else _NATIVE[1]  # unpacked by now
    decoder = get_decoder(syntax)
    if opened.length is not None:
        _refuse_short(opened, frame, options)
        return _asked(decoder, opened, frame, "", options)
    plugins = _plugins(opened, decoder.available_plugins, options)
    encoded = _encoded(opened, frame, frames)
    _refuse_other_size(opened, encoded, rows, columns, options)
    for plugin in plugins:
        try:
            if plugin in _SAFE:
                return _asked(decoder, opened, frame, plugin, options)
            return decode_apart(encoded, opened.syntax, plugin, options)
        except UnreadableImage as error:
            if str(error) != _DAMAGED:
                raise
    more = not {*_WAYS[opened.syntax][1]} <= {*decoder.available_plugins}
    raise UnreadableImage(f"{_DAMAGED}, or read after `{_INSTALL}` alone" if more else _DAMAGED)


def _asked(decoder: Any, opened: Opened, frame: int, plugin: str, options: dict[str, Any]) -> tuple[np.ndarray, str]:
    assert opened.start is not None
    opened.file.seek(opened.start)
    try:
        found, told = decoder.as_array(opened.file, index=frame, decoding_plugin=plugin, **options)
    except Exception:  # a decoder raises nearly anything on damaged pixels
        raise UnreadableImage(_DAMAGED) from None
    return found, str(told["photometric_interpretation"])


def _plugins(opened: Opened, available: Sequence[str], options: dict[str, Any]) -> list[str]:
    """Which of pydicom's decoders are asked for compressed pixels, in order."""
    name, known = _WAYS[opened.syntax]
    deep = options["bits_stored"] > 8
    if deep and name in ("JPEG", "JPEG Extended"):
        raise UnreadableImage("its pixels are compressed as JPEG of 12 bits, which is not read")
    if deep and options["samples_per_pixel"] > 1:  # of which Pillow would leave 8
        known = tuple(one for one in known if one != "pillow")
    found = [one for one in known if one in available]
    if not found:
        raise UnreadableImage(f"its pixels are compressed as {name}, which is read after `{_INSTALL}`")
    return found


def _options(opened: Opened, frames: int, rows: int, columns: int) -> dict[str, Any]:
    """What pydicom's decoders ask of a header."""
    header = opened.header
    samples = int(number_of(header, "SamplesPerPixel", 1) or 1)
    allocated = int(number_of(header, "BitsAllocated") or 0)
    options: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": samples,
        "bits_allocated": allocated,
        "bits_stored": int(number_of(header, "BitsStored", allocated) or allocated),
        "number_of_frames": frames,
        "photometric_interpretation": str(value_of(header, "PhotometricInterpretation")).strip().upper(),
        "pixel_representation": int(number_of(header, "PixelRepresentation", 0) or 0),
        "pixel_keyword": "PixelData",
        "pixel_vr": opened.vr,
    }
    if samples > 1:  # of compressed pixels the decoders know, and some headers say otherwise
        planar = number_of(header, "PlanarConfiguration", 0) if opened.length is not None else 0
        options["planar_configuration"] = int(planar or 0)
    return options


def _refuse_short(opened: Opened, frame: int, options: dict[str, Any]) -> None:
    """Before a byte is set aside for it: that uncompressed pixels are all there."""
    size = options["rows"] * options["columns"] * options["samples_per_pixel"] * options["bits_allocated"] // 8
    if options["photometric_interpretation"] == "YBR_FULL_422":
        size = size // 3 * 2
    assert opened.start is not None
    assert opened.length is not None
    end = opened.file.seek(0, 2)
    if min(opened.length, end - opened.start) < size * (frame + 1):
        raise UnreadableImage("the DICOM file is truncated: it ends before its pixels do")


def _encoded(opened: Opened, frame: int, frames: int) -> bytes:
    """The frame as it is compressed."""
    from pydicom.encaps import get_frame

    assert opened.start is not None
    opened.file.seek(opened.start)
    try:
        return get_frame(opened.file, frame, number_of_frames=frames)
    except Exception:
        raise UnreadableImage("its compressed pixels are truncated or damaged") from None


def _refuse_other_size(opened: Opened, encoded: bytes, rows: int, columns: int, options: dict[str, Any]) -> None:
    """A compressed picture of another size than the header's would be decoded in full before anybody saw."""
    if opened.syntax == _RLE:
        raw = rows * columns * options["samples_per_pixel"] * options["bits_allocated"] // 8
        if len(encoded) > 2 * raw + 1024:
            raise UnreadableImage("its compressed pixels are longer than the picture, which may be an attack")
        return
    size = _size_of_jpeg_2000(encoded) if encoded[:2] != b"\xff\xd8" else _size_of_jpeg(encoded)
    if size is None:
        raise UnreadableImage("its compressed pixels are truncated or damaged")
    if size != (rows, columns):
        raise UnreadableImage(
            f"its compressed picture has {size[1]}x{size[0]} pixels, where the header says {columns}x{rows}"
        )


def _size_of_jpeg(encoded: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG or JPEG-LS stream begins with (ITU-T T.81, B.2.2); None where it does not."""
    at = 2
    while len(encoded) >= at + 9:
        marker = struct.unpack_from(">H", encoded, at)[0]
        if marker in _FRAMES:
            return struct.unpack_from(">HH", encoded, at + 5)
        if marker == 0xFFFF:  # a filling byte
            at += 1
        elif marker < 0xFF00:
            return None
        else:
            at += 2 if marker in _NO_SIZE else 2 + struct.unpack_from(">H", encoded, at + 2)[0]
    return None


def _size_of_jpeg_2000(encoded: bytes) -> tuple[int, int] | None:
    """The same of a JPEG 2000 stream, by itself or in a JP2 file (ITU-T T.800, A.5.1)."""
    at = encoded.find(b"\xff\x4f\xff\x51", 0, 65536)
    if at < 0 or len(encoded) < at + 24:
        return None
    width, height, left, top = struct.unpack_from(">4I", encoded, at + 8)
    return height - top, width - left


# -- colour -------------------------------------------------------------------------------------------------------
def _from_palette(header: Any, stored: np.ndarray) -> np.ndarray:
    """``[H, W, 3]`` uint8 of the places in a palette (PS3.3, C.7.6.3.1.5)."""
    try:
        if "RedPaletteColorLookupTableData" in header:
            planes = [_plane(header, name, stored) for name in ("Red", "Green", "Blue")]
            coloured = np.stack(planes, axis=-1)
        else:
            from pydicom.pixels import apply_color_lut

            coloured = apply_color_lut(stored, header)[..., :3]
    except Exception:
        raise UnreadableImage("its palette is missing or damaged") from None
    if coloured.dtype == np.uint8:
        return coloured
    if 0 < int(coloured.max(initial=0)) < 256:
        raise UnreadableImage("its palette is all but black (8-bit values where 16 bits are due); save it anew")
    return (coloured >> 8).astype(np.uint8)


def _plane(header: Any, name: str, stored: np.ndarray) -> np.ndarray:
    """``[H, W]`` uint8 or uint16. pydicom takes tables of big-endian files for little-endian ones."""
    count, first, _ = (int(number) for number in header[f"{name}PaletteColorLookupTableDescriptor"].value)
    count = count or 65536
    data = header[f"{name}PaletteColorLookupTableData"].value
    little = header.original_encoding[1]
    table: np.ndarray
    if len(data) >= 2 * count:
        table = np.frombuffer(data[: 2 * count], "<u2" if little else ">u2").astype(np.uint16)
    else:  # bytes, two in a word
        words = np.frombuffer(data[: len(data) // 2 * 2], np.uint8).reshape(-1, 2)
        table = (words if little else words[:, ::-1]).reshape(-1)[:count]
    if len(table) < count:
        raise ValueError("too short")
    return table[np.clip(stored.astype(np.int64) - first, 0, count - 1)]


def _in_range(stored: np.ndarray, bits: int, white: int) -> np.ndarray:
    """``[H, W, 3]``: 8 bits as they are, more of them spread to white."""
    if stored.dtype.kind != "u":
        raise UnreadableImage("its colours are signed numbers, of which nothing says which is black")
    top = 255 if bits == 8 or stored.dtype == np.uint8 else white
    kind = np.uint8 if top == 255 else np.uint16
    most = 2**bits - 1
    if most == top:
        return stored.astype(kind)
    return np.rint(np.minimum(stored, most) * (top / most)).astype(kind)
