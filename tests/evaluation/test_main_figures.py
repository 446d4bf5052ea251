import numpy as np
import pytest

from stillroom.evaluation.main_figures import Answers, main_figures, to_dict
from stillroom.evaluation.metrics import score
from stillroom.task import MultiClass, MultiLabel

TASKS = {
    "binary": MultiClass(("healthy", "ill")),
    "classes": MultiClass(tuple("abcd")),
    "grades": MultiClass(tuple("abcd"), ordinal=True),
    "labels": MultiLabel(tuple("abcd")),
}


def said(task, images, generator):
    classes = len(task.classes)
    if task.exclusive:
        targets = generator.integers(0, classes, images)
    else:
        targets = (generator.random((images, classes)) < 0.3).astype(np.uint8)
    logits = 1.5 * task.one_hot(targets) + generator.normal(size=(images, classes))
    return task.probabilities(logits), targets


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_figures_and_intervals_are_those_of_the_whole_evaluation(kind, grouped):
    task, generator = TASKS[kind], np.random.default_rng(0)
    probabilities, targets = said(task, 120, generator)
    patients = np.repeat(np.arange(40), 3).astype(str) if grouped else None
    if patients is not None:
        patients[5] = ""
    oracle = score(task, probabilities, targets, patients=patients)
    answers = Answers.of(task, probabilities, targets, patients)
    for name, figure in to_dict(main_figures(answers)).items():
        assert figure == pytest.approx(oracle[name], abs=1e-6), name
    part = np.flatnonzero(generator.random(120) < 0.4)
    oracle = score(task, probabilities[part], targets[part], patients=None if patients is None else patients[part])
    for name, figure in to_dict(main_figures(answers.take(part))).items():
        assert figure == pytest.approx(oracle[name], abs=1e-6), name


def test_labels_whose_truth_is_not_known_count_nowhere():
    task, generator = TASKS["labels"], np.random.default_rng(1)
    probabilities, targets = said(task, 90, generator)
    known = generator.random(targets.shape) < 0.7
    found = main_figures(Answers.of(task, probabilities, targets, known=known))
    apart = []
    for k in range(4):
        rows = known[:, k]
        both = np.column_stack([1 - probabilities[rows, k], probabilities[rows, k]])
        apart.append(score(TASKS["binary"], both, targets[rows, k].astype(np.int64)))
    for name in ("auc", "accuracy", "sensitivity", "specificity"):
        assert found[name].value == pytest.approx(np.mean([one[name]["value"] for one in apart]))
    for k, one in enumerate(apart):
        alone = main_figures(Answers.of(task, probabilities, targets, known=known), [k])
        assert to_dict(alone)["auc"] == pytest.approx(one["auc"], abs=1e-6)


def test_what_is_not_there_is_not_defined():
    task = TASKS["binary"]
    found = main_figures(Answers.of(task, np.tile([0.3, 0.7], (6, 1)), np.ones(6, dtype=np.int64)))
    assert np.isnan(found["auc"].value)
    said = to_dict(found)
    assert said["specificity"] == {"value": None, "low": None, "high": None}
    assert said["sensitivity"]["value"] == 1
    assert said["sensitivity"]["low"] < 0.8
