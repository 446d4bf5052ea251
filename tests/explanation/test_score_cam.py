"""Score-CAM in NumPy: against a brute force in torch, torch's own interpolation, and the channels that it does not ask."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stillroom.explanation.score_cam import FEWEST_ASKED, FEWEST_CHANNELS, enlarge, finished, score_cam, stretch

SIDE = 24


def random_channels(count: int, side: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, side, side)).astype(np.float32)


def blobs(count: int, side: int = 12) -> np.ndarray:
    """One smooth bump per channel, anywhere: alike where they are near each other, as a network's channels are."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:side, :side]
    places, widths = rng.uniform(0, side, (count, 2, 1, 1)), rng.uniform(1.5, 4, (count, 1, 1))
    away = (rows - places[:, 0]) ** 2 + (columns - places[:, 1]) ** 2
    return np.exp(-away / (2 * widths**2)).astype(np.float32)


class Asked:
    """The score ``sum(mask * target)`` of channels, enlarged and stretched; counts what it was asked for."""

    def __init__(self, target: np.ndarray, gain: float = 1.0) -> None:
        self.target, self.gain, self.count = target, gain, 0

    def __call__(self, channels: np.ndarray) -> np.ndarray:
        self.count += len(channels)
        masks = stretch(enlarge(channels, self.target.shape))
        return self.gain * (masks * self.target).mean(axis=(1, 2))


def brute_force(channels: np.ndarray, target: np.ndarray, gain: float) -> np.ndarray:
    """Wang et al.'s algorithm 1, a channel at a time."""
    maps, logits = torch.from_numpy(channels), []
    for channel in maps:
        mask = F.interpolate(channel[None, None], target.shape, mode="bilinear", align_corners=False)[0, 0]
        if mask.max() > mask.min():
            mask = (mask - mask.min()) / (mask.max() - mask.min())
        else:
            mask = torch.zeros_like(mask)
        logits.append(gain * (mask * torch.from_numpy(target)).mean())
    weights = torch.softmax(torch.stack(logits).double(), dim=0)
    return sum(weight * channel for weight, channel in zip(weights, maps, strict=True)).clamp(min=0).numpy()


@pytest.mark.parametrize("gain", [0.5, 40.0, 4000.0])
def test_it_is_the_published_algorithm(gain):
    channels, target = random_channels(30), np.random.default_rng(2).random((SIDE, SIDE)).astype(np.float32)
    found = score_cam(channels, Asked(target, gain))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force(channels, target, gain), rtol=2e-3, atol=1e-5)


def test_constant_channels_hide_everything_and_have_their_say():
    channels, target = random_channels(8), np.ones((SIDE, SIDE), np.float32)
    channels[3], channels[5] = 0.0, 7.0
    asked = Asked(target, 5.0)
    found = score_cam(channels, asked)
    np.testing.assert_allclose(found, brute_force(channels, target, 5.0), rtol=1e-4, atol=1e-5)
    assert asked.count == 8
    assert not score_cam(np.zeros((4, 3, 3), np.float32), asked).any()


def test_a_baselines_logit_cancels_out():
    channels, target = random_channels(20), np.random.default_rng(3).random((SIDE, SIDE)).astype(np.float32)
    plain = Asked(target, 9.0)
    np.testing.assert_allclose(
        score_cam(channels, lambda part: plain(part) - 1234.5), score_cam(channels, plain), rtol=1e-3
    )


@pytest.mark.parametrize("source", [(1, 1), (2, 3), (7, 7), (14, 5)])
@pytest.mark.parametrize("target", [(1, 1), (7, 7), (32, 28), (224, 97), (3, 50)])
def test_enlarge_is_torchs_bilinear(source, target):
    maps = np.random.default_rng(4).normal(size=(2, 3, *source)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(maps), target, mode="bilinear", align_corners=False)
    found = enlarge(maps, target)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_stretch_reaches_from_0_to_1_and_leaves_nothing_of_a_constant():
    maps = np.stack([np.array([[2.0, 4.0], [3.0, 2.5]]), np.full((2, 2), 9.0), -np.eye(2)]).astype(np.float32)
    np.testing.assert_allclose(stretch(maps), [[[0, 1], [0.5, 0.25]], [[0, 0], [0, 0]], [[0, 1], [1, 0]]])


def test_finished_is_enlarged_first_and_stretched_afterwards():
    evidence = np.random.default_rng(5).random((3, 4)).astype(np.float64)
    found = finished(evidence, (33, 50))
    large = F.interpolate(torch.from_numpy(evidence)[None, None], (33, 50), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(found, (large - large.min()) / (large.max() - large.min()), atol=1e-5)
    assert (found.dtype, found.min(), found.max()) == (np.float32, 0, 1)
    assert not finished(np.zeros((3, 4)), (9, 9)).any()


def test_fast_is_exact_where_there_are_few_channels():
    target = np.random.default_rng(6).random((SIDE, SIDE)).astype(np.float32)
    few = random_channels(FEWEST_CHANNELS - 1)
    asked = Asked(target, 30.0)
    np.testing.assert_array_equal(score_cam(few, asked, fast=True), score_cam(few, Asked(target, 30.0)))
    assert asked.count == len(few)


@pytest.mark.parametrize("gain", [1.0, 20.0, 60.0])
@pytest.mark.parametrize("count", [60, 200])
def test_fast_asks_a_fifth_at_most_and_draws_nearly_the_same_map(count, gain):
    channels, target = blobs(count), np.zeros((SIDE, SIDE), np.float32)
    target[4:10, 12:20] = 4.0
    exact, fast = Asked(target, gain), Asked(target, gain)
    expected, found = score_cam(channels, exact), score_cam(channels, fast, fast=True)
    assert exact.count == count
    assert 0 < fast.count <= count / 5
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(("most", "asked"), [(None, 100), (500, 100), (60, 60), (3, FEWEST_ASKED)])
def test_fast_asks_no_more_than_it_may_and_never_too_few(most, asked):
    channels, target = blobs(600), np.zeros((SIDE, SIDE), np.float32)
    target[4:10, 12:20] = 4.0
    exact, fast = Asked(target, 20.0), Asked(target, 20.0)
    expected, found = score_cam(channels, exact), score_cam(channels, fast, fast=True, most=most)
    assert fast.count == asked
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.9


def test_fast_survives_channels_that_are_all_alike():
    channels = np.repeat(random_channels(1), 40, axis=0)
    found = score_cam(channels, Asked(np.ones((SIDE, SIDE), np.float32)), fast=True)
    np.testing.assert_allclose(found, np.maximum(channels[0], 0), rtol=1e-4)


def test_the_edge_needs_no_torch():
    code = "import sys, stillroom.explanation.score_cam; assert not {'torch', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
