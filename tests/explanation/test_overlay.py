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
    image, heat = picture(shape=(9, 14, 3)), np.zeros((9, 14), np.float32)
    heat[2, 3] = 1
    found = np.asarray(overlay(image, heat)).astype(float)
    expected = 0.25 * image[2, 3] + 0.75 * np.array([250, 250, 160])
    np.testing.assert_allclose(found[2, 3], expected, atol=0.5)
    changed = (found != image).any(axis=2)
    assert changed.sum() == 1


def test_sixteen_bits_are_shown_by_their_own_brightest_pixel():
    image = picture(np.uint16, top=3000)
    image[0, 0] = 3000
    found = np.asarray(overlay(image, np.zeros(image.shape, np.float32)))
    np.testing.assert_allclose(found[..., 1], image * (255 / 3000), atol=0.5)
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
