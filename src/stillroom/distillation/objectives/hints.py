"""Hints: the student's feature map, through a regressor, is to equal the teacher's (Romero et al., FitNets, ICLR 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillroom.distillation.maps import MapRegressor, Shape, initial_weights
from stillroom.distillation.objectives.transfer import Transfer
from stillroom.distillation.step import Step
from stillroom.ranges import not_negative, positive


class HintLoss(Transfer):
    """``CE + soft_weight * t^2 * KL + weight * mean((r(F_S) - F_T)^2)``, averaged over the teachers.

    ``r`` is a 1x1 convolution after pooling or interpolating to the teacher's grid, trained with the student and left
    behind. The hint is the last feature map. The paper trains on the hint first and on labels and soft targets after
    that; here, as in later comparisons of losses, all are minimised together.

    Args:
        student: shape of the student's map, see :attr:`Network.map_shape`.
        teachers: shapes of the teachers' maps, in the teachers' order.
        weight: of the hint.
        soft_weight: of the KL to the teachers.
        temperature: ``t`` > 0.
        seed: decides the regressors' initial weights.
    """

    needs = frozenset({"teacher_logits", "map"})

    def __init__(
        self,
        student: Shape,
        teachers: Sequence[Shape],
        *,
        weight: float = 100.0,
        soft_weight: float = 1.0,
        temperature: float = 3.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("soft_weight", soft_weight)):
            not_negative(name, value)
        positive("temperature", temperature)
        self.weight, self.teacher_weight, self.temperature = weight, soft_weight, temperature
        with initial_weights(seed):
            self.regressors = nn.ModuleList(MapRegressor(student, shape, rectified=False) for shape in teachers)

    def transferred(self, step: Step) -> dict[str, Tensor]:
        assert step.teachers is not None
        pairs = zip(self.regressors, step.teachers.maps, strict=True)
        gaps = [(regressor(step.student.map).float() - said).square().mean() for regressor, said in pairs]
        hint = self.weight * torch.stack(gaps).mean()
        return {"teacher": self.teacher_weight * self.soft_loss(step), "hint": hint}
