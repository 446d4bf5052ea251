"""Several readers without and with help: a published example, closed forms, and readers whose truth is known."""

from functools import lru_cache

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t

from stillroom.errors import UsageError
from stillroom.evaluation.intervals import wilson
from stillroom.evaluation.mrmc import Figures, auc, compare, each, share, time_ratio

# Van Dyke et al. (1993): five readers look for aortic dissection in two kinds of MR images, 69 without it and 45 with it; the
# two ratings of an image (1 to 5) stand side by side. The example that most programs for such studies are shown on.
VAN_DYKE = (
    (
        "13 23 23 12 52 12 12 12 13 12 11 13 41 12 12 12 12 12 12 11 11 11 31 11 34 12 11 23 11 42 12 11 14 13 12 33 11 "
        "22 13 21 12 12 22 33 33 11 31 11 13 33 33 11 11 13 14 11 12 24 22 11 12 14 11 34 34 22 11 11 11",
        "55 53 55 55 45 55 55 55 44 55 55 55 45 34 44 23 43 55 55 55 55 55 55 55 13 55 45 43 55 45 55 55 34 54 55 55 15 "
        "13 55 55 55 45 45 55 11",
    ),
    (
        "23 32 22 22 22 22 22 22 23 32 22 22 52 22 22 21 32 22 22 22 21 22 22 22 43 22 22 22 22 32 22 21 22 22 21 22 22 "
        "22 22 22 23 21 22 22 23 22 22 22 22 22 22 22 22 22 23 22 22 43 32 22 22 32 22 22 22 22 21 22 22",
        "55 33 55 55 55 55 55 45 22 55 55 55 43 44 24 22 24 55 54 55 55 55 54 55 22 45 32 33 55 45 55 53 22 44 22 55 25 "
        "22 55 55 55 55 35 55 22",
    ),
    (
        "22 24 22 22 32 52 13 12 22 22 41 21 41 23 22 22 32 22 21 22 11 21 32 21 44 11 11 35 21 22 11 11 22 21 22 42 12 "
        "21 12 42 12 21 11 13 22 21 21 21 22 23 33 21 11 13 22 12 11 22 23 12 13 54 11 42 24 12 21 12 21",
        "55 42 55 55 55 55 55 55 55 55 55 55 53 45 24 31 54 55 55 55 55 55 55 55 22 55 23 23 55 55 55 54 23 55 55 55 25 "
        "23 54 55 55 55 55 55 21",
    ),
    (
        "12 12 11 11 11 11 33 11 12 11 11 11 11 12 12 11 11 11 12 11 21 11 11 11 23 12 11 12 11 22 11 11 11 11 12 12 11 "
        "11 12 11 11 11 11 11 12 11 12 11 32 31 12 12 11 11 11 11 11 12 11 12 11 11 11 33 12 13 12 11 11",
        "55 54 55 55 55 55 55 55 54 55 55 55 54 55 55 15 55 55 55 55 55 55 55 55 54 55 45 54 44 45 55 55 35 55 55 55 15 "
        "23 55 55 55 55 55 55 55",
    ),
    (
        "32 52 13 21 12 12 12 12 21 22 22 12 21 11 11 12 22 22 11 12 32 22 21 12 13 12 12 23 12 11 22 11 12 22 32 12 21 "
        "21 12 11 12 31 31 33 22 11 12 12 23 13 12 11 12 12 12 12 11 32 42 12 22 33 11 22 13 23 11 11 31",
        "55 22 55 24 55 55 55 55 15 54 45 55 43 54 23 23 33 55 55 55 55 55 55 45 12 45 41 33 23 22 15 53 12 55 14 55 15 "
        "13 53 55 55 35 55 55 23",
    ),
)


def van_dyke():
    """``[2, 5, 114]`` ratings and ``[114]`` truth."""
    ratings = np.array(
        [[[int(c) for c in pair] for pair in " ".join(parts).split()] for parts in VAN_DYKE], dtype=float
    )
    return ratings.transpose(2, 0, 1), np.repeat([0, 1], [69, 45])


def slow_auc(scores, truth):
    pairs = scores[truth == 1][:, None] - scores[truth == 0][None]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@lru_cache(1)
def published():
    """The study's figures as its programs compute them."""
    return jackknifed(*van_dyke())


def jackknifed(scores, truth):
    """The same figures with covariances from leaving each image out once: another way than DeLong's."""
    flat = scores.reshape(-1, scores.shape[-1])
    left = np.array(
        [[slow_auc(np.delete(row, k), np.delete(truth, k)) for k in range(len(truth))] for row in flat]
    )  # fmt: skip
    covariance = np.cov(left) * (len(truth) - 1) ** 2 / len(truth)
    readers = scores.shape[1]
    values = np.array([slow_auc(row, truth) for row in flat]).reshape(2, readers)
    return Figures(values, covariance.reshape(2, readers, 2, readers), 50.0)


