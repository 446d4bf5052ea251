import json

import numpy as np
import pytest
from scipy.stats import beta, betabinom

from stillroom.errors import RunError, UsageError
from stillroom.evaluation.conformal import (
    ConformalRule,
    conformal_quantile,
    coverage_report,
    fit_conformal,
    in_percent,
)
from stillroom.task import MultiClass, MultiLabel

TWO, FIVE = MultiClass(("healthy", "ill")), MultiClass(tuple("abcde"))
LABELS = MultiLabel(("x", "y", "z"))
TASKS = {"two": TWO, "five": FIVE, "labels": LABELS}
WANTED = {"patients": None}


ALWAYS = ConformalRule(0.9, False, np.array([0.5, 0.5]), 1000)
CERTAIN = np.tile([0.0, 9.0], (40, 1)), np.ones(40, dtype=int)


def images(task, count, seed=0, signal=1.5):
    """Logits that know something about their targets; for multi-label of labels that are rare."""
    generator = np.random.default_rng(seed)
    classes = len(task.classes)
    noise = generator.normal(size=(count, classes))
    if task.exclusive:
        targets = generator.integers(classes, size=count)
        return noise + signal * task.one_hot(targets), targets
    targets = (generator.random((count, classes)) < 0.2).astype(np.uint8)
    return noise + signal * (targets - 1.0), targets


def mapie_sets(task, logits, targets, new, coverage):
    """The sets of MAPIE's LAC score, fed with our probabilities."""
    classification = pytest.importorskip("mapie.classification", reason="MAPIE, the oracle, is not installed")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Softmax(ClassifierMixin, BaseEstimator):
        classes_ = np.arange(len(task.classes))

        def __sklearn_is_fitted__(self):
            return True

        def predict_proba(self, features):
            exponentials = np.exp(features - features.max(axis=1, keepdims=True))
            return exponentials / exponentials.sum(axis=1, keepdims=True)

        def predict(self, features):
            return features.argmax(axis=1)

    rule = classification.SplitConformalClassifier(Softmax(), confidence_level=coverage, conformity_score="lac")
    rule.conformalize(logits, targets)
    return rule.predict_set(new)[1][:, :, 0]


@pytest.mark.parametrize("task", [TWO, FIVE], ids=["two", "five"])
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sets_are_those_of_mapie(task, coverage, seed):
    logits, targets = images(task, 150 + seed, seed)
    new, _ = images(task, 400, seed + 10)
    rule = fit_conformal(task, logits, targets, coverage=coverage, class_conditional=False)
    ours = rule.sets(task, new, allow_empty=True)
    assert np.array_equal(ours, mapie_sets(task, logits, targets, new, coverage))
    assert 0 < ours.mean() < 1


