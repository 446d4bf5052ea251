import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from stillroom.errors import UsageError
from stillroom.evaluation import intervals
from stillroom.evaluation.intervals import (
    Ranking,
    blocks,
    draw,
    group_indices,
    percentile,
    resample_weights,
    wilson,
)


def test_every_resample_draws_as_many_images_as_there_are():
    weights = resample_weights(50, 200, seed=3)
    assert weights.shape == (200, 50)
    assert np.issubdtype(weights.dtype, np.integer)
    assert (weights.sum(axis=1) == 50).all()
    # Poisson-like: an image is left out with probability (1 - 1/n)^n, about 0.364 for 50.
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)


def test_resamples_repeat_with_the_seed_and_differ_without():
    assert np.array_equal(resample_weights(30, 20, seed=1), resample_weights(30, 20, seed=1))
    assert not np.array_equal(resample_weights(30, 20, seed=1), resample_weights(30, 20, seed=2))


def test_whole_patients_are_drawn_and_unknown_rows_stand_alone():
    groups = np.array(["b", "a", "", "b", "a", "", "b"])
    indices = group_indices(groups)
    assert len(np.unique(indices)) == 4
    assert indices[2] != indices[5]
    weights = resample_weights(7, 300, seed=0, groups=groups)
    for members in ([0, 3, 6], [1, 4]):
        assert (weights[:, members] == weights[:, members[:1]]).all()
    assert (weights[:, 2] != weights[:, 5]).any()
    # Four patients are drawn each time, whatever their number of images.
    assert (weights[:, [0, 1, 2, 5]].sum(axis=1) == 4).all()


@pytest.mark.parametrize(("n", "resamples"), [(0, 10), (5, -1)])
def test_impossible_resamples_are_refused(n, resamples):
    with pytest.raises(UsageError):
        resample_weights(n, resamples, seed=0)


def test_groups_of_another_length_are_refused():
    with pytest.raises(UsageError, match="3 images, 2 patients"):
        resample_weights(3, 5, seed=0, groups=np.array(["a", "b"]))


def test_blocks_hold_bounded_memory_and_every_resample_once(monkeypatch):
    monkeypatch.setattr(intervals, "BLOCK_CELLS", 25)
    weights = resample_weights(10, 7, seed=0)
    parts = list(blocks(weights))
    assert [len(part) for part in parts] == [2, 2, 2, 1]
    assert np.array_equal(np.concatenate(parts), weights)
    assert [part.shape for part in blocks(weights[:0])] == [(0, 10)]


@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_ranking_figures_equal_scikit_learn_with_sample_weights(decimals):
    generator = np.random.default_rng(decimals)
    truth = generator.integers(2, size=120)
    scores = np.round(generator.random(120) * 0.7 + truth * 0.2, decimals)
    weights = resample_weights(120, 40, seed=0)
    auc, ap = Ranking.of(scores, truth).auc_and_ap(weights.astype(float))
    for row, weight in enumerate(weights):
        assert auc[row] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight), abs=1e-9)
        assert ap[row] == pytest.approx(average_precision_score(truth, scores, sample_weight=weight), abs=1e-9)


def test_ranking_figures_accept_any_weights():
    generator = np.random.default_rng(5)
    truth, scores, weight = generator.integers(2, size=60), generator.random(60).round(1), generator.random(60)
    auc, ap = Ranking.of(scores, truth).auc_and_ap(weight[None])
    assert auc[0] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight), abs=1e-9)
    assert ap[0] == pytest.approx(average_precision_score(truth, scores, sample_weight=weight), abs=1e-9)


def test_ranking_figures_are_not_defined_without_both_sides():
    scores, truth = np.array([0.1, 0.4, 0.8]), np.array([0, 1, 1])
    auc, ap = Ranking.of(scores, truth).auc_and_ap(np.array([[0.0, 2, 1], [3, 0, 0], [1, 1, 1]]))
    assert np.isnan(auc[:2]).all()
    assert np.isnan(ap[:2]).all()
    assert (auc[2], ap[2]) == (1, 1)


def test_percentile_leaves_out_what_is_not_defined():
    values = np.concatenate([np.arange(101.0), np.full(100, np.nan)])
    assert percentile(values, 0.9) == pytest.approx((5.0, 95.0))
    assert percentile(np.append(values, [np.nan, np.nan])) == (None, None)
    assert percentile(np.array([])) == (None, None)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 10), (57, 200), (199, 200)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_equals_scipy(successes, n, level):
    oracle = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(UsageError):
        wilson(3, 2)


def test_intervals_cover_the_true_auc_as_often_as_they_say():
    generator = np.random.default_rng(0)
    shift, images = 1.2, 150
    area = norm.cdf(shift / np.sqrt(2))
    covered = 0
    for trial in range(300):
        truth = generator.permutation(np.arange(images) % 3 == 0)
        scores = generator.normal(size=images) + shift * truth
        weights = resample_weights(images, 400, seed=trial).astype(float)
        low, high = percentile(Ranking.of(scores, truth).auc_and_ap(weights)[0])
        covered += low <= area <= high
    # Binomial noise of 300 trials is 1.3 points; the percentile interval falls a little short of 95 %.
    assert 0.91 <= covered / 300 <= 0.985


def test_patients_are_drawn_whole_as_soon_as_one_is_known():
    some = np.array(["p", "p", "", ""])
    found = draw(4, 200, 0, some)
    assert found.units == 3
    assert found.groups is some
    assert (found.weights[:, 0] == found.weights[:, 1]).all()
    alone = draw(4, 200, 0, np.array(["", "", "", ""]))
    assert (alone.units, alone.groups) == (4, None)
    np.testing.assert_array_equal(alone.weights, draw(4, 200, 0).weights)


@pytest.mark.parametrize("decimals", [1, 8])
def test_precision_without_self_leaves_each_positive_out_of_its_own(decimals):
    generator = np.random.default_rng(3)
    truth = generator.integers(2, size=40)
    scores = np.round(generator.random(40) * 0.7 + truth * 0.3, decimals)
    expected = []
    for image in np.flatnonzero(truth):
        others = (scores >= scores[image]) & (np.arange(40) != image)
        expected.append(truth[others].mean() if others.any() else 1.0)
    assert Ranking.of(scores, truth).precision_without_self() == pytest.approx(np.mean(expected))
    assert np.isnan(Ranking.of(scores, np.ones(40)).precision_without_self())


def test_resamples_name_the_patients_they_are_of():
    assert draw(4, 0, 0, np.array(["b", "a", "", "b"])).members.tolist() == [1, 0, 2, 1]
    assert draw(4, 0, 0).members is None
