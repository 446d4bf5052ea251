"""DINO's loss: agree with the auxiliary network's centred and sharpened distribution (Caron et al., ICCV 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.distillation.objectives.momentum import MomentumSchedule
from stillroom.distillation.objectives.self_distillation import ProjectedSelfDistillation
from stillroom.distillation.step import Step
from stillroom.models.network import Network
from stillroom.ranges import positive, share


class DinoLoss(ProjectedSelfDistillation):
    """``(H(p'(v2), p(v1)) + H(p'(v1), p(v2))) / 2``, ``H`` the cross-entropy.

    ``p = softmax(h(f_theta) / t)`` and ``p' = sg[softmax((h'(f_xi) - c) / t')]``. The centre ``c`` keeps one dimension
    from winning everywhere, ``t' < t`` keeps all from being equal; together they stand in for BYOL's predictor. ``c``
    follows the mean of ``h'(f_xi)`` over both views of the batch.

    Args:
        auxiliary: ``f_xi``; see :class:`ProjectedSelfDistillation` for the first six.
        momentum: of the moving average.
        schedule: of the momentum.
        width: of the projectors' hidden layer.
        projection: dimensions of the distributions.
        seed: of the projectors' initial weights.
        temperature: ``t`` > 0.
        auxiliary_temperature: ``t'`` > 0.
        centre_momentum: in [0, 1]: how slowly the centre moves.
    """

    centre: Tensor

    def __init__(
        self,
        auxiliary: Network,
        momentum: float = 0.99,
        schedule: MomentumSchedule = "constant",
        *,
        width: int = 2048,
        projection: int = 256,
        seed: int = 0,
        temperature: float = 0.1,
        auxiliary_temperature: float = 0.04,
        centre_momentum: float = 0.9,
    ) -> None:
        super().__init__(auxiliary, momentum, schedule, width=width, projection=projection, seed=seed)
        positive("temperature", temperature)
        positive("auxiliary_temperature", auxiliary_temperature)
        share("centre_momentum", centre_momentum)
        self.temperature, self.auxiliary_temperature = temperature, auxiliary_temperature
        self.centre_momentum = centre_momentum
        self.register_buffer("centre", torch.zeros(projection))

    def forward(self, step: Step) -> dict[str, Tensor]:
        (k1, k2), (z1, z2) = self.keys(step), self.projections(step)
        loss = (self._cross_entropy(k2, z1) + self._cross_entropy(k1, z2)) / 2
        if self.training:
            self.centre.lerp_(torch.cat([k1, k2]).mean(dim=0), 1 - self.centre_momentum)
        return {"self": loss.mean()}

    def _cross_entropy(self, key: Tensor, projection: Tensor) -> Tensor:
        target = ((key - self.centre) / self.auxiliary_temperature).softmax(dim=-1)
        return -(target * (projection.float() / self.temperature).log_softmax(dim=-1)).sum(dim=-1)
