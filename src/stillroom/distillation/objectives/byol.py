"""BYOL's loss: predict where the auxiliary network's projection of another view points (Grill et al., NeurIPS 2020)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity

from stillroom.distillation.objectives.momentum import MomentumSchedule
from stillroom.distillation.objectives.self_distillation import ProjectedSelfDistillation, mlp
from stillroom.distillation.step import Step
from stillroom.models.network import Network


class ByolLoss(ProjectedSelfDistillation):
    """``(2 - 2 cos(q1, k2)) + (2 - 2 cos(q2, k1))`` with ``q = P(h(f_theta(v)))`` and ``k = sg[h'(f_xi(v))]``.

    Args:
        auxiliary: ``f_xi``; see :class:`ProjectedSelfDistillation` for all.
        momentum: of the moving average.
        schedule: of the momentum.
        width: of the hidden layers of ``h``, ``h'`` and ``P``.
        projection: dimensions of ``q`` and ``k``.
        seed: of the initial weights of ``h`` and ``P``.
    """

    def __init__(
        self,
        auxiliary: Network,
        momentum: float = 0.99,
        schedule: MomentumSchedule = "constant",
        *,
        width: int = 2048,
        projection: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(auxiliary, momentum, schedule, width=width, projection=projection, seed=seed)
        self.predictor = mlp(projection, width, projection, seed + 1)

    def forward(self, step: Step) -> dict[str, Tensor]:
        (k1, k2), (z1, z2) = self.keys(step), self.projections(step)
        q1, q2 = self.predictor(z1), self.predictor(z2)
        return {"self": (direction_distance(q1, k2) + direction_distance(q2, k1)).mean()}


def direction_distance(first: Tensor, second: Tensor) -> Tensor:
    """``2 - 2 cos``: the squared distance of ``[B, D]`` vectors on the unit sphere, ``[B]`` float32 in [0, 4]."""
    return 2 - 2 * cosine_similarity(first.float(), second.float(), dim=-1)
