"""Every kind of image file a hospital may hand over, and every way in which one may be broken."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from stillroom.data.files import FileReader
from stillroom.data.listing import list_images
from stillroom.data.table import UnreadableImage
from stillroom.errors import UsageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
RGB = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (12, 9), dtype=np.uint16)


def read(path: Path) -> np.ndarray:
    return FileReader((path,)).read(0)


def reason(path: Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read(path)
    return str(caught.value)


def write_png16(path: Path, pixels: np.ndarray, colour_type: int) -> Path:
    """A 16-bit PNG by hand, since Pillow writes none with colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("ending", ["png", "PNG", "bmp", "tif", "TIFF"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_lossless_files_come_back_bit_for_bit(tmp_path, ending, pixels):
    path = tmp_path / f"image.{ending}"
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read(path), pixels)


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "JPG", "webp"])
def test_lossy_files_come_back_close(tmp_path, ending):
    smooth = np.tile(np.arange(64, dtype=np.uint8) * 3, (48, 1))
    Image.fromarray(smooth).save(tmp_path / f"image.{ending}", quality=95)
    pixels = read(tmp_path / f"image.{ending}").astype(int)
    assert pixels.shape[:2] == smooth.shape
    assert np.abs(pixels.reshape(48, 64, -1) - smooth[..., None]).max() <= 6


def test_palette_becomes_rgb(tmp_path):
    few = np.array([[255, 0, 0], [0, 128, 0], [7, 7, 7]], dtype=np.uint8)[RNG.integers(0, 3, (12, 9))]
    for name in ("image.png", "image.gif"):
        Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / name)
        assert Image.open(tmp_path / name).mode == "P"
        np.testing.assert_array_equal(read(tmp_path / name), few)


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read(tmp_path / "image.png"), np.where(bits, 255, 0))
    assert read(tmp_path / "image.png").dtype == np.uint8


@pytest.mark.parametrize(("mode", "shape"), [("LA", (12, 9)), ("RGBA", (12, 9, 3))])
def test_transparency_is_laid_on_black(tmp_path, mode, shape):
    pixels = np.full((12, 9, len(mode)), 200, dtype=np.uint8)
    pixels[:6, :, -1], pixels[6:, :, -1] = 0, 255
    Image.fromarray(pixels, mode).save(tmp_path / "image.png")
    result = read(tmp_path / "image.png")
    assert result.shape == shape
    assert (result[:6] == 0).all()
    assert (result[6:] == 200).all()


def test_the_grey_that_a_png_declares_transparent_is_black(tmp_path):
    for pixels in (GREY, DEEP):
        Image.fromarray(pixels).save(tmp_path / "image.png", transparency=int(pixels[3, 3]))
        np.testing.assert_array_equal(read(tmp_path / "image.png"), np.where(pixels == pixels[3, 3], 0, pixels))


def test_what_nobody_would_see_is_refused(tmp_path):
    for pixels in (GREY[..., None], RGB):
        hidden = np.concatenate([pixels, np.zeros((12, 9, 1), np.uint8)], axis=2)
        Image.fromarray(hidden).save(tmp_path / "image.png")
        assert reason(tmp_path / "image.png").startswith("every pixel is transparent")
        Image.fromarray(hidden * 0).save(tmp_path / "image.png")  # black, and says so
        assert not read(tmp_path / "image.png").any()


