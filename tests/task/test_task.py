"""The task's losses against closed forms, and its decisions."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from stillroom.errors import UsageError
from stillroom.task import MultiClass, MultiLabel, from_description

BINARY = MultiClass(("no", "yes"))
THREE = MultiClass(("a", "b", "c"))
GRADES = MultiClass(("0", "1", "2", "3"), ordinal=True)
LABELS = MultiLabel(("x", "y", "z"))
ALL = (BINARY, THREE, GRADES, LABELS, LABELS.with_paper_softmax())


def targets_of(task, count=8):
    rng = np.random.default_rng(0)
    if task.exclusive:
        return rng.integers(0, len(task.classes), count)
    return rng.integers(0, 2, (count, len(task.classes))).astype(np.uint8)


def logits_of(task, count=8, seed=1):
    return torch.randn(count, len(task.classes), generator=torch.Generator().manual_seed(seed)) * 3


def test_kinds_are_told_apart():
    assert [task.kind for task in ALL] == ["binary", "multiclass", "ordinal", "multilabel", "multilabel"]
    assert BINARY.scored == (1,)
    assert GRADES.scored == (0, 1, 2, 3)
    with pytest.raises(UsageError, match="two classes"):
        MultiClass(("only",))
    with pytest.raises(UsageError, match="differ"):
        MultiClass(("a", "a"))


def test_soft_loss_of_two_classes_by_hand():
    # p_T = (1/4, 3/4) and p_S = (1/2, 1/2) at temperature 2: logits are 2 log p.
    teacher = 2 * torch.tensor([[0.25, 0.75]]).log()
    student = 2 * torch.tensor([[0.5, 0.5]]).log()
    forward = 4 * (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5))
    reverse = 4 * (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert BINARY.soft_loss(student, teacher, 2.0).item() == pytest.approx(forward, abs=1e-6)
    assert BINARY.soft_loss(student, teacher, 2.0, "reverse").item() == pytest.approx(reverse, abs=1e-6)


def test_soft_loss_of_labels_is_a_mean_of_bernoulli_kl():
    student, teacher = logits_of(LABELS, seed=1), logits_of(LABELS, seed=2)
    p, q = (teacher.double() / 3).sigmoid(), (student.double() / 3).sigmoid()
    expected = 9 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1)
    assert torch.allclose(LABELS.soft_loss(student, teacher, 3.0).double(), expected, atol=1e-5)
    extreme = LABELS.soft_loss(torch.tensor([[-200.0, 200.0, 0.0]]), torch.tensor([[200.0, -200.0, 0.0]]), 1.0)
    assert torch.isfinite(extreme).all()


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_soft_loss_is_zero_at_a_perfect_match_and_positive_elsewhere(task, direction):
    logits = logits_of(task)
    assert task.soft_loss(logits, logits.clone(), 4.0, direction).abs().max() < 1e-5
    assert (task.soft_loss(logits, logits_of(task, seed=5), 4.0, direction) > 0).all()


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_gradient_of_a_hot_soft_loss_matches_logit_regression(task):
    """Hinton's limit: for t -> infinity, t^2 KL is a squared distance of (centred) logits over 2K (labels: over 8K)."""
    student, teacher = logits_of(task).double().requires_grad_(), logits_of(task, seed=3).double()
    task.soft_loss(student, teacher, 1000.0).sum().backward()
    gap = (student - teacher).detach()
    count = len(task.classes)
    if task.exclusive or task.paper_softmax:
        expected = (gap - gap.mean(1, keepdim=True)) / count
    else:
        expected = gap / (4 * count)
    assert torch.allclose(student.grad.float(), expected.float(), atol=2e-2)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_losses_accept_bfloat16_and_a_batch_of_one(task):
    logits = logits_of(task, 1).bfloat16().requires_grad_()
    target = torch.from_numpy(targets_of(task, 1))
    loss = task.hard_loss(logits, target) + task.soft_loss(logits, logits_of(task, 1, seed=9).bfloat16(), 2.0)
    assert loss.shape == (1,)
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_hard_loss_agrees_with_nll_in_numpy(task):
    logits, targets = logits_of(task), targets_of(task)
    torch_value = task.hard_loss(logits, torch.from_numpy(targets)).mean().item()
    assert torch_value == pytest.approx(task.nll(logits.numpy(), targets), rel=1e-5)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_probabilities_agree_between_numpy_and_torch(task):
    logits = logits_of(task)
    found = task.probabilities(logits.numpy(), 1.7)
    assert np.allclose(found, task.torch_probabilities(logits, 1.7).numpy(), atol=1e-6)
    if task.exclusive:
        assert np.allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_names_and_descriptions_round_trip(task):
    targets = targets_of(task)
    assert (task.parse(task.names(targets)) == targets).all()
    assert from_description(task.describe()) == task
    assert (task.decide(task.one_hot(targets).astype(float)) == targets).all()


def test_unknown_labels_are_named():
    with pytest.raises(UsageError, match="'d' is not one of the classes: a, b, c"):
        THREE.parse(["a", "d"])
    with pytest.raises(UsageError, match="'w'"):
        LABELS.parse(["x;w"])


def test_selection_metrics_against_sklearn():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200)
    probabilities = rng.dirichlet(np.ones(4), 200)
    kappa = cohen_kappa_score(targets, probabilities.argmax(1), weights="quadratic")
    assert GRADES.select(probabilities, targets) == pytest.approx(kappa)
    plain = MultiClass(GRADES.classes)
    auc = roc_auc_score(targets, probabilities, multi_class="ovr")
    assert plain.select(probabilities, targets) == pytest.approx(auc)


def test_an_undefined_metric_leaves_the_likelihood_to_decide():
    one_class = np.ones(5, dtype=np.int64)
    better, worse = np.tile([0.0, 2.0], (5, 1)), np.tile([0.0, 1.0], (5, 1))
    assert math.isnan(BINARY.select(BINARY.probabilities(better), one_class))
    assert BINARY.rank(better, one_class) > BINARY.rank(worse, one_class)


def test_class_weights_undo_imbalance():
    targets = np.array([0] * 6 + [1] * 3 + [2] * 1)
    weights = THREE.class_weights(targets)
    assert weights == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert weights[targets].mean() == pytest.approx(1.0)
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.uint8)
    assert LABELS.class_weights(labels) == pytest.approx([3.0, 4.0, 0.1])


def test_paper_softmax_is_for_labels_alone():
    with pytest.raises(UsageError, match="multi-label"):
        THREE.with_paper_softmax()
    assert LABELS.with_paper_softmax().probabilities(np.zeros((1, 3))).sum() == pytest.approx(1.0)


def test_the_stratum_of_a_multilabel_row_is_its_rarest_label():
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 0, 1]], dtype=np.uint8)
    assert LABELS.stratum(targets).tolist() == [1, 0, 3, 2, 2]
