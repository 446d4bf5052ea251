"""Means, intervals, ranks and tests over data sets, against scipy, scikit-learn and simulation."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from stillroom.bench.statistics import (
    Mean,
    Spread,
    average_ranks,
    compare_over_sets,
    difference_of,
    holm,
    mean_of,
    nemenyi,
    spread,
    verdict,
)
from stillroom.evaluation.intervals import joint_interval
from stillroom.task import MultiClass

NAMES = ("auc", "accuracy", "f1")
IDS = [f"i{number}" for number in range(60)]


def run(seed, *, quality=1.0, ids=IDS, patients=None, resamples=300):
    """A spread and what it was made from: three classes, of which the truth depends on the images alone."""
    targets = np.random.default_rng(len(ids)).integers(0, 3, len(ids))
    logits = np.random.default_rng(seed).normal(size=(len(ids), 3)) + quality * np.eye(3)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    task = MultiClass(("a", "b", "c"))
    return spread(task, probabilities, targets, ids, patients, NAMES, resamples=resamples), probabilities, targets


def made(values, resampled, units=50):
    return [
        Spread("same", units, {"auc": v}, {"auc": np.asarray(r, float)}) for v, r in zip(values, resampled, strict=True)
    ]


def test_figures_are_scikit_learns():
    found, probabilities, targets = run(0)
    predicted = probabilities.argmax(axis=1)
    assert found.values["auc"] == pytest.approx(roc_auc_score(targets, probabilities, multi_class="ovr"))
    assert found.values["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    assert found.values["f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert found.units == 60


def test_runs_on_the_same_images_are_resampled_alike_and_others_are_not():
    first, second, other = run(0)[0], run(0)[0], run(0, ids=[f"j{number}" for number in range(60)])[0]
    assert first.images == second.images != other.images
    assert np.array_equal(first.resampled["auc"], second.resampled["auc"])
    assert not np.array_equal(first.resampled["auc"], other.resampled["auc"])


def test_whole_patients_are_resampled():
    """Thirty patients of two images each: accuracy moves as the mean of thirty shares does."""
    patients = np.repeat([f"p{number}" for number in range(30)], 2)
    found, probabilities, targets = run(0, patients=patients, resamples=4000)
    assert found.units == 30
    shares = (probabilities.argmax(axis=1) == targets).reshape(30, 2).mean(axis=1)
    assert found.resampled["accuracy"].std() == pytest.approx(shares.std() / np.sqrt(30), rel=0.1)


def test_where_seeds_alone_vary_the_interval_is_students_t():
    values = np.array([0.71, 0.78, 0.74])
    low, high = joint_interval(values, np.full((3, 200), 0.7), units=1000)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values)))


def test_where_images_alone_vary_the_interval_is_the_bootstraps_normal_one():
    moved = np.random.default_rng(0).normal(0.7, 0.02, 5000)
    low, high = joint_interval(np.array([0.7]), moved[None], units=10_000)
    assert (low, high) == pytest.approx(stats.norm.interval(0.95, 0.7, moved.std(ddof=1)), abs=1e-4)


def test_both_parts_add_and_the_degrees_of_freedom_lie_between():
    values = np.array([0.70, 0.74, 0.72, 0.76])
    moved = np.random.default_rng(1).normal(0.73, 0.02, (1, 4000)).repeat(4, axis=0)
    low, high = joint_interval(values, moved, units=100)
    v1, v2 = values.var(ddof=1) / 4, moved[0].var(ddof=1)
    freedom = (v1 + v2) ** 2 / (v1**2 / 3 + v2**2 / 99)
    assert 3 < freedom < 102
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, freedom) * np.sqrt(v1 + v2))
    assert (low + high) / 2 == pytest.approx(0.73)


def test_the_interval_covers():
    """Seeds and images both matter: the true difference, 0, lies inside in about 95 % of experiments."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        images = rng.normal(0, 0.3, 80)  # how much easier each image is for the first system
        per_seed = images + rng.normal(0, 0.04, (3, 1)) + rng.normal(0, 0.2, (3, 80))
        weights = rng.multinomial(80, np.full(80, 1 / 80), 300) / 80
        low, high = joint_interval(per_seed.mean(axis=1), per_seed @ weights.T, units=80)
        inside += low <= 0 <= high
    assert 0.93 <= inside / 400 <= 0.995


