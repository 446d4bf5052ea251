"""Net benefit: by counting image by image, by normal tails, and by simulation."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from stillroom.evaluation.net_benefit import THRESHOLDS, curve, curves_report, net_benefit, ranges
from stillroom.task import MultiClass, MultiLabel

BINARY = MultiClass(("healthy", "ill"))


def drawn(rng, count, share=0.3, distance=2.0, each=1):
    """True probabilities of binormal scores; images of one patient share half of what makes them hard."""
    ill = np.repeat(rng.random(count // each) < share, each)
    noise = rng.normal(size=count)
    if each > 1:
        noise = (noise + np.repeat(rng.normal(size=count // each), each)) / np.sqrt(2)
    return expit(distance * (noise + distance * ill) - distance**2 / 2 + logit(share)), ill


def test_it_is_found_cases_less_false_alarms_at_their_price():
    chance, ill = drawn(np.random.default_rng(0), 200)
    chance[:5] = [0.1, 0.25, 0.5, 0.75, 0.99]  # on a threshold itself one acts
    for place, threshold in enumerate(THRESHOLDS):
        worth = 0.0
        for probability, has in zip(chance, ill, strict=True):
            if probability >= threshold:
                worth += 1 if has else -threshold / (1 - threshold)
        assert net_benefit(chance, ill)[place] == pytest.approx(worth / 200)


def test_of_true_probabilities_it_follows_from_normal_tails():
    chance, ill = drawn(np.random.default_rng(1), 400_000)
    place = (logit(THRESHOLDS) - logit(0.3) + 2) / 2
    wanted = 0.3 * norm.sf(place - 2) - THRESHOLDS / (1 - THRESHOLDS) * 0.7 * norm.sf(place)
    few = slice(0, 90)  # beyond .9 a single false alarm costs much
    np.testing.assert_allclose(net_benefit(chance, ill)[few], wanted[few], atol=0.004)


def test_acting_on_all_and_the_gain_over_it():
    chance, ill = drawn(np.random.default_rng(2), 300)
    found = curve(chance, ill, None)
    np.testing.assert_allclose(found.all, net_benefit(np.ones(300), ill))
    np.testing.assert_allclose(found.gain, found.value - found.all, atol=1e-12)
    assert ((found.low <= found.value) & (found.value <= found.high)).all()
    assert ((found.gain_low <= found.gain) & (found.gain <= found.gain_high)).all()


def test_a_patient_each_is_as_no_patients_and_copies_add_nothing():
    chance, ill = drawn(np.random.default_rng(3), 150)
    alone = curve(chance, ill, None)
    one_each = curve(chance, ill, np.arange(150))
    copies = curve(np.repeat(chance, 5), np.repeat(ill, 5), np.repeat(np.arange(150), 5))
    for name in ("value", "low", "high", "gain_low", "gain_high"):
        np.testing.assert_allclose(getattr(one_each, name), getattr(alone, name), rtol=1e-4, atol=1e-6)
    width = (copies.high - copies.low) / (alone.high - alone.low)
    assert (np.abs(width[:90] - 1) < 0.02).all()


def test_patients_of_both_kinds_of_images_are_one_patient():
    """Variance and covariance against those of sums by patient, written out."""
    from stillroom.evaluation import net_benefit as module

    rng = np.random.default_rng(4)
    members, ill = rng.integers(0, 30, 200), rng.random(200) < 0.4
    members = np.unique(members, return_inverse=True)[1]
    chance, sizes = rng.random(200), np.bincount(members)
    sides = [module._Counts.of(chance[side], THRESHOLDS, members[side]) for side in (ill, ~ill)]
    spreads = [module._spread(side, 200, sizes.astype(float)) for side in sides]
    together = module._covariance(*sides, 200, sizes.astype(float))
    for place in (5, 40, 90):
        raised = chance >= THRESHOLDS[place]
        moves = []
        for side in (ill, ~ill):
            marked = (raised & side).astype(float)
            moves.append(np.bincount(members, weights=marked - marked.mean()) / 200)
        for (variance, effective), move, side in zip(spreads, moves, (ill, ~ill), strict=True):
            share = (raised & side).mean()
            assert variance[place] == pytest.approx(max((move**2).sum(), share * (1 - share) / 200), rel=1e-4)
            assert effective[place] == pytest.approx((move**2).sum() ** 2 / (move**4).sum(), rel=1e-3)
        assert together[place] == pytest.approx((moves[0] * moves[1]).sum(), rel=1e-3, abs=1e-8)


@pytest.mark.parametrize(("count", "each"), [(100, 1), (200, 4)])
def test_intervals_hold_the_true_net_benefit(count, each):
    rng, held = np.random.default_rng(5), []
    place = (logit(THRESHOLDS) - logit(0.3) + 2) / 2
    price = THRESHOLDS / (1 - THRESHOLDS)
    true = 0.3 * norm.sf(place - 2) - price * 0.7 * norm.sf(place)
    gain = true - (0.3 - price * 0.7)
    for _ in range(80):
        members = None if each == 1 else np.repeat(np.arange(count // each), each)
        found = curve(*drawn(rng, count, each=each), members)
        held.append([(found.low <= true) & (true <= found.high), (found.gain_low <= gain) & (gain <= found.gain_high)])
    assert (np.mean(held, axis=(0, 2)) > 0.92).all()


def test_a_network_that_knows_nothing_is_of_use_nowhere():
    rng, claimed = np.random.default_rng(6), []
    for _ in range(60):
        ill = rng.random(150) < 0.4
        claimed.append(curve(expit(logit(0.4) + rng.normal(size=150)), ill, None).better.any())
    assert np.mean(claimed) <= 0.05


def test_ranges_are_runs_of_thresholds():
    mask = np.zeros(99, dtype=bool)
    assert ranges(mask) == []
    mask[[0, 1, 2, 10, 97, 98]] = True
    assert ranges(mask) == [(0.01, 0.03), (0.11, 0.11), (0.98, 0.99)]


def test_the_report_names_where_the_network_is_of_use():
    rng = np.random.default_rng(7)
    chance, ill = drawn(rng, 600)
    probabilities = {
        "student": np.column_stack([1 - chance, chance]),
        "control": np.full((600, 2), 0.5),
    }
    found = curves_report(BINARY, probabilities, ill.astype(int), None, role="student")
    (told,) = found["curves"].values()
    first, last = max(told["better"], key=lambda part: part[1] - part[0])
    assert first < 0.2 < 0.5 < last
    assert f"from {first:.2f} to {last:.2f}" in told["statement"]
    assert told["networks"]["control"][:49] == pytest.approx(told["all"][:49], abs=1e-6)
    assert told["networks"]["control"][50:] == [0] * 49
    json.dumps(found, allow_nan=False)
    nobody = curves_report(BINARY, probabilities, ill.astype(int), None, role="control")
    assert "at no threshold probability" in nobody["curves"]["ill"]["statement"]


def test_labels_that_no_image_or_every_one_has_are_left_out():
    task, rng = MultiLabel(("some", "none", "every")), np.random.default_rng(8)
    targets = np.column_stack([rng.integers(0, 2, 50), np.zeros(50), np.ones(50)]).astype(np.uint8)
    assert list(curves_report(task, {"student": rng.random((50, 3))}, targets, None, role="student")["curves"]) == [
        "some"
    ]