def test_values_count_as_they_are_stored_whatever_the_profile(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(RGB).save(tmp_path / "image.png", icc_profile=profile, gamma=1.0)
    assert Image.open(tmp_path / "image.png").info["icc_profile"] == profile
    np.testing.assert_array_equal(read(tmp_path / "image.png"), RGB)


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.zeros((12, 9, 4), dtype=np.uint8)
    inks[..., 0] = 255  # cyan
    Image.fromarray(inks, "CMYK").save(tmp_path / "image.tif")
    assert (read(tmp_path / "image.tif") == [0, 255, 255]).all()


def test_jpeg_in_inks_is_read_where_it_says_which_way(tmp_path):
    """Adobe's marker, which Pillow writes, means that inks are inverted. Without it nobody knows."""
    inks = np.zeros((16, 16, 4), dtype=np.uint8)
    inks[..., 1] = 255  # magenta
    Image.fromarray(inks, "CMYK").save(tmp_path / "image.jpg", quality=95)
    assert np.abs(read(tmp_path / "image.jpg").astype(int) - [255, 0, 255]).max() <= 3
    content = (tmp_path / "image.jpg").read_bytes()
    at = content.index(b"\xff\xee")
    (length,) = struct.unpack(">H", content[at + 2 : at + 4])
    (tmp_path / "image.jpg").write_bytes(content[:at] + content[at + 2 + length :])
    assert "whether 0 is all of an ink" in reason(tmp_path / "image.jpg")


def test_sixteen_bit_grey_keeps_its_bits(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "little.tif")
    Image.fromarray(DEEP).save(tmp_path / "image.png")
    Image.fromarray(DEEP.astype(np.int32)).save(tmp_path / "wide.tif")
    big = Image.frombytes("I;16B", (9, 12), DEEP.astype(">u2").tobytes())
    big.save(tmp_path / "big.tif")
    for name in ("little.tif", "image.png", "wide.tif", "big.tif"):
        result = read(tmp_path / name)
        assert result.dtype == np.dtype("=u2"), name
        np.testing.assert_array_equal(result, DEEP, err_msg=name)


def test_integers_beyond_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.array([[-5, 70000]], dtype=np.int32)).save(tmp_path / "image.tif")
    assert reason(tmp_path / "image.tif").startswith("the pixels reach from -5 to 70000")


def test_what_pillow_would_cut_is_refused(tmp_path):
    colour = RNG.integers(0, 65536, (12, 9, 3))
    assert "16 bits per colour" in reason(write_png16(tmp_path / "rgb.png", colour, 2))
    assert "16 bits per colour" in reason(write_png16(tmp_path / "la.png", colour[..., :2], 4))
    np.testing.assert_array_equal(read(write_png16(tmp_path / "g.png", colour[..., 0], 0)), colour[..., 0])
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")
    assert "floating-point" in reason(tmp_path / "float.tif")


def test_sixteen_bit_colour_tiff_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pixels = RNG.integers(0, 65536, (3, 12, 9), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels.transpose(1, 2, 0), photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="rgb", planarconfig="separate")
    for name in ("a.tif", "b.tif"):
        assert "16 bits per colour" in reason(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    # The stored picture for which each tag value asks the viewer to restore GREY (TIFF 6.0, tag 274).
    stored = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY, 1),
        7: GREY[::-1, ::-1].T,
        8: np.rot90(GREY, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "image.png"), GREY)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_exif_orientation_of_lossy_files(tmp_path, ending):
    smooth = np.add.outer(np.arange(48) * 3, np.arange(64)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(smooth)).save(tmp_path / f"image.{ending}", exif=exif, quality=95)
    pixels = read(tmp_path / f"image.{ending}")
    assert pixels.shape[:2] == smooth.shape
    assert np.abs(pixels.reshape(48, 64, -1).astype(int) - smooth[..., None]).max() <= 6


@pytest.mark.parametrize("ending", ["gif", "tif", "png", "webp"])
def test_several_frames_are_refused(tmp_path, ending):
    frame = Image.fromarray(GREY)
    path = tmp_path / f"image.{ending}"
    frame.save(path, save_all=True, append_images=[Image.fromarray(GREY[::-1].copy())])
    assert reason(path).startswith("the file holds 2 frames")


def test_main_picture_of_a_phone_jpeg_is_read(tmp_path):
    black, white = Image.new("L", (9, 12)), Image.new("L", (9, 12), 255)
    black.save(tmp_path / "image.jpg", format="MPO", save_all=True, append_images=[white])
    assert (read(tmp_path / "image.jpg") == 0).all()


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp", "gif"])
def test_truncated_files_say_so(tmp_path, ending):
    noise = RNG.integers(0, 256, (60, 60), dtype=np.uint8)
    path = tmp_path / f"image.{ending}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in reason(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")
@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp", "gif"])
def test_damage_anywhere_ends_in_a_reason(tmp_path, ending):
    """Whatever byte is flipped, the answer is an image or a reason, never another exception."""
    path = tmp_path / f"image.{ending}"
    Image.fromarray(RGB).save(path)
    sound = path.read_bytes()
    for _ in range(60):
        broken = bytearray(sound)
        for at in RNG.integers(0, len(sound), 3):
            broken[at] = RNG.integers(0, 256)
        path.write_bytes(broken)
        with contextlib.suppress(UnreadableImage):
            assert read(path).dtype in (np.uint8, np.uint16)


