import math

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.errors import RunError, UsageError
from stillroom.explanation.controls import blur, trivial_maps
from stillroom.explanation.faithfulness import (
    SHARES,
    Curves,
    deletion_insertion,
    drop_and_increase,
    imputed,
    joined_curves,
    randomised,
    road,
)

SIDE = 16


def region_mean(images):
    """Two classes: the mean of the upper left quarter, and of the rest of the image."""
    quarter = images[:, :, : SIDE // 2, : SIDE // 2].mean(dim=(1, 2, 3))
    return torch.stack([quarter, (4 * images.mean(dim=(1, 2, 3)) - quarter) / 3], dim=1)


def quarter_images(count):
    images = torch.zeros(count, 1, SIDE, SIDE)
    images[:, :, : SIDE // 2, : SIDE // 2] = 1
    return images


class Counting:
    def __init__(self, probability):
        self.probability, self.sizes = probability, []

    def __call__(self, images):
        self.sizes.append(len(images))
        return self.probability(images)


def test_curves_of_a_region_in_closed_form():
    images = quarter_images(2)
    inside = images[:, 0]
    curves = deletion_insertion(region_mean, images, inside, [0, 0], baseline="mean", shares=(0.25, 0.5, 0.75))
    # The first quarter of the pixels is the region: it falls to the image's mean, 1/4, at once.
    assert curves.deletion.tolist() == [[1, 0.25, 0.25, 0.25, 0.25]] * 2
    assert curves.insertion.tolist() == [[0.25, 1, 1, 1, 1]] * 2
    deletion, insertion = curves.areas
    assert deletion.tolist() == [0.34375] * 2
    assert insertion.tolist() == [0.90625] * 2
    assert curves.gap.tolist() == [0.5625] * 2
    # The opposite order touches the region last, and only the explained class counts.
    opposite = deletion_insertion(region_mean, images, 1 - inside, [0, 0], baseline="mean", shares=(0.25, 0.5, 0.75))
    assert opposite.gap.tolist() == pytest.approx([-0.1875 - 0.375] * 2)
    other = deletion_insertion(region_mean, images, 1 - inside, [0, 1], baseline="mean", shares=(0.25, 0.5, 0.75))
    assert other.deletion[1].tolist() == pytest.approx([0, 1 / 12, 1 / 6, 0.25, 0.25])


def test_the_blurred_baseline_is_the_blurred_image():
    images = torch.rand(2, 3, SIDE, SIDE)
    curves = deletion_insertion(region_mean, images, torch.rand(2, SIDE, SIDE), [0, 1], baseline="blur")
    expected = region_mean(blur(images, 0.1 * SIDE))[[0, 1], [0, 1]]
    assert torch.allclose(curves.deletion[:, -1], expected)
    assert torch.equal(curves.insertion[:, 0], curves.deletion[:, -1])
    assert torch.equal(curves.insertion[:, -1], region_mean(images)[[0, 1], [0, 1]])


def test_equal_pixels_come_in_random_order_and_repeat_with_the_seed():
    images = quarter_images(8)
    flat = torch.zeros(8, SIDE, SIDE)

    def curves(seed):
        return deletion_insertion(region_mean, images, flat, [0] * 8, baseline="mean", seed=seed)

    # In the order of rows half the image would hold the whole region, and the gap would be far from 0.
    assert curves(0).gap.abs().max() < 0.08
    third = curves(0).deletion[:, 1 + SHARES.index(0.32)]
    assert third.mean() == pytest.approx(1 - 0.32 * 0.75, abs=0.04)
    assert len(set(third.tolist())) > 1
    assert torch.equal(curves(0).deletion, curves(0).deletion)
    assert not torch.equal(curves(0).deletion, curves(1).deletion)


def test_several_maps_of_an_image_are_what_each_is_alone():
    images = torch.rand(3, 1, SIDE, SIDE)
    maps = torch.rand(4, 3, SIDE, SIDE)
    together = deletion_insertion(region_mean, images, maps, [0, 1, 0], baseline="blur", shares=(0.2, 0.4, 0.6, 0.8))
    assert together.deletion.shape == (4, 3, 6)
    for own, deletion, insertion in zip(maps, together.deletion, together.insertion, strict=True):
        alone = deletion_insertion(region_mean, images, own, [0, 1, 0], baseline="blur", shares=(0.2, 0.4, 0.6, 0.8))
        assert torch.allclose(alone.deletion, deletion)
        assert torch.allclose(alone.insertion, insertion)


def test_the_network_is_asked_no_more_than_promised_and_in_full_batches():
    counting = Counting(region_mean)
    deletion_insertion(
        counting,
        torch.rand(3, 1, SIDE, SIDE),
        torch.rand(4, 3, SIDE, SIDE),
        [0] * 3,
        baseline="mean",
        shares=tuple(k / 10 for k in range(1, 10)),
    )
    assert sum(counting.sizes) == 3 * (2 * 4 * 9 + 2)
    assert set(counting.sizes[:-1]) == {126}  # 42 variants of 3 images
    one_step = Counting(region_mean)
    curves = deletion_insertion(
        one_step, torch.rand(1, 1, SIDE, SIDE), torch.rand(1, SIDE, SIDE), [0], baseline="mean", shares=()
    )
    assert sum(one_step.sizes) == 2
    assert curves.deletion.shape == (1, 2)


def test_shares_are_alike_from_both_ends_and_tell_a_small_place_from_its_surroundings():
    """What ten equal steps cannot: a map that marks 2 % of the image, and one that needs 9 % for the same."""
    assert [1 - share for share in reversed(SHARES)] == pytest.approx(SHARES)
    side = 50
    place, around = torch.zeros(side, side), torch.zeros(side, side)
    place[20:27, 20:27], around[16:31, 16:31] = 1, 1

    def seen(images):
        return (images[:, 0] * place).sum(dim=(1, 2))[:, None] / 49

    def gaps(**how):
        images, maps = place[None, None], torch.stack([place, around - 0.5 * place])[:, None]
        return deletion_insertion(seen, images, maps, [0], baseline="mean", **how).gap.flatten()

    true, coarse = gaps()
    assert true > 1.4 * coarse > 0
    true, coarse = gaps(shares=tuple(step / 10 for step in range(1, 10)))
    assert float(true) == pytest.approx(float(coarse), abs=1e-6)


def test_reach_is_what_hiding_everything_takes():
    curves = deletion_insertion(region_mean, quarter_images(1), torch.zeros(2, 1, SIDE, SIDE), [0], baseline="mean")
    assert curves.reach.tolist() == [[0.75]] * 2


def test_batches_are_joined_image_by_image():
    first, second = (Curves(torch.rand(2, n, 5), torch.rand(2, n, 5)) for n in (3, 1))
    joined = joined_curves([first, second])
    assert joined.gap.shape == (2, 4)
    assert torch.equal(joined.deletion[:, 3], second.deletion[:, 0])


def test_drop_and_increase_in_closed_form():
    images = quarter_images(3)
    maps = torch.stack([images[0, 0], 0.25 * images[0, 0], torch.zeros(SIDE, SIDE)])
    drop, increase = drop_and_increase(region_mean, images, maps, [0, 0, 0])
    assert drop.tolist() == pytest.approx([0, 0.75, 1])
    assert increase.tolist() == [0, 0, 0]

    def darker(images):
        return 1 - region_mean(images)

    drop, increase = drop_and_increase(darker, 0.5 * images, maps, [0, 0, 0])
    assert drop.tolist() == [0, 0, 0]
    assert increase.tolist() == [0, 1, 1]
    # A probability of 0 cannot drop.
    assert drop_and_increase(region_mean, torch.zeros_like(images), maps, [0, 0, 0])[0].tolist() == [0, 0, 0]
    several, _ = drop_and_increase(region_mean, images, torch.stack([maps, maps.flip(0)]), [0, 0, 0])
    assert several.tolist() == [pytest.approx([0, 0.75, 1]), pytest.approx([1, 0.75, 0])]


def filled_by_hand(image, removed):
    """The same linear system, pixel by pixel and dense."""
    height, width = removed.shape
    places = [(r, c) for r in range(height) for c in range(width) if removed[r, c]]
    number = {place: k for k, place in enumerate(places)}
    system, known = np.zeros((len(places), len(places))), np.zeros((len(places), len(image)))
    for (row, column), k in number.items():
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                near = (row + down, column + right)
                if near == (row, column) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                weight = 1 / 12 if down and right else 1 / 6
                system[k, k] += weight
                if near in number:
                    system[k, number[near]] -= weight
                else:
                    known[k] += weight * image[:, near[0], near[1]]
    result = image.copy()
    for place, values in zip(places, np.linalg.solve(system, known), strict=True):
        result[:, place[0], place[1]] = values
    return result


@pytest.mark.parametrize("share", [0.2, 0.8, 0.98])
def test_removed_pixels_solve_the_papers_equations(share):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 11, 14, generator=generator)
    removed = torch.rand(11, 14, generator=generator) < share
    expected = filled_by_hand(image.numpy().astype(np.float64), removed.numpy())
    assert np.allclose(imputed(image, removed), expected, atol=1e-6)


def test_imputation_and_score_agree_with_pytorch_grad_cam():
    reference = pytest.importorskip("pytorch_grad_cam.metrics.road")
    generator = torch.Generator().manual_seed(1)
    image, heat = torch.rand(3, 32, 32, generator=generator), torch.rand(8, 8, generator=generator)
    removed = torch.rand(32, 32, generator=generator) < 0.6
    theirs = reference.NoisyLinearImputer(noise=0.0)(image, (~removed).float())
    assert torch.allclose(imputed(image, removed), theirs, atol=1e-5)

    class Region(nn.Module):
        def forward(self, images):
            return images[:, :, :16, :16].mean(dim=(1, 2, 3))[:, None]

    images = image[None].repeat(2, 1, 1, 1)
    images[1, :, :16, :16] += 1
    maps = torch.stack([nn.functional.interpolate(heat[None, None], (32, 32), mode="bilinear")[0, 0]] * 2)
    maps[1, :16, :16] += 1
    score = reference.ROADCombined(percentiles=[20, 40, 60, 80])
    expected = score(images, maps.numpy(), [lambda output: output[0]] * 2, Region())
    # They halve the difference of the two orders.
    assert road(Region(), images, maps, [0, 0]).tolist() == pytest.approx((2 * expected).tolist(), abs=0.01)


def test_road_tells_the_right_map_from_the_wrong_one():
    images = quarter_images(4) + 0.1 * torch.rand(4, 1, SIDE, SIDE)
    right = road(region_mean, images, quarter_images(4)[:, 0], [0] * 4)
    wrong = road(region_mean, images, 1 - quarter_images(4)[:, 0], [0] * 4)
    flat = road(region_mean, images, torch.zeros(4, SIDE, SIDE), [0] * 4)
    assert right.min() > 0.2
    assert wrong.max() < -0.2
    assert flat.abs().max() < 0.1
    assert torch.equal(right, road(region_mean, images, quarter_images(4)[:, 0], [0] * 4))


def test_road_removes_the_same_share_from_either_end():
    images = quarter_images(2)
    # A tenth of all pixels, taken from the region in random places, is filled in well; taken elsewhere it changes nothing.
    found = road(region_mean, images, 1 - images[:, 0], [0, 0], percentiles=(10,))
    assert ((found > -0.2) & (found < 0)).all()


@pytest.mark.parametrize("percentiles", [(), (0,), (50, 100)])
def test_road_refuses_to_remove_nothing_or_everything(percentiles):
    images = torch.rand(1, 1, 8, 8)
    with pytest.raises(UsageError, match="percentiles between 0 and 100"):
        road(region_mean, images, images[:, 0], [0], percentiles=percentiles)
    with pytest.raises(UsageError, match="every pixel"):
        imputed(images[0], torch.ones(8, 8, dtype=torch.bool))
    assert torch.equal(imputed(images[0], torch.zeros(8, 8, dtype=torch.bool)), images[0])


def test_what_does_not_fit_together_is_refused():
    images, maps = torch.rand(2, 1, 8, 8), torch.rand(2, 8, 8)
    with pytest.raises(UsageError, match="a map and a class for every image"):
        deletion_insertion(region_mean, images, maps[:1], [0, 0], baseline="mean")
    with pytest.raises(UsageError, match="1 classes"):
        drop_and_increase(region_mean, images, maps, [0])
    for shares in ((0.0, 0.5), (0.5, 0.5), (0.5, 1.0)):
        with pytest.raises(UsageError, match="rising shares between 0 and 1"):
            deletion_insertion(region_mean, images, maps, [0, 0], baseline="mean", shares=shares)
    with pytest.raises(RunError, match="not a number"):
        drop_and_increase(lambda images: images.new_full((len(images), 2), math.nan), images, maps, [0, 0])


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.arange(6.0))
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(6, 2)
        self.register_buffer("mean", torch.tensor([0.3]))

    def forward(self, images):
        return self.head(self.body(images - self.mean).flatten(1) + self.token)


