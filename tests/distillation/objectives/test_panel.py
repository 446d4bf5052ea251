"""A panel's one voice and its features, against closed forms."""

import numpy as np
import pytest
import torch

from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.distillation.objectives.panel import PanelLoss
from stillroom.task import MultiClass

TASK = MultiClass(("a", "b", "c"))


def test_one_teacher_is_plain_distillation(make_step):
    step = make_step(TASK, teachers=1)
    ours, plain = PanelLoss(0.3, 4.0)(step), HybridLoss(0.3, 4.0)(step)
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_a_panel_answers_with_the_mean_of_its_logits(make_step):
    step = make_step(TASK, teachers=3)
    mean = step.teachers.logits.mean(dim=0)
    p, q = (mean / 2).softmax(1), (step.student.logits / 2).softmax(1)
    expected = 0.5 * 4 * (p * (p / q).log()).sum(dim=1).mean()
    assert torch.allclose(PanelLoss()(step)["teacher"], expected, atol=1e-6)


@pytest.mark.parametrize("scale", [3.0, 0.01])
def test_features_are_compared_on_the_teachers_own_scale(make_step, scale):
    step = make_step(TASK, teachers=2)
    known = [5 + scale * torch.randn(50, found.shape[1]) for found in step.teachers.pooled]
    objective = PanelLoss(feature_weight=2.0, student=step.student.pooled.shape[1], features=known)
    gaps = []
    for projector, found, seen in zip(objective.projectors, known, step.teachers.pooled, strict=True):
        wanted = (seen.numpy() - found.numpy().mean(0)) / found.numpy().std(0)
        said = (
            step.student.pooled.detach().numpy() @ projector.weight.detach().numpy().T + projector.bias.detach().numpy()
        )
        gaps.append(((said - wanted) ** 2).mean())
    assert float(objective(step)["features"].detach()) == pytest.approx(2 * np.mean(gaps), rel=1e-4)
    assert objective.needs == {"teacher_logits", "pooled"}
    assert PanelLoss().needs == {"teacher_logits"}
    assert "unlabelled features" in objective.on_unlabelled(step)