@pytest.mark.filterwarnings("ignore:WARNING. your conformalization dataset has less labels")
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_class_conditional_sets_are_those_of_mapie_fitted_on_each_class_alone(coverage):
    logits, targets = images(FIVE, 400)
    new, _ = images(FIVE, 200, seed=5)
    ours = fit_conformal(FIVE, logits, targets, coverage=coverage, class_conditional=True).sets(
        FIVE, new, allow_empty=True
    )
    for k in range(5):
        own = targets == k
        assert np.array_equal(ours[:, k], mapie_sets(FIVE, logits[own], targets[own], new, coverage)[:, k])


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("class_conditional", [False, True])
def test_thresholds_equal_a_loop_over_classes_states_and_images(task, class_conditional):
    logits, targets = images(task, 300, seed=1)
    rule = fit_conformal(task, logits, targets, coverage=0.85, class_conditional=class_conditional)
    cells = {}
    for row, target in zip(logits, targets, strict=True):
        if task.exclusive:
            scores = {target: -np.log(np.exp(row[target]) / np.exp(row).sum())}
        else:
            scores = {(k, s): np.log1p(np.exp(-row[k] if s else row[k])) for k, s in enumerate(target)}
        for cell, score in scores.items():
            shared = () if task.exclusive else cell[0]
            cells.setdefault(cell if class_conditional else shared, []).append(score)
    for cell in np.ndindex(rule.thresholds.shape):
        key = cell[0] if task.exclusive else cell
        drawn = cells[key if class_conditional else (() if task.exclusive else cell[0])]
        # Smallest score with at least (n + 1) 85 % of the scores at or below it.
        expected = min(s for s in drawn if sum(other <= s for other in drawn) >= 0.85 * (len(drawn) + 1))
        assert rule.thresholds[cell] == pytest.approx(expected)
    assert rule.images == 300


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("class_conditional", [False, True])
def test_sets_are_what_scores_no_more_than_the_threshold_and_what_is_decided_for(task, class_conditional):
    logits, targets = images(task, 200, signal=0.5)
    rule = fit_conformal(task, logits, targets, coverage=0.3, class_conditional=class_conditional)
    bare, full = rule.sets(task, logits, allow_empty=True), rule.sets(task, logits)
    for row, (empty, filled) in enumerate(zip(bare, full, strict=True)):
        if task.exclusive:
            chances = np.exp(logits[row]) / np.exp(logits[row]).sum()
            best = [(int(chances.argmax()),)]
        else:
            present = 1 / (1 + np.exp(-logits[row]))
            chances = np.stack([1 - present, present], axis=1)
            best = [(k, int(present[k] > 0.5)) for k in range(3)]
        for cell in np.ndindex(chances.shape):
            assert empty[cell] == (-np.log(chances[cell]) <= rule.thresholds[cell] + 1e-12)
            assert filled[cell] == (empty[cell] or cell in best)
    assert (bare.sum(axis=-1) == 0).any()
    assert (full.sum(axis=-1) > 0).all()


def test_quantile_is_an_order_statistic_whatever_floating_point_makes_of_the_rank():
    scores = np.random.default_rng(0).permutation(99) + 1.0
    # 100 * 0.07 and 100 * 0.29 are not whole numbers in floating point.
    for percent in (1, 7, 29, 50, 57, 90, 99):
        assert conformal_quantile(scores, percent / 100) == percent
    assert conformal_quantile(scores, 0.991) == np.inf
    assert conformal_quantile(scores[:0], 0.5) == np.inf


@pytest.mark.parametrize("class_conditional", [False, True])
def test_new_images_are_covered_as_often_as_promised(class_conditional):
    generator = np.random.default_rng(0)
    targets, truth = np.repeat([0, 1], 30), np.repeat([0, 1], 10)
    hits = np.zeros((400, 2))
    for trial in hits:
        if not class_conditional:
            targets, truth = generator.integers(2, size=60), generator.integers(2, size=20)
        logits, new = (
            generator.normal(size=(len(classes), 2)) + 0.7 * TWO.one_hot(classes) + [0.5, 0]
            for classes in (targets, truth)
        )
        rule = fit_conformal(TWO, logits, targets, coverage=0.8, class_conditional=class_conditional)
        covered = rule.sets(TWO, new, allow_empty=True)[np.arange(20), truth]
        trial[:] = [covered[truth == k].sum() for k in (0, 1)]
    # The number covered is beta-binomial: 60 images leave rank 49 of 61, 30 of one class rank 25 of 31.
    law = betabinom(10, 25, 6) if class_conditional else betabinom(20, 49, 12)
    for counts in hits.T if class_conditional else [hits.sum(axis=1)]:
        assert abs(counts.mean() - law.mean()) < 3.5 * np.sqrt(law.var() / 400)
        assert counts.var() == pytest.approx(law.var(), rel=0.3)


