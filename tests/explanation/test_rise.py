"""RISE against closed forms: networks whose weights are known."""

import numpy as np
import pytest
import torch

from stillroom.explanation.heat_maps import heat_maps
from stillroom.explanation.rise import MASKS, rise

SIZE = (24, 32)


def linear(weights):
    """The answer of a network that adds up what is shown, and how many masks it was asked about."""
    asked = []

    def ask(masks):
        asked.append(len(masks))
        return (masks * weights).sum(axis=(1, 2)) + 5.0

    return ask, asked


def test_the_hottest_place_is_where_the_weights_are_and_the_cost_is_known():
    weights = np.zeros(SIZE)
    weights[3:9, 20:26] = 1
    ask, asked = linear(weights)
    heat = rise(SIZE, ask)
    assert heat.shape == SIZE
    assert heat.dtype == np.float32
    assert heat.min() == 0
    assert weights[np.unravel_index(heat.argmax(), SIZE)] == 1
    assert sum(asked) == MASKS
    assert heat[weights == 1].mean() > 5 * heat[weights == 0].mean()


def test_it_is_the_covariance_of_what_is_shown_and_what_is_answered():
    seen, answers = [], []

    def ask(masks):
        found = np.random.default_rng(len(seen)).normal(size=len(masks))
        seen.append(masks)
        answers.append(found)
        return found

    heat = rise(SIZE, ask)
    masks, said = np.concatenate(seen).reshape(MASKS, -1), np.concatenate(answers)
    expected = [np.cov(said, masks[:, place], bias=True)[0, 1] * MASKS for place in (0, 100, 767)]
    assert heat.ravel()[[0, 100, 767]] == pytest.approx(np.maximum(expected, 0), abs=1e-4)


def test_the_masks_show_every_place_about_half_of_the_time_and_are_always_the_same():
    seen = []

    def ask(masks):
        seen.append(masks)
        return np.zeros(len(masks))

    assert not rise(SIZE, ask).any()  # a network that answers always the same
    rise(SIZE, ask)
    first, second = np.concatenate(seen[: len(seen) // 2]), np.concatenate(seen[len(seen) // 2 :])
    assert np.array_equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 1
    assert first.mean(axis=0).min() > 0.35
    assert first.mean(axis=0).max() < 0.65


def test_a_pattern_that_another_layer_would_miss_is_found():
    """Score-CAM of a layer whose channels say nothing of the class is fooled; RISE asks for no layer."""

    class Corner(torch.nn.Module):
        def forward(self, images):
            seen = images[:, 0, :8, :8].mean(dim=(1, 2))
            return torch.stack([-seen, seen], dim=1)

    heat = heat_maps(Corner(), torch.ones(2, 1, 32, 32), 1, method="rise")
    assert heat.shape == (2, 32, 32)
    assert heat[:, :8, :8].mean() > 4 * heat[:, 8:, 8:].mean()
    assert not heat_maps(Corner(), torch.zeros(1, 1, 32, 32), 1, method="rise").any()
