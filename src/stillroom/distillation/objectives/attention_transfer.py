"""Attention transfer: look where the teacher looks (Zagoruyko and Komodakis, ICLR 2017, eq. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.distillation.maps import to_grid
from stillroom.distillation.objectives.transfer import Transfer
from stillroom.distillation.step import Step
from stillroom.ranges import not_negative

_DARK = 1e-6  # energy below which a map is nearly 0 everywhere and its direction means nothing


class AttentionTransferLoss(Transfer):
    """``CE + weight * mean((Q_S - Q_T)^2)``, averaged over positions, images and teachers.

    ``Q`` is a map's sum of squares over channels, divided by its L2 norm over positions; the student's is brought to the
    teacher's grid first. The last feature map alone is read, where the paper reads several. A map of one place says
    nothing: the loss is then 0.

    Args:
        weight: at least 0; the authors' beta.
    """

    needs = frozenset({"teacher_logits", "map"})

    def __init__(self, weight: float = 1000.0) -> None:
        super().__init__()
        not_negative("weight", weight)
        self.weight = weight

    def transferred(self, step: Step) -> dict[str, Tensor]:
        assert step.teachers is not None
        energy = _energy(step.student.map)
        gaps = [
            (_direction(to_grid(energy, _grid(said))) - _direction(_energy(said))).square().mean()
            for said in step.teachers.maps
        ]
        return {"attention": self.weight * torch.stack(gaps).mean()}


def _energy(found: Tensor) -> Tensor:
    """``[B, C, H, W]`` to ``[B, 1, H, W]``."""
    return found.float().square().sum(dim=1, keepdim=True)


def _direction(energy: Tensor) -> Tensor:
    """``[B, 1, H, W]`` to ``[B, H W]`` of L2 norm 1."""
    return F.normalize(energy.flatten(1), dim=1, eps=_DARK)


def _grid(found: Tensor) -> tuple[int, int]:
    return found.shape[2], found.shape[3]