def test_every_label_and_state_is_covered_as_often_as_promised():
    logits, targets = images(LABELS, 4000, signal=1.0)
    new, truth = images(LABELS, 20_000, seed=1, signal=1.0)
    for class_conditional in (False, True):
        sets = fit_conformal(LABELS, logits, targets, coverage=0.9, class_conditional=class_conditional).sets(
            LABELS, new, allow_empty=True
        )
        held = np.where(truth > 0, sets[..., 1], sets[..., 0])
        for k in range(3):
            assert held[:, k].mean() == pytest.approx(0.9, abs=0.015)
            present = held[truth[:, k] > 0, k].mean()
            if class_conditional:
                assert present == pytest.approx(0.9, abs=0.04)
            else:
                assert present < 0.85


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_few_images_put_everything_into_the_set(task):
    logits, targets = images(task, 8)
    rule = fit_conformal(task, logits, targets, coverage=0.9, class_conditional=False)
    assert np.isinf(rule.thresholds).all()
    new, truth = images(task, 40, seed=1)
    assert rule.sets(task, new * 100, allow_empty=True).all()
    report = coverage_report(task, rule, new, truth, **WANTED)
    assert report["coverage"]["value"] == 1
    assert report["accuracy_of_singletons"] == {"value": None, "low": None, "high": None}
    assert any("at least 9 are needed" in note and "every set is everything" in note for note in report["notes"])
    assert any("No set has exactly one member" in note for note in report["notes"])
    assert report["mean_size"]["low"] < report["mean_size"]["high"]
    logits, targets = images(task, 9)
    assert np.isfinite(fit_conformal(task, logits, targets, coverage=0.9, class_conditional=False).thresholds).all()


