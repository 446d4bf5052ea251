"""Self-distillation with labels: the auxiliary network's softened answers beside the cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from stillroom.distillation.objectives.momentum import MomentumSchedule
from stillroom.distillation.objectives.self_distillation import SelfDistillation
from stillroom.distillation.step import Step
from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.models.taps import Outputs
from stillroom.ranges import not_negative, positive


class LogitSelfDistillation(SelfDistillation):
    """``CE(y, p_theta) + lambda t^2 KL(p_xi^t || p_theta^t)``, the mean over both views.

    Each view learns from the auxiliary network's answer to the other one. Cross-entropy and KL are the task's.

    Args:
        auxiliary: ``xi``, see :class:`SelfDistillation`.
        momentum: likewise.
        schedule: likewise.
        temperature: ``t`` > 0.
        weight: ``lambda`` >= 0.
    """

    def __init__(
        self,
        auxiliary: Network,
        momentum: float = 0.99,
        schedule: MomentumSchedule = "constant",
        *,
        temperature: float = 4.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(auxiliary, momentum, schedule)
        positive("temperature", temperature)
        not_negative("weight", weight)
        self.temperature, self.weight = temperature, weight

    def forward(self, step: Step) -> dict[str, Tensor]:
        assert step.other is not None
        task, students = step.task, (step.student.logits, step.other.logits)
        first, second = (self.soft_targets(outputs) for outputs in self.said(step))
        hard = [task.hard_loss(logits, step.targets, step.class_weights) for logits in students]
        soft = [
            task.soft_loss(logits, target, self.temperature)
            for logits, target in zip(students, (second, first), strict=True)
        ]
        return {"label": torch.stack(hard).mean(), "self": self.weight * torch.stack(soft).mean()}

    def soft_targets(self, outputs: Outputs) -> Tensor:
        """``[B, K]`` logits to learn from, given the auxiliary network's outputs on a batch."""
        return outputs.logits


class BatchEnsembling(LogitSelfDistillation):
    """Like its base, but an image's target is an ensemble of the answers to all images of the batch that look like it.

    After BAKE (Ge et al., 2021), where one network teaches itself; here the auxiliary network's features and answers are
    ensembled. One class per image only: what is ensembled are softmax distributions.

    Args:
        auxiliary: ``xi``, see :class:`SelfDistillation` for the first three.
        momentum: of the moving average.
        schedule: of the momentum.
        temperature: ``tau`` > 0.
        weight: ``lambda`` >= 0.
        omega: in [0, 1): how much of an image's target comes from other images.
    """

    kinds = frozenset({"binary", "multiclass", "ordinal"})

    def __init__(
        self,
        auxiliary: Network,
        momentum: float = 0.99,
        schedule: MomentumSchedule = "constant",
        *,
        temperature: float = 4.0,
        weight: float = 1.0,
        omega: float = 0.5,
    ) -> None:
        super().__init__(auxiliary, momentum, schedule, temperature=temperature, weight=weight)
        if not 0 <= omega < 1:
            raise UsageError(f"omega lies between 0 and 1 (exclusive), got {omega}.")
        self.omega = omega

    def soft_targets(self, outputs: Outputs) -> Tensor:
        probabilities = (outputs.logits.float() / self.temperature).softmax(dim=-1)
        # As logits, whose softmax at the same temperature gives the ensemble back.
        return self.temperature * ensembled(outputs.pooled, probabilities, self.omega).clamp(min=1e-12).log()


def ensembled(features: Tensor, probabilities: Tensor, omega: float) -> Tensor:
    """``Q = (1 - w) (I - w A)^-1 P``: answers passed on between alike images of a batch until nothing changes.

    ``A[i, j]`` is the softmax over ``j != i`` of the cosine of features ``i`` and ``j``. A batch of one has nobody to
    ask: ``Q = P``.

    Args:
        features: ``[B, D]``.
        probabilities: ``P``, ``[B, K]`` float32; rows sum to 1, and so do those of ``Q``.
        omega: ``w`` in [0, 1).
    """
    count = len(features)
    if count == 1:
        return probabilities
    unit, self_pairs = normalize(features.float(), dim=-1), torch.eye(count, device=features.device)
    affinity = (unit @ unit.T).float().masked_fill(self_pairs.bool(), float("-inf")).softmax(dim=-1)
    return (1 - omega) * torch.linalg.solve(self_pairs - omega * affinity, probabilities)
