"""Views: a pure function of seed, row and view number."""

import numpy as np
import pytest
import torch

from stillroom.data.views import augment, uniforms, view_numbers, view_of_epoch
from stillroom.settings import ViewSettings

LIGHT, STRONG = ViewSettings(augment="light", views=3), ViewSettings(augment="strong", views=3, flips=True)


def pictures(count: int = 6, side: int = 32, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("settings", [LIGHT, STRONG])
def test_a_view_depends_on_seed_row_and_number_alone(settings):
    images, rows = pictures(), np.arange(10, 16)
    whole = augment(images, rows, 1, settings, seed=5)
    torch.rand(7)  # the global generator must not matter
    order = np.array([4, 0, 2])
    part = augment(images[torch.from_numpy(order)], rows[order], 1, settings, seed=5)
    assert torch.equal(part, whole[torch.from_numpy(order)])
    for other in (
        augment(images, rows, 2, settings, seed=5),
        augment(images, rows, 1, settings, seed=6),
        augment(images, rows + 1, 1, settings, seed=5),
    ):
        assert (other - whole).abs().mean() > 0.01


@pytest.mark.parametrize("settings", [LIGHT, STRONG])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_stay_images(settings, channels):
    images = pictures(channels=channels)
    view = augment(images, np.arange(6), 0, settings, seed=0)
    assert view.shape == images.shape
    assert view.min() >= 0
    assert view.max() <= 1
    assert torch.isfinite(view).all()


def test_no_view_is_the_image_itself():
    images = pictures()
    assert augment(images, np.arange(6), None, LIGHT, seed=0) is images
    assert augment(images, np.arange(6), 3, ViewSettings(augment="none"), seed=0) is images


def test_light_views_never_mirror():
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32)
    view = augment(ramp, np.arange(64), 0, LIGHT, seed=0)
    assert (view[:, :, :, -4:].mean((1, 2, 3)) > view[:, :, :, :4].mean((1, 2, 3))).all()
    mirrored = augment(ramp, np.arange(64), 0, STRONG, seed=0)
    share = (mirrored[:, :, :, -4:].mean((1, 2, 3)) < mirrored[:, :, :, :4].mean((1, 2, 3))).float().mean()
    assert 0.25 < share < 0.75


def test_epochs_take_turns_through_the_stored_views():
    assert [view_of_epoch(LIGHT, epoch) for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert view_numbers(LIGHT) == [0, 1, 2]
    fresh = ViewSettings(views=0)
    assert [view_of_epoch(fresh, epoch) for epoch in range(3)] == [0, 1, 2]
    assert view_numbers(fresh) == []
    still = ViewSettings(augment="none")
    assert view_of_epoch(still, 4) is None
    assert view_numbers(still) == [None]


def test_uniforms_are_uniform_and_uncorrelated():
    draws = uniforms(3, np.arange(20000), 1, 4)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(draws.var() - 1 / 12) < 0.005
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.03
    neighbours = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(neighbours) < 0.03
