"""Thresholds: exact limits by enumeration, promises by simulation, figures by counting."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from stillroom.errors import UsageError
from stillroom.evaluation.operating_points import (
    OperatingPoint,
    fit_points,
    flagged,
    lowest_kept,
    missing_points,
    needed,
    points_report,
    wishes,
)
from stillroom.task import MultiClass, MultiLabel

BINARY, CLASSES = MultiClass(("healthy", "ill")), MultiClass(tuple("abc"))
GRADES, LABELS = MultiClass(("none", "mild", "severe"), ordinal=True), MultiLabel(("x", "y"))
SENSITIVE, SPECIFIC = (0, "sensitivity", 0.9), (0, "specificity", 0.9)


def two(chance):
    return np.column_stack([1 - chance, chance])


def images(count=400, seed=0, share=0.4):
    rng = np.random.default_rng(seed)
    targets = (rng.random(count) < share).astype(np.int64)
    return two(norm.cdf(rng.normal(size=count) + 1.5 * targets - 0.75)), targets


@pytest.mark.parametrize("wanted", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [10, 59, 60, 137, 500])
def test_the_limit_is_that_of_the_exact_one_sided_interval(count, wanted):
    least, promised = lowest_kept(np.arange(count, dtype=float), float(count), wanted)

    def sure(missed):  # Clopper and Pearson's lower end of 95 %, one-sided
        return binomtest(count - missed, count).proportion_ci(0.90, "exact").low >= wanted

    missed = int(least)
    if promised < wanted:
        assert missed == 0
        assert promised == pytest.approx(binomtest(count, count).proportion_ci(0.90, "exact").low)
        assert count < needed(wanted)
    else:
        assert sure(missed)
        assert not sure(missed + 1)


def test_the_least_number_of_images_is_the_one_at_which_a_promise_begins():
    assert needed(0.95) == 59  # Wilks
    for wanted in (0.5, 0.8, 0.9, 0.95, 0.99):
        assert lowest_kept(np.arange(needed(wanted), dtype=float), float(needed(wanted)), wanted)[1] == wanted
        assert lowest_kept(np.arange(needed(wanted), dtype=float), needed(wanted) - 1.0, wanted)[1] < wanted


@pytest.mark.parametrize("each", [1, 4])
def test_the_true_sensitivity_is_what_was_promised_in_95_of_100_validation_sets(each):
    rng, count, kept, plain = np.random.default_rng(1), 100, [], []
    for _ in range(600):
        own, shared = rng.normal(size=count), np.repeat(rng.normal(size=count // each), each)
        scores = own if each == 1 else np.sqrt(0.95) * shared + np.sqrt(0.05) * own
        patients = np.repeat(np.arange(count // each), each).astype(str)
        both = norm.cdf(np.concatenate([scores, rng.normal(size=count) - 1]))
        (point,) = fit_points(
            BINARY, two(both), np.repeat([1, 0], count), np.concatenate([patients, np.full(count, "")]), [SENSITIVE]
        )
        kept.append(norm.sf(norm.ppf(point.threshold)) >= point.promised)
        plain.append(norm.sf(np.sort(scores)[10]) >= 0.9)
    assert np.mean(kept) > 0.93
    assert np.mean(plain) < 0.6  # what merely reaches it on validation


def test_patients_count_and_not_their_images():
    rng = np.random.default_rng(2)
    scores, targets = two(rng.uniform(0.1, 0.9, size=200)), np.repeat([0, 1], 100)
    patients = np.repeat(np.arange(40), 5).astype(str)
    (alone,) = fit_points(BINARY, scores, targets, None, [SENSITIVE])
    (grouped,) = fit_points(BINARY, scores, targets, patients, [SENSITIVE])
    assert (alone.images, alone.units, alone.promised) == (100, 100, 0.9)
    assert (grouped.images, grouped.units) == (100, 20)
    assert grouped.promised == pytest.approx(0.05 ** (1 / 20))
    assert grouped.threshold < alone.threshold


def test_a_threshold_lies_between_two_validation_images_and_rounding_moves_none_across():
    scores, targets = images()
    points = fit_points(BINARY, scores, targets, None, [SENSITIVE, SPECIFIC])
    exact = flagged(BINARY, scores, points)
    assert (flagged(BINARY, scores.astype(np.float32), points) == exact).all()
    assert (exact[targets == 1, 0].mean(), (~exact[targets == 0, 1]).mean()) > (0.9, 0.9)
    for point in points:
        nearest = np.sort(np.abs(scores[:, 1] - point.threshold))[:2]
        assert nearest[0] == pytest.approx(nearest[1])


def test_a_specificity_is_the_sensitivity_for_the_other_class():
    scores, targets = images(seed=3)
    (specific,) = fit_points(BINARY, scores, targets, None, [SPECIFIC])
    (turned,) = fit_points(BINARY, scores[:, ::-1], 1 - targets, None, [SENSITIVE])
    assert specific.threshold == pytest.approx(1 - turned.threshold)
    assert (specific.images, specific.promised) == (turned.images, turned.promised)


@pytest.mark.parametrize("tied", [0.0, 0.3, 1.0])
def test_equal_probabilities_are_flagged_or_cleared_together(tied):
    scores, targets = two(np.full(40, tied)), np.tile([0, 1], 20)
    points = fit_points(BINARY, scores, targets, None, [SENSITIVE, SPECIFIC])
    assert flagged(BINARY, scores, points).tolist() == [[True, False]] * 40


def test_a_finding_that_validation_does_not_show_has_no_threshold():
    rng = np.random.default_rng(4)
    targets = np.stack([rng.integers(0, 2, 50), np.zeros(50, dtype=int)], axis=1)
    wanted = wishes(LABELS, ("auto",), ("y=0.9",))
    points = fit_points(LABELS, rng.random((50, 2)), targets, None, wanted)
    assert [point.name for point in points] == ["x at sensitivity 0.95", "y at specificity 0.9"]
    (note,) = missing_points(LABELS, points, wanted)
    assert note.endswith("y at sensitivity 0.95.")


def test_too_few_images_are_said_with_what_they_do_promise():
    scores, targets = images(count=60)
    points = fit_points(BINARY, scores, targets, None, [(0, "sensitivity", 0.95)])
    said = points_report(BINARY, points, scores, targets, None)
    assert said["points"][0]["figures"]["sensitivity"]["value"] == 1
    positives = targets.sum()
    assert said["notes"] == [
        "Too few validation images with the finding to promise sensitivity 0.95, for which at least 59 are needed; the "
        f"threshold is set so that all of them are flagged: ill ({positives} images; surely reached is "
        f"{np.floor(100 * 0.05 ** (1 / positives)) / 100:.2f}).",
        "The validation images also chose the epoch, so the promise is approximate.",
    ]


def test_figures_are_those_of_the_counts():
    scores, targets = images(seed=5)
    point = OperatingPoint("ill", "sensitivity", 0.9, 0.42, 0.9, 80, 80.0)
    (told,) = points_report(BINARY, [point], scores, targets, None)["points"]
    raised, ill = scores[:, 1] >= 0.42, targets == 1
    wanted = {
        "sensitivity": raised[ill].mean(), "specificity": (~raised)[~ill].mean(), "ppv": ill[raised].mean(),
        "npv": (~ill)[~raised].mean(), "flagged": raised.mean(),
    }  # fmt: skip
    assert {name: figure["value"] for name, figure in told["figures"].items()} == pytest.approx(wanted)
    hits = int((raised & ill).sum())
    exact = binomtest(hits, int(ill.sum())).proportion_ci(0.95, "exact")
    wilson = binomtest(hits, int(ill.sum())).proportion_ci(0.95, "wilson")
    low, high = told["figures"]["sensitivity"]["low"], told["figures"]["sensitivity"]["high"]
    assert exact.low <= low <= wilson.low + 0.02
    assert wilson.high - 0.02 <= high <= exact.high
    assert (told["positives"], told["negatives"], told["share"]) == (ill.sum(), (~ill).sum(), ill.mean())


def test_the_sentence_claims_what_the_interval_shows():
    scores, targets = images(seed=6, count=600)

    def said(threshold):
        point = OperatingPoint("ill", "sensitivity", 0.9, threshold, 0.9, 80, 80.0)
        return points_report(BINARY, [point], scores, targets, None)["points"][0]["statement"]

    assert "at least the 90 % that was wanted" in said(0.05)
    assert "below the 90 % that was wanted" in said(0.9)
    close = float(np.quantile(scores[targets == 1, 1], 0.1))
    assert "agrees with the 90 % that was wanted, but does not prove it" in said(close)


def test_patients_widen_what_is_found():
    scores, targets = images(seed=7)
    order = np.argsort(targets, kind="stable")
    point = OperatingPoint("ill", "sensitivity", 0.9, 0.42, 0.9, 80, 80.0)
    doubled = [np.repeat(part[order], 4, axis=0) for part in (scores, targets)]
    patients = np.repeat(np.arange(len(targets)), 4).astype(str)
    alone = points_report(BINARY, [point], scores[order], targets[order], None)["points"][0]["figures"]
    copies = points_report(BINARY, [point], *doubled, patients)["points"][0]["figures"]
    for name, figure in alone.items():
        assert copies[name]["value"] == pytest.approx(figure["value"])
        assert copies[name]["high"] - copies[name]["low"] == pytest.approx(figure["high"] - figure["low"], rel=0.02)


def test_grades_are_flagged_from_their_sum():
    rng = np.random.default_rng(8)
    probabilities, targets = rng.dirichlet(np.ones(3), 300), rng.integers(0, 3, 300)
    points = fit_points(GRADES, probabilities, targets, None, wishes(GRADES, ("mild=0.9",), ()))
    assert [point.name for point in points] == ["mild or above at sensitivity 0.9"]
    over = probabilities[:, 1] + probabilities[:, 2] >= points[0].threshold
    assert (flagged(GRADES, probabilities, points)[:, 0] == over).all()
    assert binom.cdf((~over[targets > 0]).sum(), (targets > 0).sum(), 0.1) <= 0.05


def test_what_is_wanted_where_nothing_is_said():
    assert wishes(BINARY, ("auto",), ()) == [(0, "sensitivity", 0.95)]
    assert wishes(LABELS, ("auto",), ()) == [(0, "sensitivity", 0.95), (1, "sensitivity", 0.95)]
    assert wishes(CLASSES, ("auto",), ()) == wishes(GRADES, ("auto",), ()) == wishes(BINARY, ("none",), ()) == []


def test_a_class_may_be_given_a_share_of_its_own():
    wanted = wishes(CLASSES, ("0.8", "b=0.99"), ("c=0.9",))
    assert wanted == [
        (0, "sensitivity", 0.8), (1, "sensitivity", 0.99), (2, "sensitivity", 0.8), (2, "specificity", 0.9),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no class 'd'"):
        wishes(CLASSES, ("d=0.9",), ())


def test_a_point_goes_to_json_and_back():
    point = OperatingPoint("ill", "specificity", 0.9, 0.4, 0.85, 20, 17.5)
    assert OperatingPoint.from_dict(point.to_dict() | {"figures": {}}) == point
    assert replace(point, kind="sensitivity", wanted=0.95).name == "ill at sensitivity 0.95"