def test_a_random_twin_has_learnt_nothing_and_leaves_the_network_as_it_is():
    network, images = Small(), torch.rand(7, 1, 12, 12)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    twin = randomised(network, images, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for name in ("token", "body.0.weight", "head.weight", "head.bias"):
        assert not torch.equal(twin.state_dict()[name], before[name])
    assert sorted(twin.token.tolist()) == [0, 1, 2, 3, 4, 5]
    assert torch.equal(twin.mean, network.mean)
    assert not any(module.training for module in twin.modules())
    assert torch.equal(twin(images), randomised(network, images, seed=3)(images))
    assert not torch.equal(twin(images), randomised(network, images, seed=4)(images))


def test_a_random_twins_batch_norm_sees_the_images():
    network, images = Small(), torch.rand(7, 1, 12, 12)
    twin = randomised(network, images)
    seen = twin.body[0](images - twin.mean)
    norm = twin.body[1]
    assert torch.allclose(norm.running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-6)
    assert torch.allclose(norm.running_var, seen.transpose(0, 1).flatten(1).var(dim=1), atol=1e-6)
    assert norm.momentum == 0.1
    # A single image whose map is a single place is no obstacle.
    assert randomised(network, torch.rand(1, 1, 3, 3))(torch.rand(2, 1, 3, 3)).isfinite().all()


def test_trivial_maps_earn_little_where_the_region_is_a_corner():
    images = quarter_images(6)
    own = deletion_insertion(region_mean, images, images[:, 0], [0] * 6, baseline="mean").gap
    for found in trivial_maps(images, seed=0).values():
        assert deletion_insertion(region_mean, images, found, [0] * 6, baseline="mean").gap.mean() < own.mean() / 2
