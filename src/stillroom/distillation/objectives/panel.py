"""A panel of teachers that answers with one voice, and what it sees beside what it says. See docs/recipes.md#best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.distillation.maps import initial_weights
from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.distillation.step import Step
from stillroom.ranges import not_negative


class PanelLoss(HybridLoss):
    """``alpha * CE + (1 - alpha) * t^2 * KL(panel || student) + feature_weight * mean((P_k h_S - z_k)^2)``.

    The panel's answer is the mean of its members' logits, as its figures in the report are. ``z_k`` are member k's pooled
    features, standardised over the training images; ``P_k`` is a linear map of the student's pooled features, trained with it
    and left behind. A student that knows nothing of the features has a term of about ``feature_weight``.

    Args:
        alpha: weight in [0, 1] of the labels.
        temperature: ``t`` > 0.
        feature_weight: at least 0; 0 leaves the features alone.
        student: dimensions of the student's pooled features.
        features: for each member, ``[n, D_k]`` float32 pooled features of training images; read where ``feature_weight`` > 0.
        seed: of the initial weights of ``P_k``.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        temperature: float = 2.0,
        *,
        feature_weight: float = 0.0,
        student: int = 0,
        features: Sequence[Tensor] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(alpha, temperature)
        not_negative("feature_weight", feature_weight)
        self.feature_weight = feature_weight
        self.needs = needs_of(feature_weight)
        known = features if feature_weight else ()
        with initial_weights(seed):
            self.projectors = nn.ModuleList(nn.Linear(student, found.shape[1]) for found in known)
        for number, found in enumerate(known):
            self.register_buffer(f"mean_{number}", found.mean(dim=0))
            self.register_buffer(f"scale_{number}", found.std(dim=0, correction=0).clamp(min=1e-6))

    def forward(self, step: Step) -> dict[str, Tensor]:
        return super().forward(step) | self._features(step, "features")

    def on_unlabelled(self, step: Step) -> dict[str, Tensor]:
        return super().on_unlabelled(step) | self._features(step, "unlabelled features")

    def soft_loss(self, step: Step) -> Tensor:
        assert step.teachers is not None
        panel, temperature = step.teachers.logits.mean(dim=0), self.temperature_at(step.progress)
        return step.task.soft_loss(step.student.logits, panel, temperature, self.direction).mean()

    def _features(self, step: Step, name: str) -> dict[str, Tensor]:
        if not self.feature_weight:
            return {}
        assert step.teachers is not None
        gaps = []
        for number, (projector, seen) in enumerate(zip(self.projectors, step.teachers.pooled, strict=True)):
            wanted = (seen.float() - getattr(self, f"mean_{number}")) / getattr(self, f"scale_{number}")
            gaps.append(F.mse_loss(projector(step.student.pooled).float(), wanted))
        return {name: self.feature_weight * torch.stack(gaps).mean()}


def needs_of(feature_weight: float) -> frozenset[str]:
    """What the loss reads of its teachers with this weight of the features' term."""
    return frozenset({"teacher_logits", "pooled"} if feature_weight else {"teacher_logits"})
