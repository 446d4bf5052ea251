"""Every role is measured once, on the same resamples, with the figures that scoring and comparing it alone would give."""

from dataclasses import replace

import numpy as np
import pytest

from stillroom.data.table import Table
from stillroom.evaluation.assess import assess, predictions_frame, worst_mistakes
from stillroom.evaluation.calibration import (
    calibration_notes,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from stillroom.evaluation.calibration_error import calibration_error
from stillroom.evaluation.comparison import compare
from stillroom.evaluation.metrics import score
from stillroom.settings.evaluation import EvaluationSettings
from stillroom.task import MultiClass, MultiLabel

TASK = MultiClass(("benign", "malignant", "normal"))
ROLES = ("student", "control", "teacher", "probe_of_teacher", "probe_of_student", "majority")
SETTINGS = EvaluationSettings(resamples=300)


@pytest.fixture
def table() -> Table:
    rng = np.random.default_rng(5)
    return Table(
        name="fixture", source="fixture", task=TASK, ids=np.arange(240).astype(str), targets=rng.integers(3, size=240),
        splits=np.array(["train", "val", "test"])[np.arange(240) % 3], rows=np.arange(240),
        reader=None,  # type: ignore[arg-type]
        patients=np.array([f"p{number // 6}" for number in range(240)]),
    )  # fmt: skip


@pytest.fixture
def logits(table: Table) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    truth = TASK.one_hot(table.targets).astype(float)
    found = {role: 1.5 * truth + rng.normal(size=truth.shape) for role in ROLES[:-1]}
    shares = np.bincount(table.targets[table.indices("train")], minlength=3) / 80
    return found | {"majority": np.tile(np.log(shares), (240, 1))}


def test_figures_are_those_of_each_role_alone(table, logits):
    found = assess(TASK, table, logits, SETTINGS, seed=3)
    test = table.indices("test")
    how = {"patients": table.patients[test]}
    for role in ROLES:
        assert found.figures["test"][role] == score(TASK, found.probabilities[role][test], table.targets[test], **how)
    for role in ROLES[1:]:
        alone = compare(
            TASK, found.probabilities["student"][test], found.probabilities[role][test], table.targets[test],
            margin=SETTINGS.margin, **how,
        )  # fmt: skip
        pair = found.figures["comparison"][f"student_vs_{role}"]
        told = ("statement", "second")  # they name the other
        assert {k: v for k, v in pair.items() if k not in told} == {k: v for k, v in alone.items() if k not in told}
    assert (
        "linear probe on the frozen teacher" in found.figures["comparison"]["student_vs_probe_of_teacher"]["statement"]
    )


def test_validation_has_figures_of_its_own_images(table, logits):
    found = assess(TASK, table, logits, SETTINGS, seed=3).figures["validation"]
    val = table.indices("val")
    assert list(found) == list(ROLES)
    for role in ROLES:
        assert found[role]["images"] == len(val)
        assert found[role]["accuracy"]["low"] <= found[role]["accuracy"]["value"] <= found[role]["accuracy"]["high"]
    # The temperature cannot change the order of one class's images against each other by much, nor any decision.
    decided = logits["student"][val].argmax(axis=1) == table.targets[val]
    assert found["student"]["accuracy"]["value"] == pytest.approx(decided.mean())


def test_the_majority_class_scores_its_share_and_is_not_blamed_for_its_temperature(table, logits):
    found = assess(TASK, table, logits, SETTINGS, seed=3)
    test = table.targets[table.indices("test")]
    commonest = np.bincount(table.targets[table.indices("train")]).argmax()
    majority = found.figures["test"]["majority"]
    assert majority["accuracy"]["value"] == pytest.approx((test == commonest).mean())
    assert majority["auc"]["value"] == 0.5
    assert found.temperatures["majority"] == 1.0
    assert calibration_notes(found.figures["calibration"]["majority"]) == []


def test_constant_logits_keep_their_shares_where_validation_would_have_them_flatter():
    # Training shares of 9 to 1 on an even validation split: the likelihood alone would flatten them without end.
    even = np.arange(40) % 2
    assert fit_temperature(MultiClass(("a", "b")), np.tile(np.log([0.9, 0.1]), (40, 1)), even) == 1.0


def test_a_class_says_how_many_patients_it_has(table, logits):
    test = table.indices("test")
    found = assess(TASK, table, logits, SETTINGS, seed=3).figures["test"]["student"]["per_class"]
    for k, name in enumerate(TASK.classes):
        assert found[name]["patients"] == len(set(table.patients[test][table.targets[test] == k]))


def test_each_split_decides_only_what_it_is_for(table, logits):
    """Validation calibrates, test scores, training does neither: other labels there change nothing else."""
    found = assess(TASK, table, logits, SETTINGS, seed=3)
    val = table.indices("val")
    expected = {role: fit_temperature(TASK, raw[val], table.targets[val]) for role, raw in logits.items()}
    assert found.temperatures == expected
    test = table.indices("test")
    elsewhere = fit_temperature(TASK, logits["student"][test], table.targets[test])
    assert abs(elsewhere - expected["student"]) > 0.003  # or the wrong split would pass here
    for role, raw in logits.items():
        np.testing.assert_array_equal(found.probabilities[role], TASK.probabilities(raw, expected[role]))

    def relabelled(split: str):
        targets = table.targets.copy()
        rows = table.indices(split)
        targets[rows] = (targets[rows] + 1) % 3
        return assess(TASK, replace(table, targets=targets), logits, SETTINGS, seed=3)

    trained, tested, validated = relabelled("train"), relabelled("test"), relabelled("val")
    assert trained.figures == found.figures
    assert tested.temperatures == found.temperatures != validated.temperatures
    assert tested.figures["validation"] == found.figures["validation"]
    assert tested.figures["test"] != found.figures["test"]


def test_calibration_is_told_before_and_after_the_temperature(table, logits):
    test = table.indices("test")
    sharp = {role: 4 * raw for role, raw in logits.items()}
    found = assess(TASK, table, sharp, SETTINGS, seed=3)
    told = found.figures["calibration"]["student"]
    assert told["temperature"] == found.temperatures["student"] > 1.5
    raw, cooled = TASK.probabilities(sharp["student"][test]), found.probabilities["student"][test]
    assert told["ece_before"] == expected_calibration_error(TASK, raw, table.targets[test])
    assert told["ece_after"] == expected_calibration_error(TASK, cooled, table.targets[test]) < told["ece_before"]
    for bins, when, stated in (("bins_before", "before", raw), ("bins", "after", cooled)):
        design = told[when]["design_effect"]
        assert told[bins] == reliability(TASK, stated, table.targets[test], design=design)
        patients = table.patients[test]
        assert told[when] == calibration_error(TASK, stated, table.targets[test], patients, seed=3)
        assert design > 1  # patients have four images


def test_every_other_role_is_compared_with_the_student_and_without_validation_there_are_no_figures_of_it(table, logits):
    splits = np.where(table.splits == "val", "train", table.splits)
    found = assess(TASK, replace(table, splits=splits), logits, SETTINGS, seed=3).figures
    assert found["validation"] == {}
    assert list(found["comparison"]) == [f"student_vs_{role}" for role in ROLES[1:]]


def test_worst_mistakes_are_wrong_and_the_surest_comes_first():
    probabilities = np.array([[0.6, 0.4, 0], [0.9, 0.1, 0], [0.2, 0.8, 0], [0.99, 0.005, 0.005], [0.5, 0.5, 0]])
    targets = np.array([1, 1, 1, 2, 1])
    rows = np.array([0, 1, 2, 4])
    assert worst_mistakes(TASK, probabilities, targets, rows).tolist() == [1, 0, 4]


def test_mistakes_are_sorted_by_how_sure_the_wrong_answer_was_not_by_how_little_the_right_one_had():
    probabilities = np.array([[0.50, 0.49, 0.01], [0.01, 0.60, 0.39], [0.10, 0.10, 0.80]])
    targets = np.array([2, 0, 1])
    assert (TASK.log_loss(probabilities, targets)[[0, 1]] > TASK.log_loss(probabilities, targets)[2]).all()
    assert worst_mistakes(TASK, probabilities, targets, np.arange(3)).tolist() == [2, 1, 0]
    labels = MultiLabel(("x", "y"))
    stated, truth = [[0.9, 0.2], [0.9, 0.2], [0.4, 0.05], [0.6, 0.05]], [[1, 0], [0, 1], [1, 0], [0, 1]]
    np.testing.assert_allclose(labels.surely_wrong(np.array(stated), np.array(truth)), [0, 0.9, 0.6, 0.95])


def test_predictions_stand_by_role_and_class(table, logits):
    probabilities = {"student": TASK.probabilities(logits["student"])}
    digests = np.array([f"d{number}" for number in range(240)])
    frame = predictions_frame(TASK, table, digests, probabilities)
    named = ["student:benign", "student:malignant", "student:normal"]
    assert list(frame) == ["id", "patient", "split", "target", "digest", *named]
    np.testing.assert_array_equal(frame[named], probabilities["student"])
    assert (frame.digest == digests).all()
    assert (frame.target == [TASK.classes[k] for k in table.targets]).all()
    assert (predictions_frame(TASK, replace(table, patients=None), digests, probabilities).patient == "").all()
