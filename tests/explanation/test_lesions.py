import math

import pytest
import torch

from stillroom.errors import UsageError
from stillroom.explanation.lesions import mask_energy, mask_share, pointing


def test_energy_is_the_share_of_the_sum_and_a_flat_map_scores_the_masks_area():
    maps, masks = torch.zeros(3, 10, 10), torch.zeros(3, 10, 10, dtype=torch.bool)
    masks[:, :2, :5] = True
    maps[0, 0, 0], maps[0, 9, 9] = 0.75, 0.25
    maps[1] = 0.4
    maps[2, 1, 1:4] = 1.0
    assert mask_energy(maps, masks).tolist() == pytest.approx([0.75, 0.1, 1.0])
    assert mask_share(masks).tolist() == pytest.approx([0.1, 0.1, 0.1])


def test_a_map_without_energy_has_no_share():
    assert math.isnan(mask_energy(torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)).item())


@pytest.mark.parametrize(
    ("row", "column", "hit"),
    [(20, 20, 1), (24, 20, 1), (26, 20, 1), (27, 20, 0), (25, 25, 1), (26, 26, 0), (26, 24, 1), (90, 90, 0)],
)
def test_the_maximum_may_miss_the_mask_by_the_tolerance_in_any_direction(row, column, hit):
    # The mask ends at 24; of 100 px, 2 % are 2 px: (26, 26) is sqrt(8) away.
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, 15:25, 15:25] = True
    heat = torch.zeros(1, 100, 100)
    heat[0, row, column] = 1
    assert pointing(heat, mask).item() == hit
    assert pointing(heat, mask, tolerance=0).item() == (1 if mask[0, row, column] else 0)


def test_of_equal_maxima_the_share_that_hits_counts():
    mask = torch.zeros(2, 20, 20, dtype=torch.bool)
    mask[:, :5, :] = True
    heat = torch.zeros(2, 20, 20)
    heat[0, 0, 0] = heat[0, 1, 3] = heat[0, 19, 19] = 1  # heat[1] is flat
    assert pointing(heat, mask, tolerance=0).tolist() == pytest.approx([2 / 3, 0.25])


def test_an_empty_mask_cannot_be_hit_or_missed():
    assert math.isnan(pointing(torch.rand(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)).item())


def test_maps_and_masks_must_fit_together():
    with pytest.raises(UsageError, match=r"maps \[1, 8, 8\], masks \[1, 9, 9\]"):
        mask_energy(torch.rand(1, 8, 8), torch.zeros(1, 9, 9, dtype=torch.bool))
    with pytest.raises(UsageError, match="tolerance"):
        pointing(torch.rand(1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool), tolerance=-0.1)
