import numpy as np
import pytest
from scipy import stats

from stillroom.evaluation.estimates import ratio
from stillroom.explanation.means import CORRELATION, SHARE, count_units, mean_with_interval, mean_with_t_interval


def test_of_many_images_every_interval_is_the_usual_one():
    values = np.random.default_rng(0).beta(3, 7, 800)
    half = 1.96 * values.std() / 800**0.5
    for ends in (None, SHARE):
        found = mean_with_interval(values, None, ends)
        assert found["value"] == pytest.approx(values.mean())
        assert [found["low"], found["high"]] == pytest.approx(
            [values.mean() - half, values.mean() + half], abs=0.05 * half
        )


@pytest.mark.parametrize("ends", [None, SHARE])
def test_images_of_a_patient_stand_or_fall_together(ends):
    values = np.repeat(np.random.default_rng(0).uniform(0.3, 0.7, size=10), 8)
    patients = np.repeat([f"p{k}" for k in range(10)], 8)
    alone, together = (mean_with_interval(values, groups, ends) for groups in (None, patients))
    once = mean_with_interval(values[::8], None, ends)
    # Eight copies of an image say nothing new: the interval is that of ten values.
    assert together == pytest.approx(once)
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


def test_images_without_a_value_are_left_out():
    values = np.array([0.1, np.nan, 0.3, np.nan, 0.2])
    assert mean_with_interval(values, None, SHARE) == mean_with_interval(values[::2], None, SHARE)
    assert mean_with_interval(values, None) == mean_with_interval(values[::2], None)


def test_nothing_is_none_and_one_image_or_patient_has_no_interval():
    for ends in (None, SHARE):
        assert mean_with_interval(np.full(3, np.nan), None, ends) == {"value": None, "low": None, "high": None}
        assert mean_with_interval(np.array([0.5]), None, ends) == {"value": 0.5, "low": None, "high": None}
        one = mean_with_interval(np.array([0.2, 0.4]), np.array(["a", "a"]), ends)
        assert one == {"value": pytest.approx(0.3), "low": None, "high": None}


def test_hits_and_misses_are_a_share_and_no_interval_leaves_its_ends():
    hits = mean_with_interval(np.ones(12), None, SHARE)
    assert hits == ratio(np.ones(12), np.ones(12), None)
    assert hits["low"] < 0.05 ** (1 / 12)
    skewed = mean_with_interval(np.array([0.001, 0.002, 0.2]), None, SHARE)
    assert 0 < skewed["low"] < skewed["high"] < 1
    assert skewed["high"] - skewed["value"] > skewed["value"] - skewed["low"]
    alike = mean_with_interval(np.array([1.0, 1.0, 1 - 1e-16]), None, CORRELATION)
    assert alike["low"] <= alike["value"] <= alike["high"] <= 1


def test_skewed_shares_of_few_images_are_held():
    """A sample of proofs/shares.py; the percentile bootstrap held 84 %."""
    rng, held = np.random.default_rng(2), []
    truth = (1 / (1 + np.exp(np.log(19) - 0.7 * rng.normal(size=400_000)))).mean()
    for _ in range(600):
        values = 1 / (1 + np.exp(np.log(19) - 0.7 * rng.normal(size=12)))
        found = mean_with_interval(values, None, SHARE)
        held.append(found["low"] <= truth <= found["high"])
    assert np.mean(held) > 0.92


def test_units_are_images_or_patients():
    chosen = np.array([True, True, True, False])
    assert count_units(None, chosen) == 3
    assert count_units(np.array(["a", "a", "", "b"]), chosen) == 2


# -- t-intervals --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [2, 5, 40])
def test_the_t_interval_of_images_is_the_textbooks(count):
    values = np.random.default_rng(count).normal(0.3, 1.0, count)
    found = mean_with_t_interval(values, None)
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((values.mean(), low, high))
    confidence = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((confidence.low, confidence.high))


def test_the_t_interval_by_hand():
    """Mean 2, standard deviation 1, standard error 1 / sqrt(3), and 4.303 is the table's value at two degrees."""
    found = mean_with_t_interval(np.array([1.0, 2.0, 3.0]), None)
    assert found["value"] == 2
    assert found["high"] - 2 == pytest.approx(4.303 / 3**0.5, rel=1e-4)
    assert 2 - found["low"] == pytest.approx(found["high"] - 2)


def test_of_patients_with_as_many_images_each_it_is_that_of_their_means():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(9, 1)) + 0.5 * rng.normal(size=(9, 4))).ravel()
    found = mean_with_t_interval(values, np.repeat([f"p{k}" for k in range(9)], 4))
    means = values.reshape(9, 4).mean(axis=1)
    low, high = stats.t.interval(0.95, 8, loc=means.mean(), scale=stats.sem(means))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((means.mean(), low, high))


def test_of_patients_with_unequal_numbers_it_is_the_cluster_robust_regression_on_a_constant():
    """The sandwich written out: bread (X'X)^-1, meat the sum over patients of X'u u'X, and G / (G - 1)."""
    rng = np.random.default_rng(1)
    sizes = [1, 2, 3, 7, 7, 12]
    patients = np.repeat([f"p{k}" for k in range(6)], sizes)
    values = np.repeat(rng.normal(size=6), sizes) + rng.normal(size=32)
    order = rng.permutation(32)
    found = mean_with_t_interval(values[order], patients[order])
    design = np.ones((32, 1))
    bread = np.linalg.inv(design.T @ design)
    rest = values - values.mean()
    meat = np.zeros((1, 1))
    for name in np.unique(patients):
        score = design[patients == name].T @ rest[patients == name]
        meat += np.outer(score, score)
    error = np.sqrt((6 / 5 * bread @ meat @ bread).item())
    assert found["value"] == pytest.approx(values.mean())
    assert found["high"] - found["value"] == pytest.approx(stats.t.ppf(0.975, 5) * error)


def test_copies_of_an_image_say_nothing_new():
    values = np.random.default_rng(2).normal(size=10)
    copies = mean_with_t_interval(np.repeat(values, 8), np.repeat([f"p{k}" for k in range(10)], 8))
    assert copies == pytest.approx(mean_with_t_interval(values, None))


def test_images_of_unknown_patient_and_without_a_value():
    values = np.array([1.0, np.nan, 3.0, 5.0, np.nan])
    alone = mean_with_t_interval(np.array([1.0, 3.0, 5.0]), None)
    assert mean_with_t_interval(values, None) == alone
    assert mean_with_t_interval(values, np.array(["", "a", "", "", "a"])) == pytest.approx(alone)


def test_of_one_image_or_patient_there_is_no_t_interval():
    assert mean_with_t_interval(np.full(3, np.nan), None) == {"value": None, "low": None, "high": None}
    assert mean_with_t_interval(np.array([0.5, np.nan]), None) == {"value": 0.5, "low": None, "high": None}
    one = mean_with_t_interval(np.array([0.2, 0.4]), np.array(["a", "a"]))
    assert one == {"value": pytest.approx(0.3), "low": None, "high": None}


def test_of_few_patients_it_holds_the_truth_as_often_as_it_says():
    rng, patients = np.random.default_rng(3), np.repeat([f"p{k}" for k in range(5)], 3)
    held = 0
    for _ in range(400):
        values = np.repeat(rng.normal(size=5), 3) + rng.normal(size=15)
        found = mean_with_t_interval(values, patients)
        held += found["low"] <= 0 <= found["high"]
    assert stats.binomtest(held, 400, 0.95).pvalue > 0.01
