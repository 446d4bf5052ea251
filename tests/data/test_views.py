"""Views: a pure function of seed, row and view number."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from stillroom.data.views import augment, uniforms, view_numbers, view_of_epoch
from stillroom.settings.sections import ViewSettings

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


CROP = ViewSettings(augment="none", crop=0.3)


def test_a_crop_keeps_proportions_and_stays_inside():
    """Pictures that hold their own coordinates tell which part is shown."""
    side, count = 64, 400
    x = (torch.arange(side) + 0.5) / side
    ramps = torch.stack([x.expand(side, side), x[:, None].expand(side, side)])[None].expand(count, 2, side, side)
    shown = augment(torch.cat([ramps, ramps[:, :1]], 1), np.arange(count), 0, CROP, seed=0)
    near, far = 8, side - 9  # away from the border, which is extended by half a pixel
    width, height = (
        side / (far - near) * gap
        for gap in (
            shown[:, 0, side // 2, far] - shown[:, 0, side // 2, near],
            shown[:, 1, far, 0] - shown[:, 1, near, 0],
        )
    )
    assert torch.allclose(width, height, atol=1e-4)
    area = width**2
    assert area.min() > 0.3 - 1e-3
    assert area.max() < 1 + 1e-3
    assert area.mean() == pytest.approx(0.65, abs=0.03)
    centre = shown[:, :2].mean(dim=(2, 3))
    reach = (1 - area.sqrt())[:, None] / 2
    assert ((centre - 0.5).abs() <= reach + 1e-3).all()
    assert (((centre - 0.5).abs() / reach.clamp(min=0.05)).amax(0) > 0.9).all()


@pytest.mark.parametrize("settings", [CROP, ViewSettings(augment="strong", crop=0.4, flips=True)])
def test_a_view_shows_the_same_at_every_side(settings):
    """Smooth pictures, seen at 48 and at 96 pixels, differ by what resampling does alone."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 480), torch.linspace(0, 1, 480), indexing="ij")
    whole = torch.stack([0.5 + 0.4 * torch.sin(6 * x + k) * torch.cos(5 * y - k) for k in range(8)])[:, None]
    small, large = (functional.avg_pool2d(whole, 480 // side) for side in (48, 96))
    rows = np.arange(8)
    small, large = (augment(images, rows, 2, settings, seed=1) for images in (small, large))
    gap = (functional.avg_pool2d(large, 2) - small).abs()
    assert gap.median() < 5e-3
    assert gap.mean() < 0.015  # a hidden patch's edge falls on whole pixels
    assert (large[:-1] - large[1:]).abs().mean() > 0.05


def test_crops_alone_are_views():
    assert view_numbers(CROP, 9) == list(range(8))
    assert not CROP.still
    assert not ViewSettings(augment="none", mix="mixup").still


def test_light_views_never_mirror():
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32)
    view = augment(ramp, np.arange(64), 0, LIGHT, seed=0)
    assert (view[:, :, :, -4:].mean((1, 2, 3)) > view[:, :, :, :4].mean((1, 2, 3))).all()
    mirrored = augment(ramp, np.arange(64), 0, STRONG, seed=0)
    share = (mirrored[:, :, :, -4:].mean((1, 2, 3)) < mirrored[:, :, :, :4].mean((1, 2, 3))).float().mean()
    assert 0.25 < share < 0.75


def test_epochs_take_turns_through_the_stored_views():
    assert [view_of_epoch(LIGHT, epoch) for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert view_numbers(LIGHT, 5) == [0, 1, 2]
    assert view_numbers(LIGHT, 2) == [0, 1]  # what no epoch shows need not be asked about
    fresh = ViewSettings(views=0)
    assert [view_of_epoch(fresh, epoch) for epoch in range(3)] == [0, 1, 2]
    assert view_numbers(fresh, 3) == []
    still = ViewSettings(augment="none")
    assert view_of_epoch(still, 4) is None
    assert view_numbers(still, 3) == [None]


def test_uniforms_are_uniform_and_uncorrelated():
    draws = uniforms(3, np.arange(20000), 1, 4)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(draws.var() - 1 / 12) < 0.005
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.03
    neighbours = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(neighbours) < 0.03
