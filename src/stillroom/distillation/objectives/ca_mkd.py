"""CA-MKD: several teachers, each weighed per image by how well it knows the label (Zhang et al., ICASSP 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from stillroom.distillation.maps import MapRegressor, Shape, initial_weights
from stillroom.distillation.step import Objective, Step
from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.ranges import not_negative, positive


class CAMKDLoss(Objective):
    """``CE + sum_k w_k t^2 KL(p_k || p_S) / K + feature_weight * sum_k w'_k mean((r_k(F_S) - F_k)^2) / K``, a mean of images.

    ``w_k`` is :func:`confidences` of teacher k's loss on the label. ``r_k`` brings the student's last feature map to
    teacher k's shape (1x1 convolution, batch norm, ReLU); ``w'_k`` is :func:`confidences` of what teacher k's own head
    makes of that map. The features join in the second epoch. Images without labels get the soft targets alone, every
    teacher counting alike.

    Args:
        student: shape of the student's map, see :attr:`Network.map_shape`.
        teachers: one or more of any architecture, in the order of the step's answers. They are frozen here and used for
            their heads; they are no part of the objective's parameters or state.
        temperature: ``t`` > 0.
        feature_weight: weight of the features' term.
        weighting: ``confidence``, or ``equal`` for 1/K each: the averaging ensemble that the paper compares with.
        epochs: length of the training; in its first epoch the features' term is 0.
        extra_division: the ``/ K`` of both terms, though the weights sum to 1 already. The paper does not print it, but the
            authors' code has it, and its ``feature_weight`` of 50 belongs to that code. False leaves it out.
        learnt_weights: let gradients flow through ``w'_k``, as the authors' code does: the student is then also taught
            to make a teacher it disagrees with look unsure.
        seed: decides the initial weights of ``r_k``.
    """

    needs = frozenset({"teacher_logits", "map"})

    def __init__(
        self,
        student: Shape,
        teachers: Sequence[Network],
        *,
        temperature: float = 4.0,
        feature_weight: float = 50.0,
        weighting: Literal["confidence", "equal"] = "confidence",
        epochs: int = 240,
        extra_division: bool = True,
        learnt_weights: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not teachers:
            raise UsageError("CA-MKD needs at least one teacher.")
        positive("temperature", temperature)
        not_negative("feature_weight", feature_weight)
        self.temperature, self.feature_weight, self.weighting = temperature, feature_weight, weighting
        self.epochs, self.learnt_weights = epochs, learnt_weights
        self.teacher_weight = 1 / len(teachers) if extra_division else 1.0
        # A tuple, which torch does not look into: the teachers are neither trained nor saved with the objective.
        self._teachers = tuple(teacher.requires_grad_(False).eval() for teacher in teachers)
        self.needs = needs_of(feature_weight)
        with initial_weights(seed):
            self.regressors = nn.ModuleList(
                MapRegressor(student, teacher.map_shape, rectified=True) for teacher in teachers if feature_weight
            )

    def forward(self, step: Step) -> dict[str, Tensor]:
        assert step.teachers is not None
        task, logits = step.task, step.student.logits
        temperature = self.temperature_at(step.progress)
        kl = torch.stack([task.soft_loss(logits, said, temperature) for said in step.teachers.logits])
        weights = self._weights([_hard(step, said) for said in step.teachers.logits])
        losses = {
            "label": step.label_loss().mean(),
            "teacher": self.teacher_weight * (weights * kl).sum(dim=0).mean(),
        }
        if self.feature_weight:
            losses["features"] = self.feature_weight * self.teacher_weight * self._features(step)
        return losses

    def _features(self, step: Step) -> Tensor:
        assert step.teachers is not None
        if step.progress < 1 / self.epochs:
            return torch.zeros((), device=step.student.map.device)
        matched = [regressor(step.student.map) for regressor in self.regressors]
        pairs = zip(matched, step.teachers.maps, strict=True)
        gaps = torch.stack([(ours.float() - said).square().mean(dim=(1, 2, 3)) for ours, said in pairs])
        with torch.set_grad_enabled(self.learnt_weights and torch.is_grad_enabled()):
            heads = zip(self._teachers, matched, strict=True)
            read = [_hard(step, teacher.classify_map(ours)) for teacher, ours in heads]
            weights = self._weights(read)
        return (weights * gaps).sum(dim=0).mean()

    def _weights(self, losses: list[Tensor]) -> Tensor:
        stacked = torch.stack(losses)
        return torch.full_like(stacked, 1 / len(stacked)) if self.weighting == "equal" else confidences(stacked)


def _hard(step: Step, logits: Tensor) -> Tensor:
    """``[B]``: the loss on the labels of a teacher's answers ``[B, K]``."""
    return step.by_label(lambda targets: step.task.hard_loss(logits, targets))


def needs_of(feature_weight: float) -> frozenset[str]:
    """What the loss reads of its teachers with this weight of the features' term."""
    return frozenset({"teacher_logits", "map"} if feature_weight else {"teacher_logits"})


def confidences(losses: Tensor) -> Tensor:
    """``w_k = (1 - softmax_k(loss)) / (K - 1)``: the lower a teacher's loss on an image, the more it counts there.

    Args:
        losses: ``[K, B]``.

    Returns:
        ``[K, B]``, each in [0, 1 / (K - 1)], summing to 1 over the teachers; 1 where there is one teacher.
    """
    if len(losses) == 1:
        return torch.ones_like(losses)
    return (1 - losses.softmax(dim=0)) / (len(losses) - 1)