def test_nothing_varies_nothing_is_claimed():
    assert joint_interval(np.array([0.5, 0.5]), np.full((2, 100), 0.5), 10) == (None, None)
    mean = mean_of(made([0.5, 0.5], np.full((2, 100), 0.5)), "auc")
    assert (mean.value, mean.sd, mean.low, mean.seeds) == (0.5, 0.0, None, 2)
    assert verdict(mean) == "no difference seen"


def test_an_undefined_figure_has_no_interval():
    mean = mean_of(made([0.5, np.nan], np.full((2, 100), 0.5)), "auc")
    assert np.isnan(mean.value)
    assert mean.low is None
    assert verdict(mean) == "not compared"


def test_the_interval_stays_within_what_the_figure_can_be():
    mean = mean_of(made([0.99, 0.96], np.random.default_rng(0).normal(0.97, 0.05, (2, 500))), "auc", (0.0, 1.0))
    assert mean.high == 1.0


def test_differences_are_paired_by_seed_and_image():
    first = {seed: run(seed, quality=1.5)[0] for seed in (0, 1, 2)}
    second = {seed: run(seed + 10)[0] for seed in (0, 1)} | {5: run(15)[0]}
    found = difference_of(first, second, "auc")
    assert found.seeds == 2
    gains = [first[seed].values["auc"] - second[seed].values["auc"] for seed in (0, 1)]
    assert found.value == pytest.approx(np.mean(gains))
    assert found.sd == pytest.approx(np.std(gains, ddof=1))
    other = {0: run(0, ids=[f"j{number}" for number in range(60)])[0]}
    assert difference_of(first, other, "auc") is None
    assert verdict(None) == "not compared"


def test_a_pair_is_told_apart_better_than_two_strangers():
    """The same system but for a small gain on every image: pairing takes out what makes images hard."""
    rng = np.random.default_rng(0)
    base = rng.normal(0.7, 0.05, 500)
    first = {0: Spread("same", 100, {"auc": 0.72}, {"auc": base + 0.02 + rng.normal(0, 0.002, 500)})}
    second = {0: Spread("same", 100, {"auc": 0.70}, {"auc": base})}
    found = difference_of(first, second, "auc")
    assert found.high - found.low < 0.01
    assert verdict(found) == "beats its control"
    assert verdict(difference_of(second, first, "auc")) == "worse"


def test_verdicts_follow_the_interval():
    assert verdict(Mean(0.01, None, -0.01, 0.03, 1)) == "no difference seen"
    assert verdict(Mean(0.01, None, 0.001, 0.03, 1)) == "beats its control"
    assert verdict(Mean(-0.01, None, -0.02, -0.001, 1)) == "worse"


# -- over data sets -------------------------------------------------------------------------------------------------
TABLE = np.random.default_rng(0).normal([0.70, 0.72, 0.75], 0.02, (8, 3))
LABELS = ["baseline", "one", "two"]


def test_ranks_by_hand():
    table = np.array([[0.9, 0.8, 0.8], [0.5, 0.7, 0.6]])
    assert average_ranks(table).tolist() == [2.0, 1.75, 2.25]


def test_tests_over_sets_are_scipys():
    found = compare_over_sets(TABLE, LABELS, [None, 0, 0])
    assert found["friedman_p"] == pytest.approx(stats.friedmanchisquare(*TABLE.T).pvalue)
    p = [stats.wilcoxon(TABLE[:, column], TABLE[:, 0]).pvalue for column in (1, 2)]
    assert [test["p"] for test in found["wilcoxon"].values()] == pytest.approx(p)
    assert set(found["wilcoxon"]) == {"one", "two"}
    assert sum(found["ranks"].values()) == pytest.approx(6)


def test_nemenyis_critical_difference_is_demsars():
    """Table 5 of Demsar 2006: q at 0.05 is 2.569 for four classifiers, 2.343 for three."""
    assert nemenyi(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert nemenyi(3, 10) == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 10)), abs=1e-3)


def test_four_data_sets_are_too_few():
    found = compare_over_sets(TABLE[:4], LABELS, [None, 0, 0])
    assert found["note"].startswith("Too few data sets for a test over them: 4, at least 6")
    assert (found["friedman_p"], found["wilcoxon"]) == (None, {})
    assert len(found["ranks"]) == 3


def test_systems_that_are_equal_everywhere():
    found = compare_over_sets(TABLE[:, [0, 0, 0]], LABELS, [None, 0, 0])
    assert found["friedman_p"] == 1.0
    assert found["wilcoxon"]["one"]["p"] == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
