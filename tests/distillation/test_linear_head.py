"""The linear head against scikit-learn's logistic regression, and its choice on validation."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from stillroom.distillation import linear_head
from stillroom.distillation.linear_head import HeadData, fit_by_adam, fit_by_lbfgs
from stillroom.task import MultiClass, MultiLabel


def make(task, count=300, width=12, signal=2.0):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, len(task.classes), count)
    centres = rng.normal(0, signal, (len(task.classes), width))
    scale = rng.uniform(0.1, 10, width)  # badly scaled on purpose
    features = ((centres[kinds] + rng.normal(0, 2, (count, width))) * scale + 3).astype(np.float32)
    targets = kinds if task.exclusive else np.eye(len(task.classes), dtype=np.uint8)[kinds]
    half = count // 2
    return HeadData(features[:half], targets[:half], features[half:], targets[half:])


def logits(linear, features):
    with torch.no_grad():
        return linear(torch.from_numpy(features)).numpy()


def test_it_is_the_optimum_that_sklearn_finds(monkeypatch):
    task = MultiClass(("a", "b", "c"))
    data = make(task)
    monkeypatch.setattr(linear_head, "_PENALTIES", (0.1,))
    found = fit_by_lbfgs(task, data)
    mean, scale = data.train.mean(0), data.train.std(0) + 1e-6
    oracle = LogisticRegression(C=1 / (0.1 * len(data.train)), max_iter=1000, tol=1e-8)
    oracle.fit((data.train - mean) / scale, data.train_targets)
    expected = oracle.predict_proba((data.val - mean) / scale)
    assert task.probabilities(logits(found.linear, data.val)) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("task", [MultiClass(("a", "b", "c")), MultiLabel(("a", "b", "c"))], ids=lambda t: t.kind)
@pytest.mark.parametrize("fit", [fit_by_lbfgs, fit_by_adam])
def test_it_separates_what_can_be_separated(task, fit):
    data = make(task, signal=6.0)
    found = fit(task, data)
    assert found.value > 0.95
    assert task.rank(logits(found.linear, data.val), data.val_targets)[0] == pytest.approx(found.value)


def penalty(found):
    return float(found.chosen.split()[2].rstrip(","))


@pytest.mark.parametrize("count", [60, 600], ids=["by cross-validation", "on validation"])
def test_noise_is_penalised_more_than_signal(count):
    task = MultiClass(("a", "b"))
    noisy = fit_by_lbfgs(task, make(task, count=count, width=200, signal=0.15))
    easy = fit_by_lbfgs(task, make(task, count=count, width=4, signal=3.0))
    assert penalty(noisy) > penalty(easy)
    assert all(("validation" in found.chosen) and ("cross" in found.chosen) == (count == 60) for found in (noisy, easy))


def test_few_validation_images_do_not_choose():
    task = MultiClass(("a", "b"))
    data = make(task, count=60, width=50, signal=0.5)
    lucky = dataclasses.replace(data, val=data.val[:4] * 50, val_targets=data.val_targets[:4])
    assert penalty(fit_by_lbfgs(task, lucky)) == penalty(fit_by_lbfgs(task, data))


def test_images_of_one_patient_are_on_one_side_when_the_penalty_is_chosen():
    """Each patient's images are copies, and the labels are noise: only torn patients would make noise look learnable."""
    task = MultiClass(("a", "b"))
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 5)
    train, targets = rng.normal(size=(20, 40)).astype(np.float32)[patients], rng.integers(0, 2, 20)[patients]
    data = HeadData(train, targets, train[:5], targets[:5])
    torn, whole = fit_by_lbfgs(task, data), fit_by_lbfgs(task, dataclasses.replace(data, groups=patients))
    assert penalty(whole) > penalty(torn)


@pytest.mark.parametrize("fit", [fit_by_lbfgs, fit_by_adam])
def test_two_images_a_class_or_one_patient_still_give_a_head(fit):
    task = MultiClass(("a", "b", "c"))
    data = make(task, count=12, width=8, signal=6.0)
    few = HeadData(data.train[:3], np.arange(3), data.val, data.val_targets)
    assert np.isfinite(logits(fit(task, few).linear, few.val)).all()
    alone = dataclasses.replace(data, groups=np.zeros(len(data.train), dtype=np.int64))
    assert np.isfinite(logits(fit(task, alone).linear, alone.val)).all()
    if fit is fit_by_lbfgs:
        assert "for want of images" in fit(task, alone).chosen


def test_a_dead_feature_is_not_blown_up():
    task = MultiClass(("a", "b"))
    data = make(task, count=200, width=6, signal=3.0)
    noise = np.random.default_rng(1).normal(0, 1e-7, (200, 1)).astype(np.float32)
    dead = HeadData(
        np.hstack([data.train, noise[:100]]), data.train_targets, np.hstack([data.val, noise[100:]]), data.val_targets
    )
    found = fit_by_lbfgs(task, dead)
    moved = dead.val.copy()
    moved[:, -1] += 1e-4  # rounding of another batch
    assert logits(found.linear, moved) == pytest.approx(logits(found.linear, dead.val), abs=0.05)


def test_an_adam_head_that_was_clearly_better_before_goes_back_there():
    """Labels of training contradict those of validation, so that every step makes it worse: the first epoch is kept."""
    task, rng = MultiClass(("a", "b")), np.random.default_rng(0)
    features = rng.normal(size=(400, 4)).astype(np.float32)
    truth = (features[:, 0] + 0.5 * rng.normal(size=400) > 0).astype(np.int64)
    wrong = np.concatenate([1 - truth[:200], truth[200:]])
    data = HeadData(features[:200], wrong[:200], features[200:], truth[200:])
    kept, end = fit_by_adam(task, data, epochs=30, lr=0.05), fit_by_adam(task, data, epochs=1, lr=0.05)
    assert kept.chosen == "epoch 1"
    assert torch.equal(kept.linear.weight, end.linear.weight)
    right = fit_by_adam(task, dataclasses.replace(data, train_targets=truth[:200]), epochs=30, lr=0.05)
    assert right.chosen == "epoch 30"
