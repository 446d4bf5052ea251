import json
import os
from pathlib import Path

import numpy as np
import pytest
from medmnist.evaluator import Evaluator, getACC, getAUC
from sklearn import metrics as oracle

from stillroom.errors import RunError, UsageError
from stillroom.evaluation.calibration import expected_calibration_error
from stillroom.evaluation.calibration_error import calibration_error
from stillroom.evaluation.metrics import CLASS_FIGURES, figures, score
from stillroom.task import MultiClass, MultiLabel

BINARY = MultiClass(("healthy", "ill"))
MULTI = MultiClass(("a", "b", "c", "d"))
ORDINAL = MultiClass(("none", "mild", "severe"), ordinal=True)
LABELS = MultiLabel(("x", "y", "z"))
TASKS = {
    "binary-class": BINARY,
    "multi-class": MULTI,
    "ordinal-regression": ORDINAL,
    "multi-label, binary-class": LABELS,
}


def predictions(task, images=200, seed=0, decimals=2):
    """Probabilities with ties that know something about random targets."""
    generator = np.random.default_rng(seed)
    classes = len(task.classes)
    if task.exclusive:
        targets = generator.permutation(np.arange(images) % classes)
    else:
        targets = (generator.random((images, classes)) < 0.3).astype(np.uint8)
    logits = generator.normal(size=(images, classes)) + 1.5 * task.one_hot(targets)
    probabilities = np.round(task.probabilities(logits), decimals)
    if task.kind == "binary":
        probabilities[:, 0] = 1 - probabilities[:, 1]
    return probabilities, targets


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_auc_and_accuracy_are_those_of_medmnist(kind, seed):
    task = TASKS[kind]
    probabilities, targets = predictions(task, seed=seed)
    result = score(task, probabilities, targets)
    labels = targets[:, None] if task.exclusive else targets
    assert result["auc"]["value"] == pytest.approx(getAUC(labels, probabilities, kind), abs=1e-6)
    assert result["accuracy"]["value"] == pytest.approx(getACC(labels, probabilities, kind), abs=1e-6)


@pytest.mark.parametrize(
    ("flag", "classes", "ordinal"),
    [("pneumoniamnist", 2, False), ("breastmnist", 2, False), ("retinamnist", 5, True)],
)
def test_auc_and_accuracy_are_those_of_medmnist_on_its_own_labels(flag, classes, ordinal):
    root = Path(os.environ.get("STILLROOM_DATA", "")) / "medmnist"
    if not (root / f"{flag}.npz").is_file():
        pytest.skip("needs $STILLROOM_DATA/medmnist with MedMNIST's files")
    evaluator = Evaluator(flag, "test", root=str(root))
    targets = evaluator.labels[:, 0].astype(np.int64)
    task = MultiClass(tuple(str(k) for k in range(classes)), ordinal=ordinal)
    generator = np.random.default_rng(0)
    probabilities = task.probabilities(generator.normal(size=(len(targets), classes)) + task.one_hot(targets))
    ours, theirs = score(task, probabilities, targets), evaluator.evaluate(probabilities)
    assert ours["auc"]["value"] == pytest.approx(theirs.AUC, abs=1e-6)
    assert ours["accuracy"]["value"] == pytest.approx(theirs.ACC, abs=1e-6)
    assert ours["auc"]["low"] < ours["auc"]["value"] < ours["auc"]["high"]


@pytest.mark.parametrize("kind", TASKS)
def test_every_figure_equals_scikit_learn(kind):
    task = TASKS[kind]
    probabilities, targets = predictions(task)
    result = score(task, probabilities, targets)
    decided = task.decide(probabilities)
    truth, predicted = task.one_hot(targets), task.one_hot(decided)
    expected = {name: [] for name in CLASS_FIGURES}
    for k, name in enumerate(task.classes):
        one, other = truth[:, k], predicted[:, k]
        figure = {
            "auc": oracle.roc_auc_score(one, probabilities[:, k]),
            "average_precision": oracle.average_precision_score(one, probabilities[:, k]),
            "sensitivity": oracle.recall_score(one, other),
            "specificity": oracle.recall_score(1 - one, 1 - other),
            "precision": oracle.precision_score(one, other),
            "f1": oracle.f1_score(one, other),
        }
        assert result["per_class"][name]["support"] == one.sum()
        for metric, value in figure.items():
            assert result["per_class"][name][metric]["value"] == pytest.approx(value, abs=1e-9), metric
            expected[metric].append(value)
    for metric, values in expected.items():
        mean = np.mean([values[k] for k in task.scored])
        assert result[metric]["value"] == pytest.approx(mean, abs=1e-9), metric

    clipped = np.clip(probabilities, 1e-7, 1)
    if task.exclusive:
        overall = {
            "balanced_accuracy": oracle.balanced_accuracy_score(targets, decided),
            "mcc": oracle.matthews_corrcoef(targets, decided),
            "nll": -np.log(clipped[np.arange(len(targets)), targets]).mean(),
        }
    else:
        absent = np.clip(1 - probabilities, 1e-7, 1)
        columns = range(truth.shape[1])
        overall = {
            "balanced_accuracy": np.mean(
                [oracle.balanced_accuracy_score(truth[:, k], predicted[:, k]) for k in columns]
            ),
            "mcc": np.mean([oracle.matthews_corrcoef(truth[:, k], predicted[:, k]) for k in columns]),
            "nll": -np.where(truth > 0, np.log(clipped), np.log(absent)).mean(),
        }
    overall["brier"] = task.brier(probabilities, targets).mean()
    if task is ORDINAL:
        overall["quadratic_kappa"] = oracle.cohen_kappa_score(targets, decided, weights="quadratic")
    for metric, value in overall.items():
        assert result[metric]["value"] == pytest.approx(value, abs=1e-9), metric
    assert ("quadratic_kappa" in result) == (task is ORDINAL)