def test_no_image_at_all(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("patient,label\n1,benign\n")
    (tmp_path / "folder.png").mkdir()
    assert reason(tmp_path / "empty.png") == "the file is empty (0 bytes)"
    assert reason(tmp_path / "text.png").startswith("the content is no PNG")
    assert reason(tmp_path / "missing.png") == "the file does not exist"
    assert reason(tmp_path / "folder.png") == "it is a folder, not a file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_forbidden_file(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "image.png")
    (tmp_path / "image.png").chmod(0)
    assert reason(tmp_path / "image.png") == "the file cannot be opened (permission denied)"


def test_decompression_bomb_is_refused_unopened(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert "million pixels" in reason(tmp_path / "image.png")


def test_ending_does_not_matter_for_decoding(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "image.jpg", format="PNG")
    np.testing.assert_array_equal(read(tmp_path / "image.jpg"), RGB)


def test_mask_is_the_union_of_all(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    left, right, colour = np.zeros((3, 12, 9), dtype=bool)
    left[2:5, :3], right[:, 8], colour[11, :] = True, True, True
    Image.fromarray(left).save(tmp_path / "left.png")  # 1 bit
    Image.fromarray(right.astype(np.uint8)).save(tmp_path / "right.png")  # 1 is inside as 255 is
    Image.fromarray(colour[..., None] * np.array([0, 0, 9], dtype=np.uint8)).save(tmp_path / "colour.png")
    reader = FileReader(
        (tmp_path / "a.png", tmp_path / "a.png"),
        ((), (tmp_path / "left.png", tmp_path / "right.png", tmp_path / "colour.png")),
    )
    assert reader.read_mask(0) is None
    mask = reader.read_mask(1)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, left | right | colour)
    assert FileReader((tmp_path / "a.png",)).read_mask(0) is None


def test_masks_keep_their_own_size_and_must_agree(tmp_path):
    Image.new("L", (20, 10)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "small.png")
    reader = FileReader((tmp_path / "a.png",), ((tmp_path / "small.png",),))
    np.testing.assert_array_equal(reader.read_mask(0), [[False, True]])
    both = FileReader((tmp_path / "a.png",), ((tmp_path / "a.png", tmp_path / "small.png"),))
    with pytest.raises(UnreadableImage, match=r"its masks differ in size: small\.png"):
        both.read_mask(0)


def test_broken_mask_is_named(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    reader = FileReader((tmp_path / "a.png",), ((tmp_path / "a_mask.png",),))
    with pytest.raises(UnreadableImage, match=r"its mask a_mask\.png cannot be read: the file does not exist"):
        reader.read_mask(0)


def test_a_row_is_made_of_its_image_and_its_masks():
    image, mask, other = Path("a.png"), Path("a_mask.png"), Path("b.png")
    reader = FileReader((image, other), ((mask,), ()))
    assert [reader.made_of(row) for row in (0, 1)] == [(image, mask), (other,)]
    assert pickle.loads(pickle.dumps(reader)).made_of(0) == (image, mask)
    assert FileReader((image,)).made_of(0) == (image,)


def test_listing_is_natural_and_leaves_out_what_systems_leave_behind(tmp_path):
    for name in ("s10.png", "s2.PNG", "S1.Jpeg", "deep/er/x.tif", "._s2.png", ".DS_Store", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for hidden in ("__MACOSX/s3.png", ".git/s4.png"):
        (tmp_path / hidden).parent.mkdir()
        (tmp_path / hidden).touch()
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["deep/er/x.tif", "S1.Jpeg", "s2.PNG", "s10.png"]


def test_linked_folder_is_listed(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.png").touch()
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "part").symlink_to(tmp_path / "store", target_is_directory=True)
    assert [path.name for path in list_images(tmp_path / "class")] == ["a.png"]


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path, kind in ((tmp_path / "a.png", "a named pipe"), (Path(os.devnull), "a device"), (tmp_path, "a folder")):
        with pytest.raises(UnreadableImage, match=f"^it is {kind}, not a file$"):
            FileReader((path,)).read(0)


@pytest.mark.parametrize("ending", ["jpe", "jfif", "jfi", "jif", "pjpeg", "pjp", "mpo"])
def test_every_ending_of_jpeg_is_found_and_read(tmp_path, ending):
    Image.fromarray(GREY).save(tmp_path / f"a.{ending}", format="JPEG", quality=100)
    (found,) = list_images(tmp_path)
    assert abs(FileReader((found,)).read(0).astype(int) - GREY).max() <= 8


def test_unprintable_name_is_refused(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system takes valid UTF-8 only")
    with pytest.raises(UsageError, match="not valid UTF-8"):
        list_images(tmp_path)
