"""Teachers: a frozen backbone with a fitted linear head, or any network that was fine-tuned. Asked once, through a bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.distillation.bank import Bank
from stillroom.models.network import Network
from stillroom.models.taps import Outputs

FeatureKind = Literal["cls", "mean", "both"]


class LinearProbe(nn.Module):
    """A frozen backbone and a linear head on its features.

    Args:
        backbone: the pretrained network; its own classifier is not used.
        kind: what the head sees of a transformer (see :class:`~stillroom.settings.TeacherSettings`).
        head: from ``D`` features to ``K`` logits.
    """

    def __init__(self, backbone: Network, kind: FeatureKind, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.kind, self.head = backbone, kind, head

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` in [0, 1] to ``[B, K]`` logits."""
        return self.head(self.backbone.backbone_features(images, self.kind))

    def outputs(self, images: Tensor) -> Outputs:
        """Logits of the head, with the backbone's pooled features and last map."""
        raw = self.backbone.outputs(images)
        return Outputs(logits=self.forward(images), pooled=raw.pooled, map=raw.map)


@dataclass(frozen=True)
class Teacher:
    """A network together with its stored answers.

    Attributes:
        name: model name.
        network: maps images to logits; kept for explanation and export.
        plain: bank over every image as it is.
        views: bank over the training images' views.
        head: applied to the stored ``features`` where the bank holds features; None where it holds ``logits``.
    """

    name: str
    network: nn.Module
    plain: Bank
    views: Bank
    head: nn.Linear | None = None

    def logits(self, rows: np.ndarray, view: int | None) -> Tensor:
        """``[B, K]`` float32, on the CPU, detached."""
        bank = self.plain if view is None else self.views
        if self.head is None:
            return torch.from_numpy(bank.at("logits", rows, view))
        with torch.no_grad():
            return self.head(torch.from_numpy(bank.at("features", rows, view)))

    def output(self, name: str, rows: np.ndarray, view: int | None) -> Tensor:
        """Another stored output, ``pooled`` ``[B, D]`` or ``map`` ``[B, C, H, W]``, float32."""
        bank = self.plain if view is None else self.views
        return torch.from_numpy(bank.at(name, rows, view))
