"""Corruptions: pure functions of seed, row and severity, held against other libraries and closed forms."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from stillroom.errors import UsageError
from stillroom.evaluation.corruptions import CORRUPTIONS, REFERENCE_SIDE, SEVERITIES, corrupt

NAMES = [corruption.name for corruption in CORRUPTIONS]
STRENGTHS = {corruption.name: corruption.strengths for corruption in CORRUPTIONS}


def pictures(count: int = 5, side: int = 48, channels: int = 1, deviation: float = 1.5) -> torch.Tensor:
    """Smooth blobs of middling brightness that fill most of [0, 1]."""
    noise = np.random.default_rng(3).normal(size=(count, channels, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 0, deviation, deviation))
    smooth = 0.5 + 0.22 * smooth / smooth.std()
    return torch.from_numpy(np.clip(smooth, 0, 1)).float()


def spoiled(images: torch.Tensor, name: str, severity: int, seed: int = 0) -> torch.Tensor:
    return corrupt(images, name, severity, rows=np.arange(len(images)), seed=seed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "side"), [(1, 48), (3, 30), (1, 16)])
def test_images_stay_images_and_suffer_more_with_each_severity(name, channels, side):
    images = pictures(channels=channels, side=side)
    kept = images.clone()
    results = [spoiled(images, name, severity) for severity in SEVERITIES]
    assert torch.equal(images, kept)
    for result in results:
        assert result.shape == images.shape
        assert result.dtype == torch.float32
        assert result.min() >= 0
        assert result.max() <= 1
    harm = [float((result - images).abs().mean()) for result in results]
    assert harm[0] > 0
    assert all(second > first for first, second in itertools.pairwise(harm)), harm


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_images_give_numbers(name, value):
    for severity in (1, 5):
        assert torch.isfinite(spoiled(torch.full((2, 3, 16, 16), value), name, severity)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_rest_of_the_batch_does_not_matter(name):
    images, rows = pictures(6, channels=3), np.array([40, 7, 13, 99, 2, 7])
    images[5] = images[1]
    whole = corrupt(images, name, 3, rows=rows, seed=4)
    torch.rand(5)  # the global generator must not matter
    order = np.array([3, 0, 4])
    part = corrupt(images[torch.from_numpy(order)], name, 3, rows=rows[order], seed=4)
    torch.testing.assert_close(part, whole[torch.from_numpy(order)], atol=1e-6, rtol=0)
    torch.testing.assert_close(whole[5], whole[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "motion_blur", "bubbles"]
)
def test_random_corruptions_follow_seed_and_row(name):
    images = pictures(1).expand(4, -1, -1, -1)
    first, other = spoiled(images, name, 4, seed=0), spoiled(images, name, 4, seed=1)
    assert (first - other).abs().mean() > 1e-3
    assert (first[0] - first[1]).abs().mean() > 1e-3


def test_families_and_names_are_distinct():
    assert len(set(NAMES)) == len(NAMES)
    assert {corruption.family for corruption in CORRUPTIONS} == {"noise", "blur", "light", "digital", "occlusion"}


# -- noise
def test_gaussian_and_speckle_noise_have_their_deviation():
    grey = torch.full((2, 1, 128, 128), 0.5)
    for severity in (1, 2):
        plain = spoiled(grey, "gaussian_noise", severity) - grey
        assert plain.mean().abs() < 0.002
        assert plain.std() == pytest.approx(STRENGTHS["gaussian_noise"][severity - 1], rel=0.03)
        speckle = spoiled(grey, "speckle_noise", severity) - grey
        assert speckle.std() == pytest.approx(0.5 * STRENGTHS["speckle_noise"][severity - 1], rel=0.03)
    assert stats.kstest(plain.numpy().ravel() / STRENGTHS["gaussian_noise"][1], "norm").pvalue > 0.01


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_counts_like_poisson(severity):
    photons = STRENGTHS["shot_noise"][severity - 1]
    grey = torch.full((1, 1, 200, 200), 0.4)
    counts = (spoiled(grey, "shot_noise", severity) * photons).round().int().numpy().ravel()
    seen = np.bincount(counts, minlength=int(photons) + 1)
    expected = stats.poisson.pmf(np.arange(len(seen)), 0.4 * photons)
    expected[-1] = stats.poisson.sf(len(seen) - 2, 0.4 * photons)  # brighter than white is white
    common = expected * 40_000 >= 5
    assert abs(seen[~common].sum() - expected[~common].sum() * 40_000) < 60
    assert stats.chisquare(seen[common], expected[common] / expected[common].sum() * seen[common].sum()).pvalue > 0.001


def test_impulses_are_black_and_white_in_equal_shares():
    grey = torch.full((1, 3, 128, 128), 0.5)
    result = spoiled(grey, "impulse_noise", 5)
    share = STRENGTHS["impulse_noise"][4]
    assert (result == 0).float().mean() == pytest.approx(share / 2, rel=0.1)
    assert (result == 1).float().mean() == pytest.approx(share / 2, rel=0.1)
    assert ((result == 0.5) | (result == 0) | (result == 1)).all()


# -- blur
@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_is_scipys(severity):
    images = pictures(side=96, deviation=2.0)
    sigma = STRENGTHS["gaussian_blur"][severity - 1] * 96 / REFERENCE_SIDE
    expected = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=8)
    np.testing.assert_allclose(spoiled(images, "gaussian_blur", severity).numpy(), expected, atol=3e-3)


@pytest.mark.parametrize("severity", [2, 5])
def test_defocus_blur_is_the_mean_over_a_disc(severity):
    side, fine = 64, 9
    images = pictures(2, side=side, deviation=3.0)
    radius = STRENGTHS["defocus_blur"][severity - 1] * side / REFERENCE_SIDE
    reach = math.ceil(radius) + 1
    axis = (np.arange((2 * reach + 1) * fine) - (reach + 0.5) * fine + 0.5) / fine
    disc = (axis[:, None] ** 2 + axis**2 <= radius**2).reshape(2 * reach + 1, fine, 2 * reach + 1, fine).sum((1, 3))
    expected = ndimage.convolve(images.numpy(), (disc / disc.sum())[None, None], mode="reflect")
    # Area shares smear by a fraction of a pixel more than the disc itself.
    np.testing.assert_allclose(spoiled(images, "defocus_blur", severity).numpy(), expected, atol=0.02)
    assert np.abs(spoiled(images, "defocus_blur", severity).numpy() - expected).mean() < 2e-3


def test_motion_blur_smears_a_spot_along_one_line_of_its_length():
    y, x = np.mgrid[:112, :112] - 56.0
    spot = torch.from_numpy(np.exp(-(x**2 + y**2) / 8)).float().expand(8, 1, -1, -1)
    smeared = spoiled(spot, "motion_blur", 5).numpy()[:, 0]
    length, directions = STRENGTHS["motion_blur"][4] / 2, []
    for image in smeared:
        mass = image / image.sum()
        spread, axes = np.linalg.eigh(np.array([[(mass * a * b).sum() for a in (y, x)] for b in (y, x)]))
        # The spot's own variance is 4 either way, that of an even line its squared length over 12.
        assert spread == pytest.approx([4, 4 + length**2 / 12], rel=0.03)
        directions.append(math.atan2(*axes[:, 1]) % math.pi)
    assert max(directions) - min(directions) > 1


def test_motion_blur_keeps_what_does_not_change_along_it_and_the_mean():
    flat = torch.full((3, 1, 32, 32), 0.3)
    torch.testing.assert_close(spoiled(flat, "motion_blur", 5), flat, atol=1e-5, rtol=0)


# -- light
@pytest.mark.parametrize("severity", SEVERITIES)
def test_light_follows_its_closed_forms(severity):
    images = pictures(channels=3)
    for name in ("brightness_up", "brightness_down"):
        expected = (images * STRENGTHS[name][severity - 1]).clamp(0, 1)
        torch.testing.assert_close(spoiled(images, name, severity), expected)
    for name in ("gamma_up", "gamma_down"):
        torch.testing.assert_close(spoiled(images, name, severity), images ** STRENGTHS[name][severity - 1])
    for name in ("contrast_up", "contrast_down"):
        factor = STRENGTHS[name][severity - 1]
        mean = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).mean((1, 2))[:, None, None, None]
        torch.testing.assert_close(spoiled(images, name, severity), (mean + factor * (images - mean)).clamp(0, 1))


def test_up_is_brighter_and_down_is_darker_but_gamma_is_an_exponent():
    images = pictures()
    means = {
        name: spoiled(images, name, 3).mean() for name in ("brightness_up", "brightness_down", "gamma_up", "gamma_down")
    }
    assert means["brightness_down"] < images.mean() < means["brightness_up"]
    assert means["gamma_up"] < images.mean() < means["gamma_down"]


# -- digital
def eight_bits(image: torch.Tensor) -> Image.Image:
    array = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(("channels", "side", "most"), [(1, 64, 0.5), (1, 45, 0.5), (3, 64, 2.0), (3, 45, 2.0)])
def test_jpeg_is_pillows(severity, channels, side, most):
    images = pictures(3, side=side, channels=channels)
    result = spoiled(images, "jpeg", severity)
    for image, own in zip(images, result, strict=True):
        file = io.BytesIO()
        eight_bits(image).save(file, "JPEG", quality=STRENGTHS["jpeg"][severity - 1])
        theirs = torch.from_numpy(np.array(Image.open(file))).float() / 255
        theirs = theirs[None] if channels == 1 else theirs.permute(2, 0, 1)
        assert float((own - theirs).abs().mean()) * 255 < most
        # What compression costs is several times what the two decoders differ by.
        assert (own - image).abs().mean() > 3 * (own - theirs).abs().mean()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_shows_area_means(severity):
    side = 45
    images = pictures(2, side=side)
    cells = round(side * STRENGTHS["pixelate"][severity - 1])
    # Every pixel cut into cells x cells: then each coarse cell is a whole block.
    fine = images.numpy().repeat(cells, axis=2).repeat(cells, axis=3)
    means = fine.reshape(2, 1, cells, side, cells, side).mean(axis=(3, 5))
    place = ((np.arange(side) + 0.5) * cells / side).astype(int)
    expected = means[:, :, place][:, :, :, place]
    np.testing.assert_allclose(spoiled(images, "pixelate", severity).numpy(), expected, atol=1e-5)


def test_pixelate_is_pillows_box_where_cells_are_whole():
    image = pictures(1, side=64)
    small = Image.fromarray(image[0, 0].numpy()).resize((16, 16), Image.Resampling.BOX)
    expected = np.array(small.resize((64, 64), Image.Resampling.NEAREST))
    np.testing.assert_allclose(spoiled(image, "pixelate", 5)[0, 0].numpy(), expected, atol=1e-5)


# -- occlusion
def test_bubbles_brighten_discs_and_leave_the_rest():
    images = pictures(4, side=112)
    small, large = spoiled(images, "bubbles", 1), spoiled(images, "bubbles", 5)
    assert (small >= images).all()
    assert (large >= small - 1e-6).all()
    shares = [((result - images) > 1e-4).float().mean() for result in (small, large)]
    assert 0.001 < shares[0] < 0.06
    assert 0.1 < shares[1] < 0.6


# -- wrong use
def test_wrong_use_is_named():
    images, rows = pictures(2), np.arange(2)
    with pytest.raises(UsageError, match=r"no corruption 'gausian_noise'\. Did you mean gaussian_noise"):
        corrupt(images, "gausian_noise", 1, rows=rows, seed=0)
    for severity in (0, 6):
        with pytest.raises(UsageError, match=f"severity must be one of 1, 2, 3, 4, 5, got {severity}"):
            corrupt(images, "jpeg", severity, rows=rows, seed=0)
    with pytest.raises(UsageError, match="2 images, 3 row numbers"):
        corrupt(images, "jpeg", 1, rows=np.arange(3), seed=0)
