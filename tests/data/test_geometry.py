import subprocess
import sys
from fractions import Fraction
from hashlib import sha256
from math import floor

import numpy as np
import pytest

from stillroom.data.geometry import (
    as_stored,
    drop_equal_channels,
    fit_image,
    fit_mask,
    fit_to_image,
    luminance,
    on_original,
    white_of,
)
from stillroom.errors import UsageError


def smooth(height, width, top, dtype):
    y, x = np.mgrid[0 : 3 : height * 1j, 0 : 5 : width * 1j]
    return ((np.sin(y * x) + 1) / 2 * top).astype(dtype)


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (4095, np.uint16), (60000, np.uint16)])
@pytest.mark.parametrize("size", [40, 300])
def test_resampling_agrees_with_torch(top, dtype, size):
    torch = pytest.importorskip("torch")
    image = smooth(90, 200, top, dtype)
    mine = fit_image(image, size, "resize")
    source = torch.from_numpy(image.astype(np.float64))[None, None]
    other = torch.nn.functional.interpolate(source, (size, size), mode="bicubic", antialias=True)[0, 0].numpy()
    ceiling = 255 if dtype == np.uint8 else image.max()
    assert mine.dtype == dtype
    assert np.abs(mine - other.clip(0, ceiling)).max() <= 1.1


def test_sixteen_bits_keep_their_precision_and_do_not_overshoot():
    ramp = np.linspace(1000, 1100, 400).astype(np.uint16)[None].repeat(400, axis=0)
    assert len(np.unique(fit_image(ramp, 100, "resize"))) > 90
    edge = np.zeros((200, 200), np.uint16)
    edge[:, 100:] = 4095
    assert fit_image(edge, 64, "resize").max() == 4095


def test_a_tall_image_has_the_same_pixels_with_every_pillow():
    """Those of Pillow 11, 12 and 13, which begin a tall image with different passes where both are asked for at once."""
    tall = np.random.default_rng(0).integers(0, 256, (400, 90, 3), dtype=np.uint8)
    assert sha256(fit_image(tall, 64, "pad").tobytes()).hexdigest().startswith("117b5bd3a1326c7c")


@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_the_right_size_comes_back_bit_for_bit(fit):
    for image in (smooth(64, 64, 255, np.uint8), smooth(64, 64, 9000, np.uint16)):
        np.testing.assert_array_equal(fit_image(image, 64, fit), image)


@pytest.mark.parametrize(
    ("shape", "box"), [((100, 50), (0, 40, 10, 30)), ((30, 120, 3), (15, 25, 0, 40)), ((1, 500), (19, 20, 0, 40))]
)
def test_padding_keeps_the_shape_and_centres_it_on_black(shape, box):
    square = fit_image(np.full(shape, 200, np.uint8), 40, "pad")
    top, bottom, left, right = box
    expected = np.zeros((40, 40, *shape[2:]), np.uint8)
    expected[top:bottom, left:right] = 200
    np.testing.assert_array_equal(square, expected)


def test_a_mask_stays_on_its_lesion():
    image = np.zeros((90, 150), np.uint8)
    image[30:60, 90:135] = 255
    for fit in ("pad", "resize"):
        square, mask = fit_image(image, 60, fit), fit_mask(image > 0, 60, fit)
        assert set(np.unique(mask)) == {0, 1}
        np.testing.assert_array_equal(mask, square > 127)


def test_grey_saved_as_colour_is_grey():
    grey = smooth(20, 30, 255, np.uint8)
    colour = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(drop_equal_channels(colour), grey)
    for row, channel in ((3, 2), (3, 0), (10, 1)):
        nearly = colour.copy()
        nearly[row, 4, channel] ^= 1
        assert drop_equal_channels(nearly) is nearly
    colour[3, 4, 2] ^= 1
    assert np.abs(luminance(colour).astype(int) - grey).max() <= 1


def test_brightness_is_rounded_alike_on_every_machine():
    """In fractions, what a sum that ends in a half becomes depends on the order and the instructions of adding."""
    colours = np.random.default_rng(0).integers(0, 65536, (300, 300, 3))
    for dtype in (np.uint8, np.uint16):
        image = colours.astype(dtype)
        exact = [Fraction(299 * r + 587 * g + 114 * b, 1000) for r, g, b in image.reshape(-1, 3).tolist()]
        assert luminance(image).ravel().tolist() == [floor(value + Fraction(1, 2)) for value in exact]


