"""DKD and DIST against closed forms and NumPy."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from stillroom.distillation.objectives.dist import DISTLoss
from stillroom.distillation.objectives.dkd import DKDLoss
from stillroom.task import MultiClass, MultiLabel

TWO, FOUR = MultiClass(("a", "b")), MultiClass(tuple("abcd"))
LABELS = MultiLabel(("a", "b", "c"))


# -- DKD ------------------------------------------------------------------------------------------------------------
def parts(step, temperature=4.0):
    return step.task.decoupled_loss(step.student.logits, step.teachers.logits[0], step.targets, temperature)


@pytest.mark.parametrize("task", [TWO, FOUR], ids=["two", "four"])
def test_both_parts_make_up_the_kl(make_step, task):
    """KD = TCKD + (1 - p_T(y)) NCKD, the identity that the paper starts from."""
    step = make_step(task, batch=20)
    target, others = parts(step)
    rest = 1 - (step.teachers.logits[0] / 4).softmax(dim=1).gather(1, step.targets[:, None])[:, 0]
    whole = task.soft_loss(step.student.logits, step.teachers.logits[0], 4.0)
    assert torch.allclose(target + rest * others, whole, atol=1e-5)


def test_parts_by_loops(make_step):
    step = make_step(FOUR, batch=20)
    ours, theirs = (
        softmax(z.detach().double().numpy() / 4, axis=1) for z in (step.student.logits, step.teachers.logits[0])
    )
    target, others = (part.detach().numpy() for part in parts(step))
    for image, truth in enumerate(step.targets.tolist()):
        p, q = theirs[image], ours[image]
        first = p[truth] * np.log(p[truth] / q[truth]) + (1 - p[truth]) * np.log((1 - p[truth]) / (1 - q[truth]))
        second = 0.0
        for other in set(range(4)) - {truth}:
            among, student = p[other] / (1 - p[truth]), q[other] / (1 - q[truth])
            second += among * np.log(among / student)
        assert target[image] == pytest.approx(16 * first, rel=1e-3, abs=1e-5)
        assert others[image] == pytest.approx(16 * second, rel=1e-3, abs=1e-5)


def test_two_classes_leave_exactly_nothing_to_the_others(make_step):
    step = make_step(TWO, batch=20, teachers=1)
    losses = DKDLoss(alpha=1.5)(step)
    assert losses["other classes"].item() == 0
    plain = TWO.soft_loss(step.student.logits, step.teachers.logits[0], 4.0).mean()
    assert losses["target class"].item() == pytest.approx(1.5 * plain.item(), rel=1e-5)
    losses["other classes"].backward()
    assert step.student.logits.grad.abs().max() == 0


@pytest.mark.parametrize("task", [LABELS, LABELS.with_paper_softmax()], ids=["sigmoid", "softmax"])
def test_labels_have_a_true_side_only(make_step, task):
    step = make_step(task, teachers=1)
    losses = DKDLoss()(step)
    plain = task.soft_loss(step.student.logits, step.teachers.logits[0], 4.0).mean()
    assert losses["other classes"].item() == 0
    assert losses["target class"].item() == pytest.approx(plain.item(), rel=1e-6)


def test_extreme_logits_stay_finite():
    """Where masks of -1000 or logarithms of rounded probabilities fail."""
    student = torch.tensor([[3000.0, -3000.0, 0.0], [-200.0, 200.0, 190.0]]).requires_grad_()
    teacher = torch.tensor([[-3000.0, 3000.0, 1.0], [200.0, -200.0, -190.0]])
    task = MultiClass(("a", "b", "c"))
    target, others = task.decoupled_loss(student, teacher, torch.tensor([0, 1]), 1.0)
    (target + others).sum().backward()
    assert torch.isfinite(target).all()
    assert torch.isfinite(others).all()
    assert torch.isfinite(student.grad).all()
    # By hand: image 0's others are (3000, 1) for the teacher and (-3000, 0) for the student.
    assert others[0].item() == pytest.approx(3000)


def test_dkd_warms_up(make_step):
    early, late = (make_step(FOUR, progress=progress) for progress in (0.025, 0.9))
    early, late = (DKDLoss(warm_up=0.1)(step) for step in (early, late))
    for name in ("target class", "other classes"):
        assert early[name].item() == pytest.approx(0.25 * late[name].item())
    assert early["label"] == late["label"]
    assert DKDLoss(warm_up=0.0)(make_step(FOUR, progress=0.0))["target class"] == late["target class"]


# -- DIST -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("task", "probabilities"), [(FOUR, lambda z: softmax(z, axis=-1)), (LABELS, expit)], ids=["softmax", "sigmoid"]
)
def test_dist_by_corrcoef(make_step, task, probabilities):
    step = make_step(task, batch=20, teachers=2)
    student = probabilities(step.student.logits.detach().double().numpy() / 4)
    inter, intra = [], []
    for said in step.teachers.logits.double().numpy():
        teacher = probabilities(said / 4)
        inter += [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(student, teacher, strict=True)]
        intra += [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(student.T, teacher.T, strict=True)]
    losses = DISTLoss(beta=2.0, gamma=3.0)(step)
    assert losses["between classes"].item() == pytest.approx(16 * 2 * np.mean(inter), rel=1e-4)
    assert losses["within classes"].item() == pytest.approx(16 * 3 * np.mean(intra), rel=1e-4)


def test_dist_asks_for_no_more_than_a_straight_line(make_step):
    """Two sigmoids that agree up to scale and shift are a perfect match; KL would object."""
    step = make_step(LABELS, teachers=1)
    far = torch.logit(0.3 + 0.2 * torch.sigmoid(step.student.logits.detach() / 4)) * 4
    losses = DISTLoss()(make_step(LABELS, logits=far[None]))
    assert losses["between classes"].item() == pytest.approx(0, abs=1e-4)
    assert losses["within classes"].item() == pytest.approx(0, abs=1e-4)


def test_two_classes_tell_dist_only_the_side(make_step):
    step = make_step(TWO, batch=20, teachers=1)
    losses = DISTLoss(beta=1.0, gamma=1.0)(step)
    sides = [logits.argmax(dim=1) for logits in (step.student.logits, step.teachers.logits[0])]
    assert losses["between classes"].item() == pytest.approx(
        16 * 2 * (sides[0] != sides[1]).float().mean().item(), rel=1e-5
    )
    losses["between classes"].backward(retain_graph=True)
    assert step.student.logits.grad.abs().max() < 1e-4
    losses["within classes"].backward()
    assert step.student.logits.grad.abs().max() > 0.01


def test_rows_that_do_not_vary_cost_dist_nothing(make_step):
    for task in (TWO, FOUR, LABELS):
        step = make_step(task, batch=4)
        with torch.no_grad():
            step.student.logits[:] = 1.0
        losses = DISTLoss()(step)
        assert losses["between classes"].item() == losses["within classes"].item() == 0
        (losses["between classes"] + losses["within classes"]).backward()
        assert step.student.logits.grad.abs().max() == 0
    assert DISTLoss()(make_step(FOUR, batch=1))["within classes"].item() == 0
