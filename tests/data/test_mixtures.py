"""Mixtures: pure functions of seed, row and view; the labels' share is the picture's, at every side."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest

from stillroom.data.images import Images
from stillroom.data.mixtures import Mixture, blend, draw_mixture
from stillroom.settings.sections import ViewSettings

ROWS = np.arange(4000)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "both"])
def test_a_mixture_depends_on_seed_row_and_view_alone(kind):
    whole = draw_mixture(ROWS, 3, kind, 7, [ROWS])
    some = np.array([2500, 3, 1000])
    part = draw_mixture(some, 3, kind, 7, [ROWS])
    for name in ("partners", "share", "boxes"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[some])
    for other in (draw_mixture(ROWS, 4, kind, 7, [ROWS]), draw_mixture(ROWS, 3, kind, 8, [ROWS])):
        assert (other.partners != whole.partners).mean() > 0.99


def test_partners_come_from_the_images_own_pool():
    pools = [np.arange(0, 1000, 2), np.array([1, 3, 5])]
    found = draw_mixture(ROWS, 0, "cutmix", 0, pools)
    assert set(found.partners[pools[0]]) <= set(pools[0].tolist())
    assert set(found.partners[pools[1]]) == {1, 3, 5}
    outside = np.setdiff1d(ROWS, np.concatenate(pools))
    assert np.array_equal(found.partners[outside], outside)
    assert (found.share[outside] == 1).all()
    assert not found.boxes[outside].any()
    counts = np.bincount(draw_mixture(ROWS, 0, "mixup", 0, [ROWS[:10]]).partners[:10], minlength=10)
    assert counts.sum() == 10


def test_shares_have_the_distribution_that_is_promised():
    blended = draw_mixture(ROWS, 0, "mixup", 0, [ROWS]).share
    folded = 2 * (1 - beta(0.8, 0.8).cdf(blended))  # the larger of a share and the rest of a symmetric distribution
    assert kstest(folded, "uniform").pvalue > 0.01
    cut = draw_mixture(ROWS, 0, "cutmix", 0, [ROWS])
    assert cut.share.min() > 0.5
    assert np.allclose(np.sqrt(1 - cut.share) * 16, np.round(np.sqrt(1 - cut.share) * 16))
    assert np.quantile(cut.share, [0.25, 0.5, 0.75]) == pytest.approx([0.625, 0.75, 0.875], abs=0.04)
    both = draw_mixture(ROWS, 0, "both", 0, [ROWS])
    cuts = both.boxes.any(axis=1)
    assert 0.4 < cuts.mean() < 0.6
    # The same square, drawn alone: the choice between the two does not bend what is chosen.
    assert np.array_equal(both.boxes[cuts], cut.boxes[cuts])


@pytest.mark.parametrize("side", [16, 28, 48, 96, 299])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_partners_part_of_the_picture_is_what_its_labels_get(kind, side):
    rows = ROWS[:64]
    found = draw_mixture(rows, 0, kind, 0, [ROWS])
    shown = blend(torch.zeros(64, 1, side, side), torch.ones(64, 1, side, side), found)
    assert shown.mean(dim=(1, 2, 3)).numpy() == pytest.approx(1 - found.share, abs=1e-5)
    if kind == "cutmix" and side % 16 == 0:
        assert set(shown.unique().tolist()) == {0.0, 1.0}


def test_a_square_lies_where_its_box_says():
    box = Mixture(np.array([1]), np.array([1 - 0.25 * 0.5]), np.array([[0.25, 0.5, 0.5, 1.0]]))
    shown = blend(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), box)
    expected = torch.zeros(8, 8)
    expected[2:4, 4:8] = 1
    assert torch.equal(shown, expected.expand(1, 3, 8, 8))


def test_images_give_the_mixture_of_two_views(toy):
    data = toy()
    store, device = data.images.store, torch.device("cpu")
    views = ViewSettings(augment="strong", crop=0.5)
    alone = Images(store, device, views, 3)
    mixing = ViewSettings(augment="strong", crop=0.5, mix="mixup")
    images = Images(store, device, mixing, 3, [data.train])
    rows = np.concatenate([data.train[:5], data.val[:2]])
    found = images.mixture(rows, 1)
    share = torch.from_numpy(found.share).float()[:, None, None, None]
    expected = share * alone.batch(rows, 1) + (1 - share) * alone.batch(found.partners, 1)
    assert torch.allclose(images.batch(rows, 1), expected, atol=1e-6)
    assert torch.equal(images.batch(rows, 1)[3:4], images.batch(rows[3:4], 1))
    assert torch.equal(images.batch(rows[5:], 1), alone.batch(rows[5:], 1))
    assert torch.equal(images.batch(rows), alone.batch(rows))
    assert images.mixture(rows, None) is None
    assert alone.mixture(rows, 1) is None


def test_what_decides_a_view_is_its_policy(toy):
    data = toy()
    made = [
        Images(data.images.store, torch.device("cpu"), views, seed, pools).policy
        for views, seed, pools in (
            (ViewSettings(), 0, [data.train]),
            (ViewSettings(crop=0.5), 0, [data.train]),
            (ViewSettings(), 1, [data.train]),
            (ViewSettings(mix="mixup"), 0, [data.train]),
            (ViewSettings(mix="mixup"), 0, [data.train[1:]]),
        )
    ]
    assert all(first != second for number, first in enumerate(made) for second in made[:number])
    device = torch.device("cpu")
    same = Images(data.images.store, device, ViewSettings(views=3), 0, [data.val])  # pools matter to mixtures alone
    assert same.policy == made[0]
