"""Means, intervals, ranks and tests over data sets, against scipy, scikit-learn and simulation."""

from dataclasses import replace

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
from stillroom.evaluation.effective import Moved
from stillroom.task import MultiClass

NAMES = ("auc", "accuracy", "f1")
IDS = [f"i{number}" for number in range(60)]


def run(seed, *, quality=1.0, ids=IDS, patients=None):
    """A spread and what it was made from: three classes, of which the truth depends on the images alone."""
    targets = np.random.default_rng(len(ids)).integers(0, 3, len(ids))
    logits = np.random.default_rng(seed).normal(size=(len(ids), 3)) + quality * np.eye(3)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    task = MultiClass(("a", "b", "c"))
    return spread(task, probabilities, targets, ids, patients, NAMES), probabilities, targets


def made(values, moves, units=50):
    return [
        Spread("same", units, {"auc": Moved(v, np.asarray(m, float), units, units)})
        for v, m in zip(values, moves, strict=True)
    ]


def test_figures_are_scikit_learns():
    found, probabilities, targets = run(0)
    predicted = probabilities.argmax(axis=1)
    assert found.values["auc"] == pytest.approx(roc_auc_score(targets, probabilities, multi_class="ovr"))
    assert found.values["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    assert found.values["f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert found.units == 60


def test_runs_on_the_same_images_are_known_and_others_are_not():
    first, second, other = run(0)[0], run(0)[0], run(0, ids=[f"j{number}" for number in range(60)])[0]
    assert first.images == second.images != other.images


def test_whole_patients_count():
    """Thirty patients of two images each: accuracy moves as the mean of thirty shares does."""
    patients = np.repeat([f"p{number}" for number in range(30)], 2)
    found, probabilities, targets = run(0, patients=patients)
    assert found.units == 30
    shares = (probabilities.argmax(axis=1) == targets).reshape(30, 2).mean(axis=1)
    moves = found.figures["accuracy"].moves
    assert np.sqrt((moves**2).sum()) == pytest.approx(shares.std() / np.sqrt(30))


def test_where_seeds_alone_vary_the_interval_is_students_t():
    values = np.array([0.51, 0.58, 0.54])
    mean = mean_of(made(values, np.random.default_rng(0).normal(0, 1e-6, (3, 1000)), 1000), "auc")
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert mean.high - mean.low == pytest.approx(high - low, rel=0.05)


def test_where_images_alone_vary_the_interval_is_the_usual_one():
    moves = np.random.default_rng(0).normal(0, 0.02 / 100, 10_000)
    mean = mean_of(made([0.7], [moves], 10_000), "auc")
    assert (mean.low, mean.high) == pytest.approx(stats.norm.interval(0.95, 0.7, 0.02), abs=2e-3)


def test_both_parts_add_and_the_degrees_of_freedom_lie_between():
    moves = np.random.default_rng(1).normal(0, 0.02 / 50, (1, 2500)).repeat(4, axis=0)
    first = made([0.70, 0.74, 0.72, 0.76], moves, 2500)
    second = made([0.7] * 4, np.zeros((4, 2500)), 2500)
    found = difference_of(dict(enumerate(first)), dict(enumerate(second)), "auc")
    v1, v2 = np.var([0.0, 0.04, 0.02, 0.06], ddof=1) / 4, (moves[0] ** 2).sum()
    freedom = (v1 + v2) ** 2 / (v1**2 / 3 + v2**2 / 2499)
    assert 3 < freedom < 2502
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, freedom) * np.sqrt(v1 + v2), rel=0.02)
    assert (found.low + found.high) / 2 == pytest.approx(0.03)


def test_seeds_on_other_images_move_independently():
    moves = np.random.default_rng(1).normal(0, 0.02 / 50, 2500)
    same = made([0.7, 0.7], [moves, moves], 2500)
    apart = [same[0], replace(same[1], images="other")]
    widths = [found.high - found.low for found in (mean_of(spreads, "auc") for spreads in (same, apart))]
    assert widths[0] / widths[1] == pytest.approx(2**0.5, rel=0.03)


def test_the_interval_covers():
    """Seeds and images both matter: the true difference, 0, lies inside in about 95 % of experiments."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        images = rng.normal(0, 0.3, 80)  # how much easier each image is for the first system
        per_seed = images + rng.normal(0, 0.04, (3, 1)) + rng.normal(0, 0.2, (3, 80))
        moves = (per_seed - per_seed.mean(axis=1, keepdims=True)) / 80
        first, second = made(per_seed.mean(axis=1), moves, 80), made(np.zeros(3), np.zeros((3, 80)), 80)
        found = difference_of(dict(enumerate(first)), dict(enumerate(second)), "auc")
        inside += found.low <= 0 <= found.high
    assert 0.93 <= inside / 400 <= 0.995


def test_what_no_image_moves_is_its_own_interval():
    mean = mean_of(made([0.5, 0.5], np.zeros((2, 100)), 100), "auc")
    assert (mean.value, mean.sd, mean.low, mean.high, mean.seeds) == (0.5, 0.0, 0.5, 0.5, 2)


def test_an_undefined_figure_has_no_interval():
    mean = mean_of(made([0.5, np.nan], np.zeros((2, 100))), "auc")
    assert np.isnan(mean.value)
    assert mean.low is None
    assert verdict(mean) == "not compared"


def test_the_interval_stays_within_what_the_figure_can_be():
    mean = mean_of(made([0.99, 0.96], np.random.default_rng(0).normal(0, 0.05 / 50**0.5, (2, 50))), "auc")
    assert 0.97 < mean.high <= 1.0


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
    base = rng.normal(0, 0.05 / 4000**0.5, 4000)
    moved = [Moved(0.72, base + rng.normal(0, 0.002 / 4000**0.5, 4000), 4000, 4000), Moved(0.70, base, 4000, 4000)]
    first, second = ({0: Spread("same", 4000, {"auc": one})} for one in moved)
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
