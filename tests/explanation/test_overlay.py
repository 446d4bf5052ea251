import subprocess
import sys

import numpy as np
import pytest

from stillroom.explanation.overlay import coloured, overlay

LUMINANCE = np.array([0.299, 0.587, 0.114])


def picture(dtype: type = np.uint8, shape: tuple[int, ...] = (9, 14), top: int = 255) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top + 1, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 3)])
def test_where_the_map_is_0_the_image_is_bare(shape):
    image = picture(shape=shape)
    found = np.asarray(overlay(image, np.zeros((9, 14), np.float32)))
    np.testing.assert_array_equal(found, image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2))


def test_where_the_map_is_1_a_quarter_of_the_image_shines_through():
    image, heat = picture(shape=(9, 14, 3)), np.ones((9, 14), np.float32)
    found = np.asarray(overlay(image, heat)).astype(float)
    np.testing.assert_allclose(found, 0.25 * image + 0.75 * coloured(heat), atol=0.5)


def blob(side: int = 120) -> np.ndarray:
    """A map that falls from 1 in the middle to exactly 0, ``[side, side]``."""
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    return np.clip(1 - 2.5 * np.hypot(x, y), 0, 1).astype(np.float32)


def test_lines_never_lie_where_there_is_no_heat():
    image = picture(shape=(120, 120, 3))
    for heat in (blob(), (blob() > 0.5).astype(np.float32), np.eye(120, dtype=np.float32)):
        np.testing.assert_array_equal(np.asarray(overlay(image, heat))[heat == 0], image[heat == 0])


@pytest.mark.parametrize("side", [120, 900])
def test_a_bright_and_a_dark_line_enclose_what_has_half_the_heat(side):
    heat = blob(side)
    found = np.asarray(overlay(np.full((side, side), 128, np.uint8), heat))
    bright, dark = (found == 255).all(axis=2), (found == (10, 10, 20)).all(axis=2)
    width = max(1, round(side / 300))
    for line, least in ((dark, 0), (bright, width)):
        assert line.any()
        assert heat[line].min() >= 0.5
        row = line[side // 2, : side // 2]
        first = int(np.flatnonzero(heat[side // 2] >= 0.5)[0])
        assert np.flatnonzero(row).tolist() == list(range(first + least, first + least + width))


# Machado, Oliveira and Fernandes (2009): what the three kinds of colour blindness leave of linear sRGB.
VISIONS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
STAINS = {
    "black": (0, 0, 0), "grey": (120, 120, 120), "light grey": (190, 190, 190), "white": (250, 250, 250),
    "yellow": (232, 205, 120), "Papanicolaou": (215, 190, 150), "eosin": (226, 170, 205), "purple": (92, 48, 140),
    "lilac": (160, 120, 190), "skin": (205, 150, 120), "fundus": (190, 90, 30), "ear": (200, 110, 90),
}  # fmt: skip


def lab(colours: np.ndarray, vision: str) -> np.ndarray:
    """CIELAB of sRGB in [0, 255], ``[..., 3]``, as seen so."""
    share = np.asarray(colours, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISIONS[vision]).T, 0, 1)
    xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    x, y, z = np.moveaxis(np.where((r := xyz / [0.9505, 1, 1.089]) > 0.008856, np.cbrt(r), 7.787 * r + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize("vision", list(VISIONS))
@pytest.mark.parametrize("stain", list(STAINS))
def test_heat_stands_out_on_every_ground_for_every_eye(stain, vision):
    ground = np.broadcast_to(np.array(STAINS[stain], np.uint8), (4, 4, 3))
    for strength in (0.65, 0.8, 1.0):
        found = np.asarray(overlay(ground, np.full((4, 4), strength)))[0, 0]
        # 2.3 is just noticed side by side.
        assert np.linalg.norm(lab(found, vision) - lab(STAINS[stain], vision)) > 10, strength
    lines = [np.linalg.norm(lab(line, vision) - lab(STAINS[stain], vision)) for line in ((255,) * 3, (10, 10, 20))]
    assert max(lines) > 40


def test_sixteen_bits_are_shown_between_their_own_darkest_and_brightest_pixel():
    image = picture(np.uint16, top=3000) + np.uint16(32000)  # as a CT without a window is stored
    image[0, :2] = 32000, 35000
    found = np.asarray(overlay(image, np.zeros(image.shape, np.float32)))
    np.testing.assert_allclose(found[..., 1], (image - 32000) * (255 / 3000), atol=0.5)
    assert not np.asarray(overlay(np.full((4, 4), 700, np.uint16), np.zeros((4, 4)))).any()
    assert not np.asarray(overlay(np.zeros((4, 4), np.uint16), np.zeros((4, 4)))).any()


def test_the_colours_become_lighter_all_the_way():
    heat = np.linspace(0, 1, 101)[None]
    light = coloured(heat)[0] @ LUMINANCE
    assert (np.diff(light) > 0).all()
    assert coloured(heat).shape == (1, 101, 3)
    assert coloured(heat).min() >= 0
    assert coloured(heat).max() <= 255


def test_it_is_a_picture_of_the_images_size():
    found = overlay(picture(), np.ones((9, 14)))
    assert (found.size, found.mode) == ((14, 9), "RGB")


def test_the_edge_needs_no_torch():
    code = "import sys, stillroom.explanation.overlay; assert not {'torch', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
