"""WeCKD's objective against closed forms."""

import math

import pytest
import torch

from stillroom.distillation.objectives.chain import ChainLoss, attention_distance
from stillroom.distillation.step import Step, TeacherOutputs
from stillroom.models.taps import Outputs
from stillroom.task import MultiClass

TASK = MultiClass(("a", "b", "c"))


def make_step(progress=0.0, same=False):
    generator = torch.Generator().manual_seed(1)

    def outputs():
        return torch.randn(5, 3, generator=generator), torch.rand(5, 1, 4, 4, generator=generator)

    (logits, attention), (teacher, other) = outputs(), outputs()
    if same:
        teacher, other = logits, 3 * attention  # the length of an attention does not matter
    student = Outputs(logits.requires_grad_(), torch.zeros(5, 2), torch.zeros(5, 2, 4, 4), attention.requires_grad_())
    said = TeacherOutputs(teacher[None], attentions=[other])
    return Step(torch.zeros(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1]), student, said, TASK, progress)


@pytest.mark.parametrize(
    ("annealing", "at"),
    [
        ("linear", lambda p: 1 + 5 * (1 - p)),
        ("cosine", lambda p: 1 + 5 * (1 + math.cos(math.pi * p)) / 2),
        ("exponential", lambda p: 1 + 5 * 0.8 ** (10 * p)),
        ("constant", lambda p: 6.0),
    ],
)
def test_the_temperature_falls_as_the_formula_says(annealing, at):
    loss = ChainLoss(temperature=6.0, final_temperature=1.0, annealing=annealing, decay=0.8, epochs=10)
    for progress in (0.0, 0.25, 0.5, 0.9):
        assert loss.temperature_at(progress) == pytest.approx(at(progress))
        step = make_step(progress)
        soft = TASK.soft_loss(step.student.logits, step.teachers.logits[0], at(progress)).mean()
        assert torch.allclose(loss(step)["teacher"], 0.5 * soft)


def test_the_terms_are_weighed():
    step = make_step()
    found = ChainLoss(kd_weight=0.3, temperature=2.0, annealing="constant", attention_weight=0.7)(step)
    assert torch.allclose(found["label"], 0.7 * torch.nn.functional.cross_entropy(step.student.logits, step.targets))
    first, second = step.student.attention.flatten(1), step.teachers.attentions[0].flatten(1)
    expected = sum(
        ((a / a.square().sum().sqrt() - b / b.square().sum().sqrt()) ** 2).sum()
        for a, b in zip(first, second, strict=True)
    )
    assert torch.allclose(found["teacher attention"], 0.7 * expected / 5, rtol=1e-5)


def test_a_student_that_agrees_is_satisfied():
    found = ChainLoss()(make_step(same=True))
    assert found["teacher"].abs() < 1e-6
    assert found["teacher attention"].abs() < 1e-6


def test_attentions_without_a_common_place_are_two_apart():
    left, right = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    left[..., 0], right[..., 1] = 1, 5
    assert attention_distance(left, right) == pytest.approx(2.0)
    assert attention_distance(left, torch.nn.functional.interpolate(left, (4, 4))) < 0.2  # another grid is resized


def test_bfloat16_does_not_round_the_distance():
    step = make_step()
    first, second = step.student.attention.detach(), step.teachers.attentions[0]
    near = first + 1e-3 * second
    assert attention_distance(first, near.bfloat16()).dtype == torch.float32
    assert attention_distance(first.bfloat16(), near) == attention_distance(first.bfloat16().float(), near)


def test_attention_can_be_left_out():
    loss = ChainLoss(attention_weight=0.0)
    assert loss.needs == {"teacher_logits"}
    assert set(loss(make_step())) == {"label", "teacher"}


def test_images_without_labels_teach_logits_and_attention():
    loss, step = ChainLoss(temperature=3.0), make_step(0.5)
    labelled, free = loss(step), loss.on_unlabelled(step)
    assert set(free) == {"unlabelled", "unlabelled attention"}
    assert torch.allclose(free["unlabelled"], labelled["teacher"])
    assert torch.allclose(free["unlabelled attention"], labelled["teacher attention"])
