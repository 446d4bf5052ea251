"""TIFFs written byte by byte after TIFF 6.0, in every kind that Pillow reads wrongly, in part or with a guess."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from stillroom.data.files import FileReader
from stillroom.data.table import UnreadableImage

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (12, 9), dtype=np.uint16)
RGB = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)
ORDERS = pytest.mark.parametrize("order", "<>")


def packed(pixels: np.ndarray, bits: int, order: str) -> bytes:
    """Rows of samples, each row from a new byte; in less than 16 bits the highest bit first, in whichever order."""
    if bits % 8 == 0:
        return pixels.astype(f"{order}{pixels.dtype.kind}{bits // 8}").tobytes()
    spread = (pixels[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(len(pixels), -1).astype(np.uint8), axis=1).tobytes()


def write(path: Path, pixels: np.ndarray, bits=8, photometric=1, order="<", large=False, **changed) -> Path:
    """One strip. ``changed`` gives tags by number, such as ``t339=(2,)``; None leaves one out, a text is written as such."""
    height, width, samples = (*pixels.shape, 1)[:3]
    content = packed(pixels, bits, order)
    tags = {256: (width,), 257: (height,), 258: (bits,) * samples, 259: (1,), 262: (photometric,), 277: (samples,)}
    tags |= {273: (0,), 278: (height,), 279: (0,)} | {int(name[1:]): value for name, value in changed.items()}
    if tags[259] == (8,):
        content = zlib.compress(content)
    tags[279] = (len(content),)
    word, entry, inside = ("Q", 20, 8) if large else ("I", 12, 4)
    start = 16 if large else 8
    tags[273] = (start,)
    body, later, after = b"", b"", start + len(content) + len(content) % 2
    tags = {tag: value for tag, value in sorted(tags.items()) if value is not None}
    outside = after + (8 if large else 2) + entry * len(tags) + inside
    for tag, values in tags.items():
        kind = 2 if isinstance(values, str) else 4 if max(values) > 65535 else 3
        raw = values.encode() + b"\0" if kind == 2 else struct.pack(f"{order}{len(values)}{' HI'[kind - 2]}", *values)
        count = len(raw) if kind == 2 else len(values)
        if len(raw) > inside:
            place, later = struct.pack(f"{order}{word}", outside + len(later)), later + raw + b"\0" * (len(raw) % 2)
        else:
            place = raw.ljust(inside, b"\0")
        body += struct.pack(f"{order}HH{word}", tag, kind, count) + place
    head = {"<": b"II", ">": b"MM"}[order]
    head += struct.pack(f"{order}HHHQ", 43, 8, 0, after) if large else struct.pack(f"{order}HI", 42, after)
    number = struct.pack(f"{order}{'Q' if large else 'H'}", len(tags))
    path.write_bytes(head + content.ljust(after - start, b"\0") + number + body + bytes(inside) + later)
    return path


def read(path: Path) -> np.ndarray:
    return FileReader((path,)).read(0)


def reason(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read(path)
    return str(caught.value)


@ORDERS
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("compression", [1, 8])
def test_zero_is_black_whatever_the_file_says(tmp_path, order, bits, compression):
    values = RNG.integers(0, 2**bits, (12, 9), dtype=np.uint16)
    shown = values * (255 // (2**bits - 1)) if bits < 8 else values
    for photometric, stored in ((1, values), (0, 2**bits - 1 - values)):
        result = read(write(tmp_path / "a.tif", stored, bits, photometric, order, t259=(compression,)))
        assert result.dtype == (np.uint16 if bits == 16 else np.uint8)
        np.testing.assert_array_equal(result, shown)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")
def test_large_files_too(tmp_path):
    for photometric, stored in ((1, DEEP), (0, 65535 - DEEP)):
        np.testing.assert_array_equal(read(write(tmp_path / "a.tif", stored, 16, photometric, large=True)), DEEP)
    assert "big-endian, BigTIFF" in reason(write(tmp_path / "a.tif", DEEP, 16, 1, ">", large=True))


def test_twelve_bits_keep_their_values(tmp_path):
    values = RNG.integers(0, 4096, (12, 9), dtype=np.uint16)
    np.testing.assert_array_equal(read(write(tmp_path / "a.tif", values, 12, 1)), values)
    np.testing.assert_array_equal(read(write(tmp_path / "a.tif", 4095 - values, 12, 0)), values)
    assert "(grey, 12-bit unsigned, big-endian)" in reason(write(tmp_path / "a.tif", values, 12, 1, ">"))


@pytest.mark.parametrize(("declared", "black"), [(4095, 4095), (3000, 4095), (1023, 65535), (0, 65535), (65535, 65535)])
def test_white_at_0_is_black_at_the_greatest_value_declared(tmp_path, declared, black):
    """Twelve bits kept in sixteen. One that holds more than it declares is believed of no such thing."""
    stored = RNG.integers(0, 3000, (12, 9), dtype=np.uint16)
    path = write(tmp_path / "a.tif", stored, 16, 0, t280=(0,), t281=(declared,))
    np.testing.assert_array_equal(read(path), black - stored)
    np.testing.assert_array_equal(read(write(tmp_path / "b.tif", stored, 16, 1, t281=(declared,))), stored)


@ORDERS
@pytest.mark.parametrize("compression", [1, 8])
def test_signed_samples_are_read_where_they_say_which_is_black(tmp_path, order, compression):
    values = RNG.integers(0, 32768, (12, 9)).astype(np.int16)
    how = {"order": order, "t259": (compression,), "t339": (2,)}
    np.testing.assert_array_equal(read(write(tmp_path / "a.tif", values, 16, 1, **how)), values)
    values[3, 4], values[5, 5] = -1024, 32767
    assert reason(write(tmp_path / "a.tif", values, 16, 1, **how)).startswith("the pixels reach from -1024 to 32767")
    small = (values % 128).astype(np.int8)
    assert "(grey, 8-bit signed" in reason(write(tmp_path / "a.tif", small, 8, 1, **how))
    assert "(grey, 12-bit signed" in reason(write(tmp_path / "a.tif", values % 4096, 12, 1, **how))
    assert "(grey, 0 is white, 16-bit signed" in reason(write(tmp_path / "a.tif", values, 16, 0, **how))


@ORDERS
def test_wide_integers_are_read_or_refused_but_never_cut(tmp_path, order):
    wide = DEEP.astype(np.uint32)
    kept = write(tmp_path / "a.tif", wide.astype(np.int32), 32, 1, order, t339=(2,))
    np.testing.assert_array_equal(read(kept), DEEP)
    if order == "<":
        np.testing.assert_array_equal(read(write(tmp_path / "a.tif", wide, 32, 1, order)), DEEP)
        assert "outside the 16-bit range" in reason(write(tmp_path / "a.tif", wide * 70_000, 32, 1, order))
    else:
        assert "32-bit unsigned" in reason(write(tmp_path / "a.tif", wide, 32, 1, order))
    assert "32-bit unsigned" in reason(write(tmp_path / "a.tif", wide, 32, 0, order))
    swapped = write(tmp_path / "a.tif", wide.astype(np.int32), 32, 1, ">", t339=(2,), t259=(8,))
    assert "compressed" in reason(swapped)


@ORDERS
@pytest.mark.parametrize(("kind", "bits"), [("f2", 16), ("f4", 32), ("f8", 64)])
def test_floats_are_refused(tmp_path, order, kind, bits):
    path = write(tmp_path / "a.tif", GREY.astype(kind), bits, 1, order, t339=(3,))
    assert reason(path).startswith("the pixels are floating-point numbers of unknown range")


def test_a_file_that_does_not_say_what_0_is_is_refused(tmp_path):
    assert "whether 0 is black or white" in reason(write(tmp_path / "a.tif", GREY, t262=None))


def test_byte_order_that_contradicts_itself_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", GREY)
    path.write_bytes(b"II\0\x2a" + path.read_bytes()[4:])
    assert "byte order" in reason(path)


def test_colours_that_are_read(tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path / "a.tif", RGB, 8, 2)), RGB)
    inks = RNG.integers(0, 256, (12, 9, 4), dtype=np.uint8)
    kept = 255 - inks.astype(float)
    np.testing.assert_allclose(read(write(tmp_path / "a.tif", inks, 8, 5)), kept[..., :3] * kept[..., 3:] / 255, atol=1)
    # JPEG File Interchange Format 1.02, which has the equations of ITU-R 601
    light, blue, red = np.moveaxis(RGB - np.array([0.0, 128, 128]), -1, 0)
    colours = [light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue]
    result = read(write(tmp_path / "a.tif", RGB, 8, 6, t530=(1, 1)))
    np.testing.assert_allclose(result, np.stack(colours, axis=-1).clip(0, 255), atol=1.5)


def test_palette_of_16_bits(tmp_path):
    colours = RNG.integers(1, 256, (256, 3))
    ramp = tuple((colours.T * 257).ravel().tolist())
    np.testing.assert_array_equal(read(write(tmp_path / "a.tif", GREY, 8, 3, t320=ramp)), colours[GREY])
    dark = tuple(colours.T.ravel().tolist())
    assert "all but black" in reason(write(tmp_path / "a.tif", GREY, 8, 3, t320=dark))
    assert "palette, 16-bit" in reason(write(tmp_path / "a.tif", DEEP, 16, 3, t320=ramp))


def test_colours_that_are_refused(tmp_path):
    four = RNG.integers(0, 256, (12, 9, 4), dtype=np.uint8)
    for extra in (None, (0,)):
        assert "does not explain" in reason(write(tmp_path / "a.tif", four, 8, 2, t338=extra))
    two = np.stack([GREY, GREY], axis=-1)
    for extra in (None, (0,)):
        assert "does not explain" in reason(write(tmp_path / "a.tif", two, 8, 1, t338=extra))
    assert "half the resolution" in reason(write(tmp_path / "a.tif", RGB, 8, 6))
    assert "half the resolution" in reason(write(tmp_path / "a.tif", RGB, 8, 6, t530=(2, 2)))
    assert "CIELAB" in reason(write(tmp_path / "a.tif", RGB, 8, 8))
    assert "inks that are not CMYK" in reason(write(tmp_path / "a.tif", four, 8, 5, t332=(2,)))
    assert "16 bits per colour" in reason(write(tmp_path / "a.tif", RGB.astype(np.uint16) * 257, 16, 2))


def test_transparency_is_laid_on_black(tmp_path):
    """Unassociated (2) opacity is multiplied with the pixels, associated (1) has been."""
    opacity = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
    premultiplied = np.rint(GREY * (opacity / 255)).astype(np.uint8)
    for extra, grey in ((2, GREY), (1, premultiplied)):
        path = write(tmp_path / "a.tif", np.stack([grey, opacity], axis=-1), 8, 1, t338=(extra,))
        np.testing.assert_allclose(read(path), premultiplied, atol=1)
        path = write(tmp_path / "a.tif", np.stack([grey, grey // 2, grey, opacity], axis=-1), 8, 2, t338=(extra,))
        np.testing.assert_allclose(read(path)[..., 0], premultiplied, atol=2)


def test_what_nobody_would_see_is_refused(tmp_path):
    hidden = np.concatenate([RGB, np.zeros((12, 9, 1), np.uint8)], axis=2)
    assert "every pixel is transparent" in reason(write(tmp_path / "a.tif", hidden, 8, 2, t338=(2,)))
    assert not read(write(tmp_path / "a.tif", hidden * 0, 8, 2, t338=(2,))).any()  # black is what it says


@ORDERS
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [1, 8])
def test_orientation_is_applied_once(tmp_path, order, orientation, compression):
    # The stored picture for which each tag value asks the viewer to restore DEEP (TIFF 6.0, tag 274).
    turned = [DEEP, DEEP[:, ::-1], DEEP[::-1, ::-1], DEEP[::-1], DEEP.T]
    turned += [np.rot90(DEEP, 1), DEEP[::-1, ::-1].T, np.rot90(DEEP, -1)]
    stored = np.ascontiguousarray(turned[orientation - 1])
    for photometric, pixels in ((1, stored), (0, 65535 - stored)):
        path = write(tmp_path / "a.tif", pixels, 16, photometric, order, t274=(orientation,), t259=(compression,))
        np.testing.assert_array_equal(read(path), DEEP)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("a stack of 5 slices", {"t270": "ImageJ=1.53t\nimages=5\nslices=5\n"}),
        ("a stack of 3 slices", {"t270": '{"shape": [3, 12, 9]}'}),
        ("a stack of 7 slices", {"t32997": (7,)}),
        ("a small copy or a mask", {"t254": (1,)}),
        ("a small copy or a mask", {"t254": (4,)}),
        ("a small copy or a mask", {"t255": (2,)}),
    ],
)
def test_what_is_not_the_whole_image_is_refused(tmp_path, words, changed):
    assert words in reason(write(tmp_path / "a.tif", GREY, **changed))


def test_descriptions_of_one_image_are_no_stack(tmp_path):
    for text in ("ImageJ=1.53t\nimages=1\n", "ImageJ=1.53t\n", '{"shape": [12, 9]}', '{"shape": [1, 12, 9]}', "A film"):
        np.testing.assert_array_equal(read(write(tmp_path / "a.tif", GREY, t270=text)), GREY)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")
@ORDERS
def test_tags_that_point_nowhere_end_in_a_reason(tmp_path, order):
    """Whatever 16-bit number of the file is replaced, the answer is an image or a reason."""
    path = write(tmp_path / "a.tif", 65535 - DEEP, 16, 0, order)
    sound = path.read_bytes()
    for at in range(0, 8, 2):
        path.write_bytes(sound[:at] + b"\xff\xff" + sound[at + 2 :])
        reason(path)
    for at in range(8 + DEEP.nbytes, len(sound), 2):
        path.write_bytes(sound[:at] + b"\xff\xff" + sound[at + 2 :])
        with contextlib.suppress(UnreadableImage):
            assert read(path).dtype in (np.uint8, np.uint16)