def test_a_class_of_few_images_is_in_every_set_and_named():
    logits, targets = images(FIVE, 300)
    kept = (targets != 2) | (np.cumsum(targets == 2) <= 3)
    rule = fit_conformal(FIVE, logits[kept], targets[kept], coverage=0.9, class_conditional=True)
    assert np.isinf(rule.thresholds).tolist() == [False, False, True, False, False]
    assert rule.sets(FIVE, logits)[:, 2].all()
    notes = coverage_report(FIVE, rule, logits, targets, **WANTED)["notes"]
    assert "Too few calibration images (at least 9 are needed), hence in every set: c." in notes

    logits, targets = images(LABELS, 300)
    targets[:, 1] = 0
    rule = fit_conformal(LABELS, logits, targets, coverage=0.9, class_conditional=True)
    notes = coverage_report(LABELS, rule, logits, targets, **WANTED)["notes"]
    assert "Too few calibration images (at least 9 are needed), hence in every set: y (present)." in notes
    assert "No image is of class y: whether sets would hold it is not known." in notes


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("class_conditional", [False, True])
def test_report_counts_what_the_sets_hold(task, class_conditional):
    logits, targets = images(task, 200)
    rule = fit_conformal(task, logits, targets, coverage=0.95, class_conditional=class_conditional)
    new, truth = images(task, 150, seed=3)
    report = coverage_report(task, rule, new, truth, **WANTED)
    sets = rule.sets(task, new)
    # Every question with its answer, as (class asked of, members of the set, truth held, truth).
    if task.exclusive:
        asked = [(t, int(s.sum()), bool(s[t]), 1) for s, t in zip(sets, truth, strict=True)]
    else:
        asked = [
            (k, int(sets[i, k].sum()), bool(sets[i, k, truth[i, k]]), truth[i, k]) for i in range(150) for k in range(3)
        ]
    singles = [held for _, size, held, _ in asked if size == 1]
    assert report["coverage"]["value"] == pytest.approx(np.mean([held for _, _, held, _ in asked]))
    assert report["mean_size"]["value"] == pytest.approx(np.mean([size for _, size, _, _ in asked]))
    assert report["singletons"]["value"] == pytest.approx(len(singles) / len(asked))
    assert report["accuracy_of_singletons"]["value"] == pytest.approx(np.mean(singles))
    for k, name in enumerate(task.classes):
        own = [question for question in asked if question[0] == k]
        part = report["per_class"][name]
        assert part["coverage"]["value"] == pytest.approx(np.mean([held for _, _, held, _ in own]))
        assert part["size"]["value"] == pytest.approx(np.mean([size for _, size, _, _ in own]))
        assert part["support"] == (task.one_hot(truth)[:, k] > 0).sum()
        if not task.exclusive:
            present = [held for _, _, held, state in own if state]
            assert part["coverage_present"]["value"] == pytest.approx(np.mean(present))
    assert (report["wanted"], report["class_conditional"], report["calibration_images"]) == (
        0.95,
        class_conditional,
        200,
    )
    for figure in ("coverage", "mean_size", "singletons", "accuracy_of_singletons"):
        assert report[figure]["low"] <= report[figure]["value"] <= report[figure]["high"]
        assert report[figure]["low"] < report[figure]["high"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_intervals_are_those_of_shares_of_images_and_of_patients():
    report = coverage_report(TWO, ALWAYS, *CERTAIN, patients=None)
    shown = [(report[name]["low"], report[name]["high"]) for name in ("coverage", "singletons", "mean_size")]
    # Of 40 of 40: between the exact interval and that of half its caution.
    exact, mid = 0.025 ** (1 / 40), 0.05 ** (1 / 40)
    assert exact < shown[0][0] < mid
    assert shown[0][1] == 1
    assert shown[1] == shown[0]
    assert shown[2] == pytest.approx((1, 2 - shown[0][0]))

    patients = np.repeat(np.arange(10), 4).astype(str)
    together = coverage_report(TWO, ALWAYS, *CERTAIN, patients=patients)["coverage"]
    # Student's quantile of so few patients makes it wider.
    assert 0.025 ** (1 / 10) - 0.05 < together["low"] < 0.05 ** (1 / 10)


@pytest.mark.parametrize(
    ("wrong", "claim"),
    [
        (60, "at least the 90 % that was promised."),
        (95, "which agrees with the 90 % that was promised, but does not prove it."),
        (105, "which agrees with the 90 % that was promised, but does not prove it."),
        (140, "below what was promised: 90 %."),
    ],
)
def test_statement_claims_no_more_than_the_interval(wrong, claim):
    # Of 1000 images of class ill this many look healthy, and every set has one member.
    logits = np.where(np.arange(1000)[:, None] < wrong, [9.0, 0.0], [0.0, 9.0])
    rule = ConformalRule(0.9, False, np.array([0.5, 0.5]), 1000)
    report = coverage_report(TWO, rule, logits, np.ones(1000, dtype=int), **WANTED)
    low, high = report["coverage"]["low"], report["coverage"]["high"]
    truths = [low >= 0.9, low < 0.9 <= high, high < 0.9]
    assert claim.startswith(("at least", "which agrees", "below")[truths.index(True)])
    assert report["coverage"]["value"] == 1 - wrong / 1000
    assert report["statement"].startswith(
        f"The sets hold the true class of {100 - wrong / 10:.1f} % of the images (95 %"
    )
    assert report["statement"].endswith(f" %), {claim}")


def test_statement_without_an_interval_claims_nothing():
    rule = fit_conformal(LABELS, *images(LABELS, 50), coverage=0.9, class_conditional=False)
    report = coverage_report(LABELS, rule, *images(LABELS, 50, seed=1), patients=np.full(50, "one"))
    assert report["coverage"]["low"] is None
    assert "pairs of image and label" in report["statement"]
    assert report["statement"].endswith("no interval could be computed, so nothing can be claimed.")


@pytest.mark.parametrize("class_conditional", [False, True])
def test_classes_that_are_covered_too_rarely_are_named(class_conditional):
    logits, targets = images(FIVE, 2000)
    rule = fit_conformal(FIVE, logits, targets, coverage=0.9, class_conditional=class_conditional)
    new, truth = images(FIVE, 2000, seed=1)
    new[truth == 3, 3] -= 2
    report = coverage_report(FIVE, rule, new, truth, **WANTED)
    (note,) = [note for note in report["notes"] if note.startswith("Covered less often than 90 %")]
    assert "d (" in note
    assert "a (" not in note
    expected = "below what was promised for every class" if class_conditional else "not made for every class"
    assert note.endswith(f"{expected}.")
    # A rare label is where a promise over both states hides what matters.
    rule = fit_conformal(LABELS, *images(LABELS, 2000), coverage=0.9, class_conditional=False)
    notes = coverage_report(LABELS, rule, *images(LABELS, 2000, seed=1), **WANTED)["notes"]
    assert any(note.startswith("Where the label is present, covered less often") for note in notes)


def test_notes_say_what_the_promise_rests_on():
    logits, targets = images(TWO, 100)
    rule = fit_conformal(TWO, logits, targets, coverage=0.9, class_conditional=False)
    new, truth = images(TWO, 60, seed=1)
    notes = coverage_report(TWO, rule, new, truth, **WANTED)["notes"]
    assert notes[-1].startswith("The validation images also chose the epoch")
    low, high = beta(91, 10).interval(0.95)
    assert any(f"{100 * low:.1f} to {100 * high:.1f} %" in note for note in notes)
    assert not any("several images of a patient" in note for note in notes)
    patients = np.repeat(np.arange(20).astype(str), 3)
    report = coverage_report(TWO, rule, new, truth, patients=patients)
    assert any("several images of a patient" in note for note in report["notes"])


def test_percent_stays_on_its_side_of_the_bound():
    assert in_percent(0.85, 0.9) == "85.0"
    assert in_percent(0.89996, 0.9) == "89.996"
    assert in_percent(0.9, 0.9) == "90.0"
    assert in_percent(0.90004, 0.9) == "90.004"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("class_conditional", [False, True])
def test_a_rule_survives_json(task, class_conditional):
    logits, targets = images(task, 30)
    rule = fit_conformal(task, logits, targets, coverage=0.9, class_conditional=class_conditional)
    assert np.isinf(rule.thresholds).any() == (class_conditional and task is not TWO)
    stored = json.dumps(rule.to_dict(), allow_nan=False)
    again = ConformalRule.from_dict(json.loads(stored))
    assert np.array_equal(again.thresholds, rule.thresholds)
    assert (again.coverage, again.class_conditional, again.images) == (0.9, class_conditional, 30)
    new, _ = images(task, 50, seed=1)
    assert np.array_equal(again.sets(task, new), rule.sets(task, new))


def test_certain_logits_have_finite_scores():
    logits = np.array([[2000.0, 0.0], [0.0, 2000.0]] * 30)
    rule = fit_conformal(TWO, logits, np.zeros(60, dtype=int), coverage=0.9, class_conditional=False)
    assert np.isfinite(rule.thresholds).all()
    assert rule.sets(TWO, logits).all()


def test_what_does_not_fit_is_refused():
    logits, targets = images(FIVE, 40)
    with pytest.raises(UsageError, match="coverage"):
        fit_conformal(FIVE, logits, targets, coverage=1.0, class_conditional=False)
    with pytest.raises(UsageError, match="no image"):
        fit_conformal(FIVE, logits[:0], targets[:0], coverage=0.9, class_conditional=False)
    rule = fit_conformal(FIVE, logits, targets, coverage=0.9, class_conditional=False)
    with pytest.raises(UsageError, match="fit it anew"):
        rule.sets(TWO, logits[:, :2])
    broken = logits.copy()
    broken[7, 2] = np.nan
    for failing in (
        lambda: fit_conformal(FIVE, broken, targets, coverage=0.9, class_conditional=False),
        lambda: rule.sets(FIVE, broken),
        lambda: coverage_report(FIVE, rule, broken, targets, **WANTED),
    ):
        with pytest.raises(RunError, match="image 7"):
            failing()