def test_binary_brier_is_that_of_scikit_learn_and_nll_its_log_loss():
    probabilities, targets = predictions(BINARY, decimals=6)
    result = score(BINARY, probabilities, targets)
    assert result["brier"]["value"] == pytest.approx(oracle.brier_score_loss(targets, probabilities[:, 1]))
    assert result["nll"]["value"] == pytest.approx(oracle.log_loss(targets, probabilities))


def test_selection_metric_is_what_selects_epochs():
    for task in TASKS.values():
        probabilities, targets = predictions(task)
        value = score(task, probabilities, targets)[task.selection_metric]["value"]
        assert value == pytest.approx(task.select(probabilities, targets), abs=1e-9)


@pytest.mark.parametrize("kind", TASKS)
def test_weighting_an_image_equals_repeating_it(kind):
    task = TASKS[kind]
    probabilities, targets = predictions(task, images=60)
    weights = np.random.default_rng(1).integers(4, size=(3, 60))
    weighted = figures(task, probabilities, targets, weights)
    for row, counts in enumerate(weights):
        repeated = figures(
            task,
            np.repeat(probabilities, counts, axis=0),
            np.repeat(targets, counts, axis=0),
            np.ones((1, counts.sum())),
        )
        for name, values in repeated.overall.items():
            assert weighted.overall[name][row] == pytest.approx(values[0], abs=1e-9), name
        for name, values in repeated.per_class.items():
            assert weighted.per_class[name][row] == pytest.approx(values[0], abs=1e-9), name


@pytest.mark.parametrize("kind", TASKS)
def test_result_is_json_and_intervals_hold_their_value(kind):
    task = TASKS[kind]
    result = score(task, *predictions(task))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["images"] == 200
    assert result["patients"] is None
    assert result["notes"] == []
    for name, figure in result.items():
        if isinstance(figure, dict) and "value" in figure and name != "ece":
            assert figure["low"] <= figure["value"] <= figure["high"], name
            assert figure["low"] < figure["high"], name


def test_results_repeat():
    data = predictions(MULTI)
    assert score(MULTI, *data) == score(MULTI, *data)


def test_an_absent_class_is_null_with_the_reason_and_the_means_leave_it_out():
    probabilities, targets = predictions(MULTI)
    keep = targets != 2
    result = score(MULTI, probabilities[keep], targets[keep])
    assert all(result["per_class"]["c"][name]["value"] is None for name in CLASS_FIGURES)
    assert result["per_class"]["c"]["support"] == 0
    others = [result["per_class"][name]["auc"]["value"] for name in "abd"]
    assert result["auc"]["value"] == pytest.approx(np.mean(others))
    assert result["auc"]["low"] is not None
    assert any("No image is of class c" in note for note in result["notes"])


def test_a_single_class_leaves_no_auc_but_keeps_accuracy():
    probabilities, _ = predictions(BINARY)
    result = score(BINARY, probabilities, np.ones(200, dtype=np.int64))
    for name in ("auc", "specificity", "average_precision", "mcc"):
        assert result[name] == {"value": None, "low": None, "high": None}
    assert result["accuracy"]["value"] == pytest.approx((probabilities[:, 1] > 0.5).mean())
    assert result["sensitivity"]["value"] == result["accuracy"]["value"]
    assert any("Every image is of class ill" in note for note in result["notes"])
    assert any("Not defined on these images" in note and "MCC" in note for note in result["notes"])
    json.dumps(result, allow_nan=False)


def test_single_grade_leaves_kappa_undefined():
    probabilities, _ = predictions(ORDINAL)
    result = score(ORDINAL, probabilities, np.zeros(200, dtype=np.int64))
    assert result["quadratic_kappa"]["value"] is None


