"""The calibration error without the bias of chance, its test, and what is said of it."""

import importlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from stillroom.evaluation.calibration import expected_calibration_error, reliability
from stillroom.evaluation.calibration_error import calibration_error, calibration_words
from stillroom.task import MultiClass, MultiLabel

TASK = MultiClass(("benign", "malignant"))


def binary(stated: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - stated, stated])


@pytest.fixture
def proof(monkeypatch):
    """proofs/calibration.py, whose small sample this is."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "proofs")
    return importlib.import_module("calibration")


def test_a_squared_gap_is_the_mean_product_over_pairs_of_different_patients():
    generator = np.random.default_rng(0)
    stated, patients = generator.uniform(0.5, 1, 18), np.repeat(np.arange(6), 3)
    right = (generator.random(18) < stated).astype(np.int64)
    found = calibration_error(TASK, binary(stated), right, patients.astype(str))
    gap = right - stated
    products = [gap[i] * gap[j] for i, j in product(range(18), repeat=2) if patients[i] != patients[j]]
    assert found["brier"]["miscalibration"] == pytest.approx(np.mean(products))  # 18 pairs are one bin
    assert found["error"]["value"] == pytest.approx(np.sqrt(max(0, np.mean(products))))


def test_the_parts_of_the_brier_score_add_up():
    generator = np.random.default_rng(1)
    stated = generator.uniform(0.5, 1, 400)
    right = (generator.random(400) < stated**2).astype(np.int64)
    parts = calibration_error(TASK, binary(stated), right)["brier"]
    assert parts["score"] == pytest.approx(((stated - right) ** 2).mean())
    assert parts["score"] == pytest.approx(parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"])
    assert parts["uncertainty"] == pytest.approx(np.var(right, ddof=1))


@pytest.mark.parametrize(("size", "most"), [("100", 0.03), ("100 of 25", 0.04)])
def test_a_calibrated_classifier_is_called_so_where_the_usual_error_is_far_from_zero(proof, size, most):
    line = proof.studied(("accuracy .81", "calibrated", size), 150, 0)
    assert abs(line["error"]) < most
    assert line["ece"] > 0.07
    assert line["alarm"] <= 0.1
    assert line["held"] >= 0.9
    if size == "100":
        assert line["ece_if_calibrated"] == pytest.approx(line["ece"], abs=0.01)


def test_a_classifier_that_is_too_sure_is_found_out(proof):
    line = proof.studied(("accuracy .81", "overconfident", "500"), 40, 0)
    assert line["needed"] == 1
    assert line["error"] == pytest.approx(line["true"], abs=0.015)
    assert line["held"] >= 0.8


def test_patients_make_a_test_more_cautious():
    generator = np.random.default_rng(3)
    stated = np.repeat(generator.uniform(0.6, 0.95, 30), 10)
    right = np.repeat(generator.random(30) < stated[::10], 10).astype(np.int64)  # all images of a patient alike
    alone = calibration_error(TASK, binary(stated), right)
    together = calibration_error(TASK, binary(stated), right, np.repeat(np.arange(30), 10).astype(str))
    assert alone["design_effect"] == 1
    assert 4 < together["design_effect"] < 20
    assert together["p_value"] > alone["p_value"]
    assert together["error"]["high"] - together["error"]["low"] > alone["error"]["high"] - alone["error"]["low"]


@pytest.mark.parametrize("size", ["120 of 107", "200 of 50"])
def test_misfit_is_not_taken_for_what_patients_share(proof, size):
    line = proof.studied((proof.SURE, "right in .80", size), 40, 0)
    assert line["needed"] >= 0.95
    assert line["held"] >= 0.9
    assert line["width"] < 0.3
    generator, patients = np.random.default_rng(8), np.repeat(np.arange(len(proof.IMAGES[size])), proof.IMAGES[size])
    stated = generator.uniform(0.98, 0.9999, len(patients))
    said = [
        calibration_error(
            TASK, binary(stated), (generator.random(len(stated)) < truth).astype(np.int64), patients.astype(str)
        )
        for truth in (stated, 0.8, 0.3)
    ]
    assert all(1 <= one["design_effect"] <= max(proof.IMAGES[size]) for one in said)
    assert len({one["ece_if_calibrated"] for one in said}) == 1  # of what is stated alone


def test_patients_whose_images_are_wholly_alike_count_once_even_where_few_are_wrong():
    alarms = []
    for study in range(60):
        generator = np.random.default_rng([9, study])
        stated = np.repeat(generator.uniform(0.9, 1, 25), 4)
        right = np.repeat(generator.random(25) < stated[::4], 4).astype(np.int64)
        found = calibration_error(TASK, binary(stated), right, np.repeat(np.arange(25), 4).astype(str), seed=study)
        alarms.append(found["p_value"] < 0.05)
    assert np.mean(alarms) <= 0.1


def test_one_patient_shows_nothing():
    found = calibration_error(TASK, binary(np.full(8, 0.9)), np.ones(8, dtype=np.int64), np.full(8, "a"))
    assert (found["error"], found["p_value"], found["verdict"], found["brier"]) == (
        {"value": None, "low": None, "high": None}, None, "not shown", None,
    )  # fmt: skip
    assert "all images are of one patient" in calibration_words(found)


def test_labels_of_one_image_are_not_taken_for_independent():
    generator = np.random.default_rng(4)
    stated = np.repeat(generator.uniform(0.1, 0.9, (200, 1)), 5, axis=1)
    truth = np.repeat(generator.random((200, 1)) < stated[:, :1], 5, axis=1).astype(np.int64)
    found = calibration_error(MultiLabel(tuple("abcde")), stated, truth)
    assert found["design_effect"] == pytest.approx(5, rel=0.3)
    assert found["p_value"] > 0.01


def test_large_sets_are_judged_fast_and_to_within_the_tolerance():
    generator = np.random.default_rng(5)
    stated = generator.uniform(0.5, 1, 20_000)
    right = (generator.random(20_000) < stated).astype(np.int64)
    found = calibration_error(TASK, binary(stated), right)
    assert found["verdict"] == "calibrated"
    assert calibration_words(found).startswith("Calibrated: the calibration error is 0.0")
    off = calibration_error(TASK, binary(stated), (generator.random(20_000) < stated - 0.2).astype(np.int64))
    assert off["error"]["value"] == pytest.approx(0.2, abs=0.01)
    assert calibration_words(off).startswith("Recalibration is needed: 75 % is stated on average and 55 % comes true")


def test_words_never_let_a_sure_test_and_an_interval_that_reaches_zero_contradict_each_other():
    """Where the bins hold few images each, the test may be sure of a tilt that no bin shows; that is said."""
    needed = []
    for study in range(60):
        generator = np.random.default_rng([7, study])
        stated = generator.uniform(0.6, 1, 60)
        right = (generator.random(60) < stated - 0.12).astype(np.int64)
        found = calibration_error(TASK, binary(stated), right, seed=study)
        if found["verdict"] == "recalibration needed":
            needed.append(found["error"]["low"] > 0)
            words = calibration_words(found)
            assert ("How large the error is is less sure" in words) == (found["error"]["low"] == 0)
            assert "of 0.000" not in words
    assert set(needed) == {True, False}


def test_the_band_holds_the_dots_of_a_calibrated_classifier_and_not_of_another():
    generator = np.random.default_rng(6)
    stated = generator.uniform(0.5, 1, 5000)
    inside = []
    for truth in (stated, stated - 0.15):
        bins = reliability(TASK, binary(stated), (generator.random(5000) < truth).astype(np.int64))
        inside.append(np.mean([bin["band_low"] <= bin["accuracy"] <= bin["band_high"] for bin in bins]))
    assert inside[0] >= 0.8
    assert inside[1] <= 0.2
    assert expected_calibration_error(TASK, binary(stated), np.ones(5000, dtype=np.int64)) > 0.2
