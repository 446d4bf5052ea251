"""DIST: the student need only agree with the teacher up to scale and shift (Huang et al., NeurIPS 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.distillation.objectives.transfer import Transfer
from stillroom.distillation.step import Step
from stillroom.ranges import not_negative, positive

_CONSTANT = 1e-6  # a deviation below it is the rounding of probabilities in float32


class DISTLoss(Transfer):
    """``CE + t^2 * (beta * inter + gamma * intra)``, averaged over the teachers; each part is 1 - Pearson's correlation.

    ``inter`` correlates each image's probabilities over the classes, ``intra`` each class's (label's) probabilities over
    the images of the batch. With two classes an image's probabilities are ``(p, 1 - p)``: their correlation is +1 or -1,
    so that ``inter`` tells only whether the two favour the same class and has no gradient; ``intra`` does all the work.

    A row that does not vary (equal probabilities, or a batch of one for ``intra``) has no correlation: it costs nothing.

    Args:
        beta: weight of ``inter``.
        gamma: weight of ``intra``.
        temperature: ``t`` > 0.
    """

    needs = frozenset({"teacher_logits"})

    def __init__(self, beta: float = 2.0, gamma: float = 2.0, temperature: float = 4.0) -> None:
        super().__init__()
        for name, value in (("beta", beta), ("gamma", gamma)):
            not_negative(name, value)
        positive("temperature", temperature)
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def transferred(self, step: Step) -> dict[str, Tensor]:
        assert step.teachers is not None
        temperature = self.temperature_at(step.progress)
        student = step.task.torch_probabilities(step.student.logits, temperature)
        teachers = [step.task.torch_probabilities(said, temperature) for said in step.teachers.logits]
        inter = torch.stack([_disagreement(student, teacher) for teacher in teachers]).mean()
        intra = torch.stack([_disagreement(student.T, teacher.T) for teacher in teachers]).mean()
        scale = temperature**2
        return {"between classes": scale * self.beta * inter, "within classes": scale * self.gamma * intra}


def _disagreement(first: Tensor, second: Tensor) -> Tensor:
    """Mean over rows of 1 - Pearson's correlation of ``[R, n]`` with ``[R, n]``, in [0, 2]; rows that do not vary: 0."""
    first, second = (rows - rows.mean(dim=1, keepdim=True) for rows in (first, second))
    energy, other = first.square().sum(dim=1), second.square().sum(dim=1)
    varies = (energy > _CONSTANT**2) & (other > _CONSTANT**2)
    # Chosen before the root, not after: the gradient of a root at 0 is infinite and would survive a mask.
    size = torch.where(varies, energy, 1.0).sqrt() * torch.where(varies, other, 1.0).sqrt()
    correlation = (first * second).sum(dim=1) / size
    return torch.where(varies, 1 - correlation, 0.0).mean()
