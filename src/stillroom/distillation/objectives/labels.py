"""The labels alone: what the no-teacher control and a fine-tuned teacher minimise."""

from __future__ import annotations

from torch import Tensor

from stillroom.distillation.step import Objective, Step


class LabelLoss(Objective):
    """Cross-entropy with the labels (binary cross-entropy per label for multi-label tasks)."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        return {"label": step.label_loss().mean()}