def test_a_class_never_predicted_has_no_precision_but_a_sensitivity_of_zero():
    probabilities, targets = predictions(MULTI)
    probabilities[:, 1] = 0
    result = score(MULTI, probabilities, targets)
    assert result["per_class"]["b"]["precision"]["value"] is None
    assert result["per_class"]["b"]["sensitivity"]["value"] == 0
    assert result["per_class"]["b"]["f1"]["value"] == 0
    assert result["precision"]["value"] is None
    assert any("No image was predicted as b" in note and "mean precision" in note for note in result["notes"])


def test_a_network_that_never_gives_an_answer_has_no_mcc_and_says_so():
    targets = np.arange(50) < 5
    result = score(BINARY, np.tile([0.9, 0.1], (50, 1)), targets.astype(np.int64))
    assert result["mcc"] == {"value": None, "low": None, "high": None}
    assert "The network answers healthy for every image: MCC is not defined (0 / 0)." in result["notes"]
    # None of five and all of 45, from the exact intervals of both.
    balanced, upper, lower = (result[name] for name in ("balanced_accuracy", "sensitivity", "specificity"))
    assert balanced["value"] == 0.5
    assert balanced["low"] == pytest.approx(0.5 - (1 - lower["low"]) / 2)
    assert balanced["high"] == pytest.approx(0.5 + upper["high"] / 2)
    assert upper["high"] > 0.4
    assert result["f1"]["high"] > 0.6


def test_means_over_classes_have_a_width_where_no_image_moves_them():
    targets = np.repeat(np.arange(4), 10)
    never = np.where(targets == 3, 0, targets)
    result = score(MULTI, MULTI.one_hot(never).astype(float), targets)
    for name in ("sensitivity", "balanced_accuracy"):
        assert result[name]["value"] == 0.75
        assert result[name]["low"] < 0.7
        assert result[name]["high"] > 0.8
    assert not any("no width" in note for note in result["notes"])
    labels = np.zeros((40, 4), dtype=np.uint8)
    labels[:10] = 1
    answers = labels.astype(float)
    answers[:, 3] = 0
    result = score(MultiLabel(tuple("abcd")), answers, labels)
    assert result["mcc"]["value"] is None
    told = "No image was predicted as d: its precision and MCC are not defined, and so are the mean precision and MCC."
    assert told in result["notes"]
    assert result["balanced_accuracy"]["low"] < 0.82 < 0.875 < result["balanced_accuracy"]["high"]


def test_always_the_same_grade_has_a_kappa_of_zero_without_an_interval():
    result = score(ORDINAL, np.tile(ORDINAL.one_hot(np.array([1])), (39, 1)).astype(float), np.arange(39) % 3)
    assert result["quadratic_kappa"] == {"value": 0, "low": None, "high": None}
    assert any("kappa is 0 whatever is true" in note for note in result["notes"])


def test_constant_targets_leave_the_mcc_undefined_whatever_is_predicted():
    targets = np.zeros(6, dtype=np.int64)
    for probabilities in (np.tile([0.8, 0.2], (6, 1)), np.array([[0.8, 0.2], [0.2, 0.8]] * 3)):
        assert score(BINARY, probabilities, targets)["mcc"]["value"] is None


def test_a_class_of_one_image_has_values_without_intervals():
    task = MultiLabel(("x", "y"))
    targets = np.zeros((40, 2), dtype=np.uint8)
    targets[:20, 0] = targets[1, 1] = 1
    result = score(task, np.random.default_rng(0).random((40, 2)), targets)
    for name in ("auc", "sensitivity", "average_precision"):
        assert result["per_class"]["y"][name]["value"] is not None
        assert result["per_class"]["y"][name]["low"] is None
        assert result["per_class"]["x"][name]["low"] is not None
    assert any("Fewer than two images are of class y" in note for note in result["notes"])


def test_figures_without_an_error_have_the_interval_of_what_they_rest_on():
    targets = np.array([1] * 5 + [0] * 15)
    result = score(BINARY, BINARY.one_hot(targets).astype(float), targets)
    rests_on = {"accuracy": 20, "sensitivity": 5, "specificity": 15, "precision": 5, "auc": 7.5}
    for name, images in rests_on.items():
        # The lower end p of n of n: the caution's share of p^n is the tail.
        assert result[name] == {
            "value": 1,
            "low": pytest.approx((0.025 / 0.75) ** (1 / images), abs=1e-6),
            "high": 1,
        }, name
    assert result["per_class"]["healthy"]["sensitivity"] == result["specificity"]
    low = (0.025 / 0.75) ** (1 / np.array([5, 15]))
    # F1 is 2 J / (1 + J) of a share of five; balanced accuracy the mean of two shares.
    assert result["f1"]["low"] == pytest.approx(2 * low[0] / (1 + low[0]), abs=1e-6)
    assert result["balanced_accuracy"]["low"] == pytest.approx(1 - np.sqrt(((1 - low) ** 2).sum()) / 2, abs=1e-6)
    assert [note for note in result["notes"] if "log loss" not in note] == []