def test_as_stored_is_the_same_number_at_any_depth():
    image = smooth(50, 50, 255, np.uint8)
    eight = as_stored(image, 50, "pad", colour=False, white=255)
    sixteen = as_stored(image, 50, "pad", colour=True, white=65535)
    assert (eight.dtype, sixteen.dtype) == (np.uint8, np.uint16)
    assert (eight.shape, sixteen.shape) == ((1, 50, 50), (3, 50, 50))
    np.testing.assert_array_equal(eight[0] / np.float32(255), sixteen[0] / np.float32(65535))


def test_an_unknown_white_is_refused():
    deep = np.full((8, 8), 5000, np.uint16)
    with pytest.raises(UsageError, match=r"up to 5000.*white is 255"):
        as_stored(deep, 8, "pad", colour=False, white=255)
    assert as_stored(deep, 8, "pad", colour=False, white=16383).max() == 5000


@pytest.mark.parametrize("side", [8, 400])
def test_a_handful_of_bright_pixels_is_white(side):
    """4 pixels of a small image, one in 10,000 of a large one."""
    image = smooth(side, side, 1000, np.uint16)
    few = image.copy()
    few.ravel()[: max(4, side**2 // 10_000)] = 60000
    result = as_stored(few, 8, "pad", colour=False, white=4095)
    np.testing.assert_array_equal(result, fit_image(np.minimum(few, 4095), 8, "pad")[None])
    few.ravel()[max(4, side**2 // 10_000)] = 60000
    with pytest.raises(UsageError, match=r"up to 60000.*white is 4095"):
        as_stored(few, 8, "pad", colour=False, white=4095)
    assert (white_of(image), white_of(few), white_of(image.astype(np.uint8))) == (1023, 65535, 255)


def test_white_is_the_least_that_holds_all_but_a_handful():
    for top, white in ((0, 1023), (1023, 1023), (1024, 4095), (16384, 65535)):
        assert white_of(np.full((5, 5), top, np.uint16)) == white
    colour = np.zeros((5, 5, 3), np.uint16)
    colour[:2, :2, 1] = 2000  # four pixels, whatever their channel
    assert white_of(colour) == 1023
    colour[3, 3, 2] = 2000
    assert white_of(colour) == 4095


def test_a_mask_is_scaled_where_its_shape_is_the_images():
    mask = np.zeros((4, 6), bool)
    mask[1, 2:5] = True
    np.testing.assert_array_equal(fit_to_image(mask, 4, 6), mask)
    np.testing.assert_array_equal(fit_to_image(mask, 12, 18), mask.repeat(3, axis=0).repeat(3, axis=1))
    assert fit_to_image(np.ones((341, 512), bool), 1000, 1500).shape == (1000, 1500)  # 341.3 rounded
    for shape in ((6, 4), (4, 8), (341, 520)):
        assert fit_to_image(np.ones(shape, bool), 1000, 1500) is None


def test_the_edge_needs_no_torch():
    code = "import sys, stillroom.data.geometry; assert not {'torch', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("fit", ["pad", "resize"])
@pytest.mark.parametrize("shape", [(90, 201), (201, 90), (33, 33), (64, 64), (70, 300), (65, 64)])
def test_on_original_undoes_the_fitting(shape, fit):
    image = smooth(*shape, 60000, np.uint16)
    back = on_original(fit_image(image, 64, fit), *shape, fit)
    assert (back.shape, back.dtype) == (shape, np.float32)
    inside = tuple(
        slice(round(side / 10), side - round(side / 10)) for side in shape
    )  # at borders the two filters differ
    assert np.abs(back - image)[inside].mean() < 0.02 * 60000
    assert np.corrcoef(back[inside].ravel(), image[inside].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("shape", [(41, 100), (100, 41), (7, 99), (51, 50)])
def test_what_lies_on_the_padding_is_left_out_and_all_of_the_image_is_kept(shape):
    inside = fit_image(np.full(shape, 255, np.uint8), 64, "pad") == 255
    marked = np.where(inside, 1.0, 1000.0)
    np.testing.assert_allclose(on_original(marked, *shape, "pad"), 1.0)
    # A stretched square would have shown the padding.
    assert on_original(marked, *shape, "resize").max() > 100


def test_on_original_puts_each_pixel_back_where_it_was():
    """One bright block of the square is found again at its place in an image three times as large."""
    square = np.zeros((20, 20), np.float32)
    square[5 + 2, 11] = 1  # row 2 of an image that takes rows 5 to 14
    found = on_original(square, 30, 60, "pad")
    assert np.unravel_index(found.argmax(), found.shape) == (7, 34)


def test_on_original_of_the_squares_own_size_is_bit_for_bit():
    square = np.random.default_rng(0).random((31, 31)).astype(np.float32)
    for fit in ("pad", "resize"):
        np.testing.assert_array_equal(on_original(square, 31, 31, fit), square)
