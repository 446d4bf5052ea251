"""The linear head against scikit-learn's logistic regression, and its choice on validation."""

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


def test_the_penalty_is_picked_on_validation():
    task = MultiClass(("a", "b"))
    noisy = make(task, count=60, width=200, signal=0.15)
    easy = make(task, count=600, width=4, signal=3.0)
    penalty = {name: float(fit_by_lbfgs(task, data).chosen.split()[-1]) for name, data in (("n", noisy), ("e", easy))}
    assert penalty["n"] > penalty["e"]
