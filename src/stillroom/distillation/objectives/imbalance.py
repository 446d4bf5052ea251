"""Class weights or focal loss on the labels, KL or squared error on the soft targets (see docs/recipes.md#explainable_kd).

After explainable KD (arXiv 2508.15251) and the paper whose method it follows (Termritthikun et al. 2024, arXiv
2305.06244). Focal loss: Lin et al. 2017, eq. 4.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stillroom.distillation.step import Objective, Step
from stillroom.ranges import not_negative, positive, share


class FocalLoss(Objective):
    """The labels alone, easy images counting less: ``(1 - p_y)^gamma * CE``.

    Args:
        gamma: at least 0; 0 is cross-entropy.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        not_negative("gamma", gamma)
        self.gamma = gamma

    def forward(self, step: Step) -> dict[str, Tensor]:
        task, logits, weights = step.task, step.student.logits, step.class_weights
        losses = step.by_label(lambda targets: task.focal_loss(logits, targets, self.gamma, weights))
        return {"label": losses.mean()}


class FocalKD(FocalLoss):
    """``alpha * hard + (1 - alpha) * t^2 * soft``.

    Hard is :class:`FocalLoss`, with the step's class weights where it has some. Soft compares softened probabilities:
    their KL divergence, or their squared difference averaged over classes (labels). Averaged over the teachers.

    Args:
        alpha: weight in [0, 1] of the labels.
        temperature: ``t`` > 0.
        kd: ``kl`` or ``mse``.
        gamma: of the focal loss; 0 is cross-entropy.
    """

    needs = frozenset({"teacher_logits"})

    def __init__(
        self, alpha: float = 0.5, temperature: float = 4.0, kd: Literal["kl", "mse"] = "kl", gamma: float = 0.0
    ) -> None:
        super().__init__(gamma)
        share("alpha", alpha)
        positive("temperature", temperature)
        self.teacher_weight, self.temperature, self.kd = 1 - alpha, temperature, kd

    def forward(self, step: Step) -> dict[str, Tensor]:
        label = super().forward(step)["label"]
        return {"label": (1 - self.teacher_weight) * label, "teacher": self.teacher_weight * self.soft_loss(step)}

    def soft_loss(self, step: Step) -> Tensor:
        if self.kd == "kl":
            return super().soft_loss(step)
        assert step.teachers is not None
        temperature = self.temperature_at(step.progress)
        student, *teachers = (
            step.task.torch_probabilities(logits, temperature)
            for logits in (step.student.logits, *step.teachers.logits)
        )
        return temperature**2 * torch.stack([(student - teacher).square().mean() for teacher in teachers]).mean()
