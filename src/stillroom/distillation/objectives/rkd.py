"""Relational knowledge distillation: images are to lie to each other as they do for the teacher (Park et al., CVPR 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.distillation.objectives.transfer import Transfer
from stillroom.distillation.step import Step
from stillroom.ranges import not_negative


class RKDLoss(Transfer):
    """``CE + distance_weight * L_D + angle_weight * L_A`` on pooled features, averaged over the teachers.

    ``L_D`` compares the distances of all pairs of images in the batch, each network's divided by their mean; ``L_A`` the
    cosines of the angles of all triples; both by Huber's loss, averaged over pairs and triples of different images. A
    batch of one has no pairs, one of two no triples: they cost nothing. The angles take memory of the order of
    B^2 (B + D).

    Args:
        distance_weight: at least 0.
        angle_weight: at least 0.
    """

    needs = frozenset({"teacher_logits", "pooled"})

    def __init__(self, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__()
        for name, value in (("distance_weight", distance_weight), ("angle_weight", angle_weight)):
            not_negative(name, value)
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def transferred(self, step: Step) -> dict[str, Tensor]:
        assert step.teachers is not None
        # Angles by matrix products lose too much in bfloat16.
        with torch.autocast(step.student.pooled.device.type, enabled=False):
            student = _relations(step.student.pooled)
            teachers = [_relations(said) for said in step.teachers.pooled]
        count = len(step.student.pooled)
        pairs = max(count * (count - 1), 1)
        triples = max(pairs * (count - 2), 1)
        distance, angle = (
            torch.stack([F.smooth_l1_loss(ours, theirs, reduction="sum") for theirs in said]).mean()
            for ours, said in zip(student, zip(*teachers, strict=True), strict=True)
        )
        return {
            "distances": self.distance_weight * distance / pairs,
            "angles": self.angle_weight * angle / triples,
        }


def _relations(pooled: Tensor) -> tuple[Tensor, Tensor]:
    """``[B, D]`` to distances over their mean ``[B, B]`` and, at each image, cosines between two others ``[B, B, B]``."""
    count = len(pooled)
    gaps = pooled.float()[None] - pooled.float()[:, None]
    squared = gaps.square().sum(dim=2)
    apart = squared > 0
    # Chosen before the root: its gradient at 0, where an image meets itself, is infinite.
    distances = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    mean = distances.sum() / max(count * (count - 1), 1)
    directions = gaps / torch.where(apart, distances, 1.0)[..., None]
    same = torch.eye(count, dtype=torch.bool, device=pooled.device)
    cosines = (directions @ directions.transpose(1, 2)).masked_fill(
        same[None], 0.0
    )  # of an image with itself: no angle
    return distances / torch.where(mean > 0, mean, 1.0), cosines
