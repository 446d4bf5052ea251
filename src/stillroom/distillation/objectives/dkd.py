"""Decoupled knowledge distillation (Zhao et al., CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.distillation.step import Objective, Step
from stillroom.ranges import not_negative, positive, share


class DKDLoss(Objective):
    """``CE + w * (alpha * TCKD + beta * NCKD)``, averaged over the teachers.

    Plain KL is ``TCKD + (1 - p_T(y)) * NCKD``: a sure teacher's answers about the other classes hardly count. Here they
    have a weight of their own. See :meth:`Task.decoupled_loss` for both parts. Two classes leave no others to compare:
    NCKD is exactly 0 and the teacher's part is ``alpha`` times plain KL, as for every label of a multi-label task.

    Images without labels get plain KL, weighed by alpha.

    Args:
        alpha: weight of TCKD, how sure of the true class.
        beta: weight of NCKD, how the others compare.
        temperature: ``t`` > 0.
        warm_up: share of the training in which ``w`` rises from 0 to 1 in a line (the authors: 20 of 240 epochs).
    """

    needs = frozenset({"teacher_logits"})

    def __init__(
        self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, warm_up: float = 20 / 240
    ) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta)):
            not_negative(name, value)
        positive("temperature", temperature)
        share("warm_up", warm_up)
        self.teacher_weight, self.beta = alpha, beta
        self.temperature, self.warm_up = temperature, warm_up

    def forward(self, step: Step) -> dict[str, Tensor]:
        assert step.teachers is not None
        task, logits, temperature = step.task, step.student.logits, self.temperature_at(step.progress)

        def parts(said: Tensor) -> Tensor:
            """``[2, B]``."""
            return step.by_label(lambda targets: torch.stack(task.decoupled_loss(logits, said, targets, temperature)))

        target, others = torch.stack([parts(said) for said in step.teachers.logits]).mean(dim=(0, 2))
        share = 1.0 if step.progress >= self.warm_up else step.progress / self.warm_up
        return {
            "label": step.label_loss().mean(),
            "target class": share * self.teacher_weight * target,
            "other classes": share * self.beta * others,
        }
