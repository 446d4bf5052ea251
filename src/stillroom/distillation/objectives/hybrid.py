"""MedAlmighty's hybrid of cross-entropy and temperature-scaled KL (MedAlmighty 2025; see docs/recipes.md)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from stillroom.distillation.step import Objective, Step
from stillroom.ranges import positive, share
from stillroom.task import Direction


class HybridLoss(Objective):
    """``alpha * CE(y, p_S) + (1 - alpha) * t^2 * KL(p_T^t || p_S^t)``.

    With several teachers the KL is the mean over them.

    Args:
        alpha: weight in [0, 1] of the term that ``alpha_role`` names; the other term weighs ``1 - alpha``.
        temperature: ``t`` > 0, softens both distributions.
        alpha_role: ``label`` as the paper's equation has it, or ``teacher``, the reading that fits the paper's
            sweeps better.
        direction: ``forward`` is KL(teacher || student); ``reverse`` is the order the paper's formula prints.
    """

    needs = frozenset({"teacher_logits"})

    def __init__(
        self,
        alpha: float = 0.2,
        temperature: float = 2.0,
        alpha_role: Literal["label", "teacher"] = "label",
        direction: Direction = "forward",
    ) -> None:
        super().__init__()
        share("alpha", alpha)
        positive("temperature", temperature)
        self.teacher_weight = 1 - alpha if alpha_role == "label" else alpha
        self.temperature, self.direction = temperature, direction

    def forward(self, step: Step) -> dict[str, Tensor]:
        label = step.label_loss().mean()
        return {"label": (1 - self.teacher_weight) * label, "teacher": self.teacher_weight * self.soft_loss(step)}
