"""WeCKD's stage: labels, an annealed soft target and the predecessor's attention (WeCKD 2025; see docs/recipes.md)."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from stillroom.distillation.maps import to_grid
from stillroom.distillation.step import Objective, Step

Annealing = Literal["linear", "cosine", "exponential", "constant"]


class ChainLoss(Objective):
    """``(1 - l) CE + l tau(e)^2 KL(p_T^tau || p_S^tau) + mu || A_S / |A_S| - A_T / |A_T| ||^2``.

    Args:
        kd_weight: ``l`` in [0, 1].
        temperature: ``tau`` at the start, at least ``final_temperature``.
        final_temperature: what it falls to; above 0. The exponential comes near it alone.
        annealing: how it falls over the training; ``constant`` keeps ``temperature``.
        decay: of the exponential, per epoch, in (0, 1).
        epochs: how many there are, which the exponential counts in.
        attention_weight: ``mu`` >= 0; 0 leaves attention alone, and the networks need not have any.
    """

    def __init__(
        self,
        *,
        kd_weight: float = 0.5,
        temperature: float = 4.0,
        final_temperature: float = 1.0,
        annealing: Annealing = "cosine",
        decay: float = 0.9,
        epochs: int = 1,
        attention_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.teacher_weight, self.attention_weight = kd_weight, attention_weight
        self.temperature, self.final_temperature = temperature, final_temperature
        self.annealing, self.decay, self.epochs = annealing, decay, epochs
        self.needs = frozenset({"teacher_logits", "attention"} if attention_weight else {"teacher_logits"})

    def temperature_at(self, progress: float) -> float:
        """``tau_min + (tau_0 - tau_min) s``, with ``s`` falling from 1 towards 0."""
        match self.annealing:
            case "linear":
                share = 1 - progress
            case "cosine":
                share = (1 + math.cos(math.pi * progress)) / 2
            case "exponential":
                share = self.decay ** (progress * self.epochs)
            case "constant":
                share = 1.0
        return self.final_temperature + (self.temperature - self.final_temperature) * share

    def forward(self, step: Step) -> dict[str, Tensor]:
        label = step.label_loss().mean()
        return {"label": (1 - self.teacher_weight) * label} | self._taught(step, "teacher")

    def on_unlabelled(self, step: Step) -> dict[str, Tensor]:
        return self._taught(step, "unlabelled")

    def _taught(self, step: Step, name: str) -> dict[str, Tensor]:
        """The terms that need no label."""
        losses = {name: self.teacher_weight * self.soft_loss(step)}
        if self.attention_weight:
            assert step.teachers is not None
            assert step.student.attention is not None
            distances = [attention_distance(step.student.attention, other) for other in step.teachers.attentions]
            losses[f"{name} attention"] = self.attention_weight * sum(distances[1:], distances[0]) / len(distances)
        return losses


def attention_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean over images of the squared distance of two attentions of unit length; in [0, 2], since they are positive.

    Args:
        first: ``[B, 1, H, W]``.
        second: ``[B, 1, H', W']``; resized to the first's grid where it differs.
    """
    first, second = first.float(), second.float()
    second = to_grid(second, (first.shape[-2], first.shape[-1]))
    difference = F.normalize(first.flatten(1)) - F.normalize(second.flatten(1))
    return difference.square().sum(dim=1).mean()
