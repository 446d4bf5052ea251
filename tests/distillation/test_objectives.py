"""Every objective, for every kind of task: finite, differentiable in the student alone, zero where claimed."""

import pytest
import torch

from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.distillation.objectives.labels import LabelLoss
from stillroom.distillation.step import Step, TeacherOutputs
from stillroom.errors import UsageError
from stillroom.models.taps import Outputs
from stillroom.task import MultiClass, MultiLabel

TASKS = (
    MultiClass(("a", "b")),
    MultiClass(("a", "b", "c")),
    MultiClass(("a", "b", "c"), ordinal=True),
    MultiLabel(("a", "b", "c")),
    MultiLabel(("a", "b", "c"), paper_softmax=True),
)
OBJECTIVES = (LabelLoss(), HybridLoss(), HybridLoss(0.5, 4.0, "teacher", "reverse"))


def make_step(task, batch=6, teachers=2, dtype=torch.float32, teacher_logits=None):
    generator = torch.Generator().manual_seed(0)
    classes = len(task.classes)
    logits = torch.randn(batch, classes, generator=generator).to(dtype).requires_grad_()
    pooled = torch.randn(batch, 5, generator=generator).to(dtype).requires_grad_()
    maps = torch.randn(batch, 5, 4, 4, generator=generator).to(dtype).requires_grad_()
    if task.exclusive:
        targets = torch.randint(0, classes, (batch,), generator=generator)
    else:
        targets = torch.randint(0, 2, (batch, classes), generator=generator)
    if teacher_logits is None:
        teacher_logits = torch.randn(teachers, batch, classes, generator=generator).requires_grad_()
    outputs = TeacherOutputs(teacher_logits)
    return Step(torch.rand(batch, 1, 8, 8), targets, Outputs(logits, pooled, maps), outputs, task, 0.5)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind)
@pytest.mark.parametrize("batch", [6, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_contract(objective, task, batch, dtype):
    step = make_step(task, batch, dtype=dtype)
    losses = objective(step)
    assert losses
    assert all(value.ndim == 0 and torch.isfinite(value) and value >= 0 for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert step.student.logits.grad is not None
    assert torch.isfinite(step.student.logits.grad).all()


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind)
def test_hybrid_weights_its_two_terms(task):
    step = make_step(task, teachers=1)
    label = LabelLoss()(step)["label"]
    soft = task.soft_loss(step.student.logits, step.teachers.logits[0], 2.0).mean()
    paper = HybridLoss(alpha=0.2, temperature=2.0)(step)
    assert torch.allclose(paper["label"], 0.2 * label)
    assert torch.allclose(paper["teacher"], 0.8 * soft)
    swapped = HybridLoss(alpha=0.2, temperature=2.0, alpha_role="teacher")(step)
    assert torch.allclose(swapped["label"], 0.8 * label)
    assert torch.allclose(swapped["teacher"], 0.2 * soft)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.kind)
def test_hybrid_is_satisfied_by_a_student_that_says_what_the_teacher_says(task):
    logits = make_step(task).student.logits.detach()
    step = make_step(task, teacher_logits=logits[None])
    assert HybridLoss()(step)["teacher"].abs() < 1e-5


def test_several_teachers_are_averaged():
    task = TASKS[1]
    step = make_step(task, teachers=3)
    soft = [task.soft_loss(step.student.logits, teacher, 2.0).mean() for teacher in step.teachers.logits]
    assert torch.allclose(HybridLoss()(step)["teacher"], 0.8 * sum(soft) / 3)


def test_settings_out_of_range_are_refused():
    with pytest.raises(UsageError, match="alpha"):
        HybridLoss(alpha=1.2)
    with pytest.raises(UsageError, match="temperature"):
        HybridLoss(temperature=0)
