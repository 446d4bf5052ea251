import numpy as np
import pytest
from scipy.stats import binomtest

from stillroom.evaluation.calibration import (
    calibration_gaps,
    calibration_notes,
    expected_calibration_error,
    fit_temperature,
    reliability,
    uninformative,
)
from stillroom.task import MultiClass, MultiLabel

TWO, FIVE = MultiClass(("a", "b")), MultiClass(tuple("abcde"))
LABELS = MultiLabel(("x", "y", "z"))


def calibrated(task, images, seed=0):
    """Logits and targets drawn from exactly the probabilities that the logits state."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(images, len(task.classes))) * 1.5
    probabilities = task.probabilities(logits)
    if task.exclusive:
        targets = (generator.random((images, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
        return logits, np.minimum(targets, len(task.classes) - 1)
    return logits, (generator.random(probabilities.shape) < probabilities).astype(np.uint8)


@pytest.mark.parametrize("task", [TWO, FIVE, LABELS], ids=["two", "five", "labels"])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_temperature_undoes_a_known_distortion(task, sharpness):
    logits, targets = calibrated(task, 4000)
    assert fit_temperature(task, logits * sharpness, targets) == pytest.approx(sharpness, rel=0.1)


def test_temperature_minimises_the_likelihood_over_a_grid():
    logits, targets = calibrated(FIVE, 300, seed=2)
    found = fit_temperature(FIVE, logits * 2, targets)
    grid = np.geomspace(0.05, 20, 4000)
    best = grid[np.argmin([FIVE.nll(logits * 2, targets, t) for t in grid])]
    assert found == pytest.approx(best, rel=2e-3)


def test_temperature_stays_in_bounds_for_a_useless_model():
    generator = np.random.default_rng(0)
    targets = generator.integers(2, size=200)
    wrong = 8.0 * (1 - TWO.one_hot(targets))
    assert fit_temperature(TWO, wrong, targets) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_separable_labels_leave_the_probabilities_alone(scale):
    targets = np.arange(50) % 5
    assert fit_temperature(FIVE, scale * FIVE.one_hot(targets).astype(float), targets) == 1.0


def test_too_few_images_or_one_class_leave_the_probabilities_alone():
    logits, targets = calibrated(TWO, 9)
    assert fit_temperature(TWO, logits * 5, targets) == 1.0
    logits, targets = calibrated(TWO, 100)
    assert fit_temperature(TWO, logits * 5, np.ones_like(targets)) == 1.0


@pytest.mark.parametrize("task", [TWO, FIVE], ids=["two", "five"])
@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_error_equals_torchmetrics(task, bins):
    classification = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    logits, targets = calibrated(task, 500)
    probabilities = task.probabilities(logits * 2)
    theirs = classification.multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(targets), len(task.classes), n_bins=bins, norm="l1"
    )
    assert expected_calibration_error(task, probabilities, targets, bins) == pytest.approx(float(theirs), abs=1e-6)


def test_multi_label_calibration_error_pools_every_label_as_torchmetrics_does():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    logits, targets = calibrated(LABELS, 400)
    probabilities = LABELS.probabilities(logits * 2)
    theirs = classification.binary_calibration_error(
        torch.tensor(probabilities.ravel()), torch.tensor(targets.ravel()), n_bins=15, norm="l1"
    )
    assert expected_calibration_error(LABELS, probabilities, targets) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_error_by_hand():
    probabilities = np.array([[0.1, 0.9], [0.1, 0.9], [0.4, 0.6], [1.0, 0.0]])
    targets = np.array([1, 0, 1, 0])
    # Bins of tenths: 0.9 twice with one right, 0.6 right, 1.0 right and in the last bin with the two of 0.9.
    expected = (abs(0.9 + 0.9 + 1.0 - 2) + abs(0.6 - 1)) / 4
    assert expected_calibration_error(TWO, probabilities, targets, bins=10) == pytest.approx(expected)


def test_gaps_of_images_add_up_to_the_error():
    logits, targets = calibrated(LABELS, 50)
    gaps, pairs = calibration_gaps(LABELS, LABELS.probabilities(logits), targets)
    assert gaps.shape == (50, 15)
    assert pairs == 3
    confidence, outcome = LABELS.confidence(LABELS.probabilities(logits), targets)
    assert gaps.sum(axis=1) == pytest.approx((confidence - outcome).reshape(50, 3).sum(axis=1))


@pytest.mark.parametrize("task", [FIVE, LABELS], ids=["five", "labels"])
def test_reliability_bins_are_those_of_the_error(task):
    logits, targets = calibrated(task, 300)
    probabilities = task.probabilities(logits * 3)
    rows = reliability(task, probabilities, targets, bins=10)
    pairs = sum(row["count"] for row in rows)
    assert pairs == (300 if task.exclusive else 900)
    assert all(row["count"] > 0 and row["low"] <= row["confidence"] <= row["high"] for row in rows)
    assert [row["low"] for row in rows] == sorted(row["low"] for row in rows)
    error = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / pairs
    assert error == pytest.approx(expected_calibration_error(task, probabilities, targets, bins=10))
    for row in rows:
        interval = binomtest(round(row["accuracy"] * row["count"]), row["count"]).proportion_ci(method="wilson")
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((interval.low, interval.high))


def test_empty_bins_are_left_out():
    rows = reliability(TWO, np.array([[0.02, 0.98], [0.45, 0.55]]), np.array([1, 1]), bins=10)
    assert [(row["low"], row["count"]) for row in rows] == [(0.5, 1), (0.9, 1)]


def test_outputs_without_information_drive_the_temperature_to_its_bound_and_are_remarked():
    task, rng = MultiClass(("a", "b")), np.random.default_rng(0)
    targets = np.arange(200) % 2
    logits = rng.normal(size=(200, 2)) * 10 - 10 * task.one_hot(targets)
    temperature = fit_temperature(task, logits, targets)
    assert uninformative(temperature)
    (note,) = calibration_notes({"temperature": temperature, "ece_before": 0.4, "ece_after": 0.1})
    assert "bound of 20" in note
    assert not uninformative(fit_temperature(task, rng.normal(size=(200, 2)) + 2 * task.one_hot(targets), targets))


def test_a_temperature_that_worsens_calibration_on_the_test_is_remarked():
    was = {"error": {"value": 0.031}, "verdict": "not shown"}
    now = {"error": {"value": 0.072}, "verdict": "recalibration needed"}
    (note,) = calibration_notes({"temperature": 1.5, "before": was, "after": now})
    assert "calibration error 0.031 before, 0.072 after" in note
    assert calibration_notes({"temperature": 1.5, "before": was, "after": was}) == []
    assert calibration_notes({"temperature": 1.5, "before": now, "after": now}) == []  # no doing of the temperature
    assert calibration_notes({}) == []


def test_ten_validation_images_are_enough_to_fit_a_temperature_and_nine_are_not():
    logits, targets = calibrated(TWO, 10, seed=3)
    assert fit_temperature(TWO, logits * 5, targets) != 1.0
    assert fit_temperature(TWO, logits[:9] * 5, targets[:9]) == 1.0


def test_a_reliability_bin_tells_its_edges_and_what_came_true_in_it():
    probabilities = np.array([[0.62, 0.38], [0.38, 0.62], [0.1, 0.9], [1.0, 0.0]])
    rows = reliability(TWO, probabilities, np.array([0, 0, 1, 0]), bins=10)
    assert [(row["low"], row["high"], row["count"]) for row in rows] == [(0.6, 0.7, 2), (0.9, 1.0, 2)]
    assert [row["accuracy"] for row in rows] == [0.5, 1.0]
    assert [row["confidence"] for row in rows] == pytest.approx([0.62, 0.95])
    for row in rows:
        exact = binomtest(round(row["accuracy"] * row["count"]), row["count"]).proportion_ci(method="wilson")
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((exact.low, exact.high))
