import numpy as np
import pytest
from scipy.stats import norm

from stillroom.evaluation.by_patient import by_patient
from stillroom.evaluation.metrics import score
from stillroom.task import MultiClass, MultiLabel

BINARY = MultiClass(("healthy", "ill"))


def both(chance):
    return np.column_stack([1 - chance, chance])


def test_a_patient_is_judged_by_the_mean_of_its_images():
    generator = np.random.default_rng(0)
    patients = generator.permutation(np.repeat(np.arange(50), 4)).astype(str)
    ill = generator.random(50) < 0.4
    targets = ill[patients.astype(int)].astype(np.int64)
    chance = 1 / (1 + np.exp(-(2.0 * targets - 1 + generator.normal(size=200))))
    found = by_patient(BINARY, {"student": both(chance), "teacher": both(1 - chance)}, targets, patients)
    means = np.array([chance[patients == str(one)].mean() for one in range(50)])
    oracle = score(BINARY, both(means), ill.astype(np.int64))
    for name in ("auc", "accuracy", "sensitivity", "specificity"):
        assert found["figures"]["student"][name] == pytest.approx(oracle[name], abs=1e-6)
        assert found["figures"]["teacher"]["auc"]["value"] == pytest.approx(1 - oracle["auc"]["value"])
    assert (found["patients"], found["images"], found["left_out"]) == (50, 200, 0)
    assert found["positives"] == {"healthy": int((~ill).sum()), "ill": int(ill.sum())}
    assert found["notes"] == []


def test_patients_of_several_classes_are_left_out_and_counted():
    patients = np.array(["a", "a", "b", "b", "c", "", ""])
    targets = np.array([0, 0, 1, 0, 1, 0, 1])
    chance = np.array([0.1, 0.6, 0.9, 0.9, 0.7, 0.8, 0.9])
    found = by_patient(BINARY, {"student": both(chance)}, targets, patients)
    assert (found["patients"], found["left_out"], found["of"]) == (4, 1, 5)
    assert found["figures"]["student"]["accuracy"]["value"] == 0.75  # b is out; the image of .8 is healthy
    assert found["notes"][0] == "2 images of unknown patient count as a patient each."
    assert "1 of 5 patients has images of several classes and is left out. This favours the net" in found["notes"][1]


def test_a_label_that_some_images_of_a_patient_have_is_left_out_for_this_patient():
    task = MultiLabel(("a", "b"))
    patients = np.array(["p", "p", "q", "r"])
    targets = np.array([[1, 0], [1, 1], [0, 1], [1, 0]], dtype=np.uint8)
    chance = np.array([[0.9, 0.1], [0.7, 0.2], [0.6, 0.9], [0.8, 0.6]])
    found = by_patient(task, {"student": chance}, targets, patients)
    assert (found["patients"], found["left_out"], found["of"]) == (3, 1, 6)
    assert found["positives"] == {"a": 2, "b": 1}
    figures = found["figures"]["student"]
    assert figures["sensitivity"]["value"] == 1
    assert figures["specificity"]["value"] == 0  # q has no a and r no b, and both are said to
    assert figures["accuracy"]["value"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert "Of 6 pairs of patient and label 1 are left out" in found["notes"][0]
    assert "This favours the network" in found["notes"][0]


def test_without_patients_or_with_one_image_of_each_there_is_nothing_to_tell():
    chance, targets = np.array([0.1, 0.9]), np.array([0, 1])
    assert by_patient(BINARY, {"student": both(chance)}, targets, None) is None
    assert by_patient(BINARY, {"student": both(chance)}, targets, np.array(["", ""])) is None
    assert by_patient(BINARY, {"student": both(chance)}, targets, np.array(["a", ""])) is None


def test_where_most_patients_have_several_classes_none_are_judged():
    patients = np.repeat(np.arange(10), 2).astype(str)
    found = by_patient(BINARY, {"student": both(np.full(20, 0.4))}, np.tile([0, 1], 10), patients)
    assert found["figures"] == {}
    assert "labels are of images here" in found["notes"][-1]


def test_intervals_hold_the_truth_of_patients():
    """A sample of proofs/subgroups.py: the area between means of four images that share half of what makes them hard."""
    generator = np.random.default_rng(2)
    held = []
    for _ in range(200):
        ill = np.repeat(np.arange(60) < 20, 4)
        noise = (np.repeat(generator.normal(size=60), 4) + generator.normal(size=240)) / np.sqrt(2)
        # A mean of four has the variance 1/2 + 1/8, and what is linear in the score ranks as its mean does.
        chance = 0.5 + (1.5 * ill + noise) / 40
        found = by_patient(
            BINARY, {"student": both(chance)}, ill.astype(np.int64), np.repeat(np.arange(60), 4).astype(str)
        )
        auc = found["figures"]["student"]["auc"]
        held.append(auc["low"] <= norm.cdf(1.5 / np.sqrt(2 * 0.625)) <= auc["high"])
    assert np.mean(held) >= 0.92
