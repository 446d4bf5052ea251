"""Focal loss and the hybrid of hard and soft targets against their formulas."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.distillation.objectives.imbalance import FocalKD, FocalLoss
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.task import MultiClass, MultiLabel

THREE, LABELS = MultiClass(("a", "b", "c")), MultiLabel(("a", "b", "c"))
TASKS = (MultiClass(("a", "b")), THREE, LABELS, LABELS.with_paper_softmax())


def weights_of(task):
    return torch.tensor([0.5, 2.0, 3.0][: len(task.classes)])


@pytest.mark.parametrize("task", TASKS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_at_gamma_0_is_the_hard_loss(make_step, task, weighted):
    step = make_step(task, batch=20)
    weights = weights_of(task) if weighted else None
    plain = task.hard_loss(step.student.logits, step.targets, weights)
    assert torch.allclose(task.focal_loss(step.student.logits, step.targets, 0.0, weights), plain, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_cross_entropy_by_its_formula(make_step, gamma):
    step, weights = make_step(THREE, batch=20), weights_of(THREE)
    chance = softmax(step.student.logits.detach().double().numpy(), axis=1)[np.arange(20), step.targets]
    expected = -weights.numpy()[step.targets] * (1 - chance) ** gamma * np.log(chance)
    found = THREE.focal_loss(step.student.logits, step.targets, gamma, weights)
    assert found.detach().numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_binary_cross_entropy_by_its_formula(make_step, gamma):
    step, weights = make_step(LABELS, batch=20), weights_of(LABELS)
    yes, truth = expit(step.student.logits.detach().double().numpy()), step.targets.numpy()
    chance = np.where(truth, yes, 1 - yes)
    losses = -np.where(truth, weights.numpy(), 1.0) * (1 - chance) ** gamma * np.log(chance)
    found = LABELS.focal_loss(step.student.logits, step.targets, gamma, weights)
    assert found.detach().numpy() == pytest.approx(losses.mean(axis=1), rel=1e-4)


@pytest.mark.parametrize("task", TASKS, ids=str)
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_certainty_has_a_finite_gradient(task, gamma):
    count = len(task.classes)
    logits = torch.full((1, count), -80.0).index_fill(1, torch.tensor([0]), 80.0).requires_grad_()
    targets = torch.tensor([0]) if task.exclusive else torch.eye(count, dtype=torch.uint8)[:1]
    loss = task.focal_loss(logits, targets, gamma)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_mse_by_its_formula(make_step):
    for task, probabilities in ((THREE, lambda z: softmax(z, axis=-1)), (LABELS, expit)):
        step = make_step(task, teachers=2)
        student, teachers = step.student.logits.detach().double().numpy(), step.teachers.logits.double().numpy()
        expected = 9 * ((probabilities(student / 3) - probabilities(teachers / 3)) ** 2).mean()
        found = FocalKD(alpha=0.3, temperature=3.0, kd="mse")(step)["teacher"]
        assert found.item() == pytest.approx(0.7 * expected, rel=1e-4)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_with_cross_entropy_and_kl_it_is_the_hybrid(make_step, task):
    step = make_step(task)
    ours, theirs = FocalKD(0.3, 4.0)(step), HybridLoss(0.3, 4.0)(step)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    assert torch.allclose(FocalKD(0.3).on_unlabelled(step)["unlabelled"], theirs["teacher"], atol=1e-6)


def test_class_weights_and_gamma_reach_the_labels_alone(make_step):
    step = make_step(THREE)
    weighted = replace(step, class_weights=weights_of(THREE))
    plain = FocalKD()(step)
    for losses, expected in (
        (FocalKD()(weighted), LabelLoss()(weighted)["label"]),
        (FocalKD(gamma=2.0)(step), FocalLoss(2.0)(step)["label"]),
    ):
        assert torch.allclose(losses["label"], 0.5 * expected)
        assert not torch.allclose(losses["label"], plain["label"])
        assert torch.equal(losses["teacher"], plain["teacher"])