def test_a_published_study_comes_out_as_published():
    """Figures of RJafroc's manual for this data set (Wilcoxon figure of merit, jackknife, Obuchowski-Rockette-Hillis)."""
    figures = published()
    assert np.round(figures.values, 4).tolist() == [
        [0.9196, 0.8588, 0.9039, 0.9731, 0.8298],
        [0.9478, 0.9053, 0.9217, 0.9994, 0.9300],
    ]
    found = compare(figures)
    assert found["df"] == pytest.approx(15.26, abs=5e-3)
    assert found["p"] == pytest.approx(0.05167, abs=5e-6)
    assert found["difference"]["value"] == pytest.approx(0.0438, abs=5e-5)
    assert found["difference"]["low"] == pytest.approx(-0.0003589, abs=5e-8)
    assert found["difference"]["high"] == pytest.approx(0.0879595, abs=5e-8)
    for key, value, error, df in (("without", 0.8970, 0.03317, 12.74), ("with", 0.9408, 0.02157, 12.71)):
        # The manual's ends are symmetric; ours have its error and degrees of freedom, on the scale of log odds.
        half = t.ppf(0.975, df) * error / (value * (1 - value))
        ends = expit(logit(value) - half), expit(logit(value) + half)
        assert (found[key]["low"], found[key]["high"]) == pytest.approx(ends, abs=2e-4)
    assert found["these_readers"]["p"] == pytest.approx(0.01928, abs=5e-6)
    assert found["these_readers"]["difference"]["low"] == pytest.approx(0.007115, abs=5e-7)
    assert found["these_readers"]["difference"]["high"] == pytest.approx(0.08049, abs=5e-6)
    alone = each(figures)
    assert [one["p"] for one in alone] == pytest.approx([0.2693, 0.0768, 0.5668, 0.1290, 0.0230], abs=5e-5)
    assert not alone[0]["random_readers"]
    assert alone[0]["df"] is None


def test_delong_and_the_jackknife_nearly_agree():
    ratings, truth = van_dyke()
    ours, other = auc(ratings, truth), published()
    assert np.allclose(ours.values, other.values, atol=1e-12)
    assert np.abs(ours.covariance - other.covariance).max() < 0.03 * other.covariance.max()
    assert compare(ours)["p"] == pytest.approx(compare(other)["p"], abs=2e-3)


def test_shares_of_one_reader_have_the_variance_of_a_paired_difference():
    rng = np.random.default_rng(0)
    right = rng.random((2, 1, 40)) < 0.7
    found = compare(share(right))
    change = right[1, 0].astype(float) - right[0, 0]
    half = 1.959964 * change.std(ddof=1) / np.sqrt(40)
    assert found["difference"]["value"] == pytest.approx(change.mean())
    assert found["difference"]["high"] - found["difference"]["value"] == pytest.approx(half, rel=1e-6)
    assert found["difference"] == found["these_readers"]["difference"]


def test_fixed_readers_have_the_variance_of_their_mean():
    rng = np.random.default_rng(1)
    right = rng.random((2, 4, 60)) < 0.8
    found = compare(share(right))
    change = (right[1].astype(float) - right[0]).mean(axis=0)
    half = 1.959964 * change.std(ddof=1) / np.sqrt(60)
    assert found["these_readers"]["difference"]["high"] - change.mean() == pytest.approx(half, rel=1e-6)


def test_where_nobody_differs_there_is_a_figure_and_no_interval():
    right = np.ones((2, 3, 20))
    found = compare(share(right))
    assert found["difference"] == {"value": 0.0, "low": None, "high": None}
    assert found["p"] is None
    assert time_ratio(np.full((2, 3, 5), 4.0)) == {"value": 1.0, "low": None, "high": None}


def test_a_figure_of_one_reader_is_a_share_of_so_many_images():
    """Wilson's interval where errors are seen; where none is, the end at which so many right images are rare."""
    right = np.ones((2, 1, 100))
    right[0, 0, :20] = 0
    found = compare(share(right))
    low, high = wilson(20, 25)
    assert (found["with"]["low"], found["with"]["high"]) == pytest.approx((100 / (100 + 1.959964**2), 1.0))
    assert found["without"]["low"] == pytest.approx(wilson(80, 100)[0], abs=2e-3)
    assert found["without"]["high"] == pytest.approx(wilson(80, 100)[1], abs=2e-3)
    assert low < found["without"]["low"] < found["without"]["high"] < high  # of more images than 25


def test_times_are_compared_by_their_ratio():
    rng = np.random.default_rng(2)
    seconds = np.exp(rng.normal(2, 0.4, (2, 5, 30)))
    seconds[1] = 0.5 * seconds[0]
    assert time_ratio(seconds)["value"] == pytest.approx(0.5)
    seconds[1] *= np.exp(rng.normal(0, 0.1, (5, 30)))
    found = time_ratio(seconds)
    assert found["low"] < found["value"] < found["high"]


@pytest.mark.parametrize("truth", [[0, 0, 0, 1], [1, 1, 1, 0]])
def test_an_auc_needs_two_of_either(truth):
    with pytest.raises(UsageError, match="two images with"):
        auc(np.zeros((2, 2, 4)), np.array(truth))


def test_a_share_needs_two():
    with pytest.raises(UsageError, match="two images"):
        share(np.ones((2, 2, 1)))