def test_patients_count_where_they_are_known():
    targets = np.array([1] * 8 + [0] * 12)
    patients = np.repeat([f"p{number}" for number in range(10)], 2)
    data = BINARY.one_hot(targets).astype(float), targets
    by_patient = score(BINARY, *data, patients=patients)
    by_image = score(BINARY, *data)
    assert by_patient["sensitivity"]["low"] < 0.45 < 0.6 < by_image["sensitivity"]["low"]


def test_a_class_without_an_error_adds_its_own_doubt_to_the_mean():
    targets = np.array([0] * 10 + [1] * 20 + [2] * 30 + [3] * 40)
    result = score(MULTI, MULTI.one_hot(targets).astype(float), targets)
    far = 1 - (0.025 / 0.75) ** (1 / np.array([10, 20, 30, 40]))
    for name in ("sensitivity", "balanced_accuracy"):
        assert result[name]["low"] == pytest.approx(1 - np.sqrt((far**2).sum()) / 4, abs=1e-6)
    assert result["per_class"]["a"]["sensitivity"]["low"] == pytest.approx((0.025 / 0.75) ** (1 / 10), abs=1e-6)


def test_a_constant_answer_s_auc_is_known_exactly():
    targets = np.arange(40) % 2
    result = score(BINARY, np.tile([0.3, 0.7], (40, 1)), targets)
    assert result["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert 0.3 < result["accuracy"]["low"] < 0.4
    note = next(note for note in result["notes"] if "no width" in note)
    assert note.endswith(": AUC.")


def test_the_positive_class_is_named():
    assert score(BINARY, *predictions(BINARY))["positive_class"] == "ill"
    for task in (MULTI, ORDINAL, LABELS):
        assert score(task, *predictions(task))["positive_class"] is None


def test_the_calibration_error_has_an_interval_and_the_usual_one_none():
    data = predictions(BINARY)
    patients = np.array([f"p{number // 4}" for number in range(len(data[1]))])
    for given in (None, patients):
        found = score(BINARY, *data, patients=given)
        assert found["calibration_error"] == calibration_error(BINARY, *data, given)["error"]
        assert found["ece"]["value"] == pytest.approx(expected_calibration_error(BINARY, *data))
        assert found["ece"]["low"] is found["ece"]["high"] is None


def test_copies_of_an_image_widen_the_interval_only_if_the_patient_is_known():
    probabilities, targets = predictions(BINARY, images=80, decimals=6)
    copies = 6
    many = np.repeat(probabilities, copies, axis=0), np.repeat(targets, copies)
    patients = np.repeat([f"p{i:03}" for i in range(80)], copies)
    by_image = score(BINARY, *many)
    by_patient = score(BINARY, *many, patients=patients)
    alone = score(BINARY, probabilities, targets)
    assert by_patient["patients"] == 80
    assert by_patient["interval"]["unit"] == "patient"
    for name in ("auc", "accuracy", "sensitivity"):
        width = {key: r[name]["high"] - r[name]["low"] for key, r in [("i", by_image), ("p", by_patient), ("a", alone)]}
        # Copies carry no information: by patient the interval is that of single images, by image sqrt(6) narrower.
        assert width["p"] == pytest.approx(width["a"], rel=0.1), name
        assert width["p"] / width["i"] == pytest.approx(np.sqrt(copies), rel=0.25), name


def test_unknown_patients_are_remarked_and_all_unknown_are_no_patients():
    data = predictions(BINARY, images=30)
    patients = np.array(["p"] * 10 + [""] * 20)
    result = score(BINARY, *data, patients=patients)
    assert result["patients"] == 21
    assert any("20 images of unknown patient" in note for note in result["notes"])
    few = score(BINARY, *data, patients=np.array(["a", "b"] * 15))
    assert any("2 patients only" in note for note in few["notes"])
    one = score(BINARY, *data, patients=np.array(["a"] * 29 + [""]))
    assert any("1 image of unknown patient counts as a patient each." in note for note in one["notes"])
    unknown = score(BINARY, *data, patients=np.full(30, ""))
    assert unknown == score(BINARY, *data)


def test_wrong_input_is_refused_with_the_place():
    probabilities, targets = predictions(BINARY)
    with pytest.raises(UsageError, match="split is empty"):
        score(BINARY, probabilities[:0], targets[:0])
    with pytest.raises(UsageError, match=r"\[200, 2\] do not fit 199 targets"):
        score(BINARY, probabilities, targets[:-1])
    probabilities[17, 0] = np.nan
    with pytest.raises(RunError, match="image 17"):
        score(BINARY, probabilities, targets)
