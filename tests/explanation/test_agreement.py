import itertools

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure as reference_ssim

from stillroom.errors import UsageError
from stillroom.explanation.agreement import agreement
from stillroom.explanation.controls import blur, stretched


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    first = stretched(blur(torch.rand(5, 40, 48, generator=generator), 3.0))
    return first, stretched(first + 2 * blur(torch.rand(5, 40, 48, generator=generator), 3.0))


def test_correlation_is_numpys(pair):
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*pair, strict=True)]
    assert agreement(*pair)["pearson"].tolist() == pytest.approx(expected, abs=1e-6)


def test_structural_similarity_is_torchmetrics_where_its_window_lies_inside(pair):
    first, second = (maps[:, None].double() for maps in pair)
    _, full = reference_ssim(first, second, data_range=1.0, reduction="none", return_full_image=True)
    expected = full[:, 0, 5:-5, 5:-5].mean(dim=(1, 2))
    assert 0.3 < expected.min() < expected.max() < 0.95
    assert agreement(*pair)["ssim"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_overlap_is_that_of_the_top_fifth(pair):
    expected = []
    for first, second in zip(*(maps.flatten(1).numpy() for maps in pair), strict=True):
        count = round(0.2 * len(first))
        top = [set(np.argsort(-values, kind="stable")[:count].tolist()) for values in (first, second)]
        expected.append(len(top[0] & top[1]) / len(top[0] | top[1]))
    assert agreement(*pair)["iou"].tolist() == pytest.approx(expected)


def test_a_map_agrees_with_itself_and_not_with_its_opposite(pair):
    first, _ = pair
    assert all(torch.allclose(value, torch.ones(5, dtype=torch.float64)) for value in agreement(first, first).values())
    opposite = agreement(first, 1 - first)
    assert opposite["pearson"].tolist() == pytest.approx([-1] * 5)
    assert opposite["iou"].max() == 0


def test_pixels_tied_at_the_limit_are_in_no_top():
    first, second = torch.zeros(1, 10, 10), torch.zeros(1, 10, 10)
    first[0, 0, :8] = torch.linspace(0.3, 1, 8)
    second[0, 0, 4:10] = torch.linspace(0.3, 1, 6)
    assert agreement(first, second)["iou"].item() == pytest.approx(4 / 10)
    # A plateau of more than a fifth is a top all the same.
    first[0, :5], second[0, :] = 1.0, 0.0
    second[0, :2] = 1.0
    assert agreement(first, second)["iou"].item() == pytest.approx(2 / 5)


def test_flat_maps_have_neither_correlation_nor_overlap():
    found = agreement(torch.full((1, 16, 16), 0.5), torch.rand(1, 16, 16))
    assert found["pearson"].isnan().all()
    assert found["iou"].isnan().all()
    assert found["ssim"].isfinite().all()


@pytest.mark.parametrize(("side", "window"), [(3, 3), (8, 7), (10, 9), (12, 11)])
def test_small_maps_have_the_largest_odd_window_that_fits(side, window):
    first, second = torch.rand(2, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))
    line = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    values = []
    for row, column in itertools.product(range(side - window + 1), repeat=2):
        x, y = (m[0, row : row + window, column : column + window].numpy() for m in (first, second))
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        spread_x, spread_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
        common = (weights * (x - mean_x) * (y - mean_y)).sum()
        values.append(
            (2 * mean_x * mean_y + 1e-4)
            * (2 * common + 9e-4)
            / ((mean_x**2 + mean_y**2 + 1e-4) * (spread_x + spread_y + 9e-4))
        )
    assert agreement(first, second)["ssim"].item() == pytest.approx(np.mean(values))


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(UsageError, match="two maps for every image"):
        agreement(torch.rand(2, 8, 8), torch.rand(2, 8, 9))
