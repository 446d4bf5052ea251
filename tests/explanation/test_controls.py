import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, sobel

from stillroom.explanation.controls import TRIVIAL, blur, stretched, trivial_maps


@pytest.fixture
def images():
    return torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def test_every_trivial_map_fills_its_range(images):
    maps = trivial_maps(images, seed=0)
    assert tuple(maps) == TRIVIAL
    for found in maps.values():
        assert found.shape == (3, 40, 40)
        assert found.amin(dim=(1, 2)).tolist() == [0, 0, 0]
        assert found.amax(dim=(1, 2)).tolist() == [1, 1, 1]


def test_the_centre_map_falls_off_evenly_from_the_middle():
    centre = trivial_maps(torch.rand(1, 1, 41, 41), seed=0)["centre"][0]
    assert centre.argmax() == 20 * 41 + 20
    for turned in (centre.flip(0), centre.flip(1), centre.T):
        assert torch.allclose(centre, turned, atol=1e-6)
    assert (centre[20, 20:].diff() < 0).all()


def test_edges_are_where_scipy_finds_them(images):
    grey = images.mean(dim=1).numpy().astype(np.float64)
    for own, image in zip(trivial_maps(images, seed=0)["edges"], grey, strict=True):
        strength = np.hypot(sobel(image, axis=0, mode="nearest"), sobel(image, axis=1, mode="nearest"))
        expected = gaussian_filter(strength, 0.4)
        inside = (slice(3, -3), slice(3, -3))  # scipy reflects at the border
        assert np.corrcoef(own.numpy()[inside].ravel(), expected[inside].ravel())[0, 1] > 0.9999


def test_random_fields_are_smooth_repeat_with_the_seed_and_differ_between_images(images):
    first, again, other = (trivial_maps(images, seed=seed)["random"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    # White noise in [0, 1] would step by a third of its range from pixel to pixel.
    assert first.diff(dim=1).abs().mean() < 0.08


def test_images_without_content_have_flat_edges():
    maps = trivial_maps(torch.full((1, 1, 28, 28), 0.5), seed=0)
    assert (maps["edges"] == 0).all()
    assert maps["random"].max() == 1


def test_oblong_images_have_maps_of_their_shape():
    assert {found.shape for found in trivial_maps(torch.rand(2, 3, 30, 50), seed=0).values()} == {(2, 30, 50)}


def test_blur_agrees_with_scipy_inside_and_keeps_even_images():
    image = torch.rand(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = blur(image, 3.0).numpy(), gaussian_filter(image.numpy(), 3.0, truncate=8.0)
    assert np.allclose(ours[25:-25, 25:-25], theirs[25:-25, 25:-25], atol=1e-6)
    even = torch.full((2, 3, 20, 20), 0.37)
    assert torch.allclose(blur(even, 5.0), even)


def test_stretching_a_flat_map_gives_nothing():
    maps = torch.stack([torch.full((4, 4), 0.7), torch.arange(16.0).view(4, 4) - 3])
    low, high = stretched(maps)
    assert (low == 0).all()
    assert torch.allclose(high, torch.arange(16.0).view(4, 4) / 15)
