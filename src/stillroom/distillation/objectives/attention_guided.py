"""Attention-guided distillation: labels, soft targets, and looking where the teacher looks. See docs/recipes.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.data.inference import evaluating
from stillroom.distillation.maps import to_grid
from stillroom.distillation.objectives.hybrid import HybridLoss
from stillroom.distillation.step import Step
from stillroom.models.network import Network
from stillroom.models.taps import linear_classifier
from stillroom.ranges import not_negative

_FLAT = 1e-5  # variation, as a share of the map itself, below which it is float32's rounding


class AttentionGuidedLoss(HybridLoss):
    """``alpha * CE + (1 - alpha) * t^2 * KL + beta * look``, the first two as in :class:`HybridLoss`.

    ``look`` is :func:`correlation_gap` of student and teacher, averaged over the teachers. Both maps are brought to the
    coarser grid: on the finer one no student could follow what lies between its own places. A network looks at its
    :func:`class_map` where its classifier is given, else at its :func:`energy_map`.

    The class is the true one, of a mixture both by their shares; for multi-label all that are present; without any, and
    on images without labels, the one that the teacher finds likeliest.

    No gradient reaches the student's classifier: its features are to lie where the teacher's do. Through the classifier
    the map could be turned over by the signs of a few weights, with the features where they were.

    Args:
        student: the student's classifier ``[K, C]``, which :func:`gives_cam` must allow; None for its energy.
        teachers: likewise, in the teachers' order.
        alpha: weight in [0, 1] of the labels.
        temperature: ``t`` > 0.
        beta: at least 0.
    """

    needs = frozenset({"teacher_logits", "map"})

    def __init__(
        self,
        student: nn.Linear | None,
        teachers: Sequence[nn.Linear | None],
        *,
        alpha: float = 0.5,
        temperature: float = 4.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__(alpha, temperature)
        not_negative("beta", beta)
        self.beta = beta
        # Tuples, which torch does not look into: the classifiers are the networks' own, not the objective's.
        self._student, self._teachers = (student,), tuple(teachers)

    def forward(self, step: Step) -> dict[str, Tensor]:
        return super().forward(step) | {"look": self.beta * self._look(step)}

    def on_unlabelled(self, step: Step) -> dict[str, Tensor]:
        return super().on_unlabelled(step) | {"unlabelled look": self.beta * self._look(step)}

    def _look(self, step: Step) -> Tensor:
        assert step.teachers is not None
        gaps = []
        # Sums of many products lose too much in bfloat16.
        with torch.autocast(step.student.map.device.type, enabled=False):
            for head, logits, found in zip(self._teachers, step.teachers.logits, step.teachers.maps, strict=True):
                classes = _classes(step, logits)
                ours = _seen(step.student.map, self._student[0], classes)
                theirs = _seen(found, head, classes)
                grid = min(ours.shape[2], theirs.shape[2]), min(ours.shape[3], theirs.shape[3])
                gaps.append(correlation_gap(to_grid(ours, grid), to_grid(theirs, grid)).mean())
        return torch.stack(gaps).mean()


def gives_cam(network: Network) -> bool:
    """Whether the logits are ``W mean(map) + b``, so that class activation maps exist: they sum to the logit.

    Not so where the head transforms the pooled features (MobileNetV3, VGG, ConvNeXt) or reads a class token. One pass
    over an image of noise tells, where attributes would have to be guessed from.
    """
    if linear_classifier(network.backbone) is None:
        return False
    noise = torch.rand(1, 3, *network.input_size, generator=torch.Generator().manual_seed(0))
    with evaluating(network):
        outputs = network.outputs(noise.to(network.mean.device))
        mean = outputs.map.mean(dim=(2, 3))
        alike = mean.shape == outputs.pooled.shape
        return alike and torch.allclose(mean, outputs.pooled, rtol=1e-3, atol=1e-4 * float(mean.abs().max()))


def class_map(found: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """``sum_k w_ck A_k``, the class activation map (Zhou et al., CVPR 2016, eq. 2), summed over the classes asked for.

    Args:
        found: ``A``, ``[B, C, H, W]``.
        weight: ``w``, ``[K, C]``.
        classes: ``[B, K]``, how much each class counts.

    Returns:
        ``[B, 1, H, W]`` float32 of either sign.
    """
    wanted = classes.float() @ weight.float()
    return (wanted[:, :, None, None] * found.float()).sum(dim=1, keepdim=True)


def energy_map(found: Tensor) -> Tensor:
    """Sum of squares over channels (Zagoruyko and Komodakis, ICLR 2017): ``[B, C, H, W]`` to ``[B, 1, H, W]`` float32."""
    return found.float().square().sum(dim=1, keepdim=True)


def correlation_gap(first: Tensor, second: Tensor) -> Tensor:
    """1 - Pearson's correlation over the places of two maps ``[B, 1, H, W]``: ``[B]`` in [0, 2].

    A map without variation says nothing of where to look: the gap is then 0, and so is its gradient.
    """
    (ours, vary), (theirs, also) = _standardised(first), _standardised(second)
    # Half the squared distance of unit vectors: 1 - their product, but exact and never negative where they agree.
    return torch.where(vary & also, (ours - theirs).square().sum(dim=1) / 2, 0.0)


def _standardised(seen: Tensor) -> tuple[Tensor, Tensor]:
    """``[B, 1, H, W]`` to ``[B, H W]`` of mean 0 and norm 1, and whether the map varies at all, ``[B]``."""
    places = seen.flatten(1)
    centred = places - places.mean(dim=1, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    vary = norm > _FLAT * torch.linalg.vector_norm(places, dim=1, keepdim=True)
    # Chosen before the division: a gradient through 0 / 0 would be NaN.
    return centred / torch.where(vary, norm, 1.0), vary[:, 0]


def _seen(found: Tensor, classifier: nn.Linear | None, classes: Tensor) -> Tensor:
    return energy_map(found) if classifier is None else class_map(found, classifier.weight.detach(), classes)


def _classes(step: Step, teacher: Tensor) -> Tensor:
    """``[B, K]``: how much each class counts in the maps that are compared, given the teacher's logits ``[B, K]``."""
    likeliest = F.one_hot(teacher.argmax(dim=1), teacher.shape[1])
    if len(step.targets) == 0:
        return likeliest

    def seen(targets: Tensor) -> Tensor:
        """``[K, B]``."""
        if step.task.exclusive:
            return F.one_hot(targets, teacher.shape[1]).T
        present = targets > 0
        return torch.where(present.any(dim=1, keepdim=True), present, likeliest).T

    return step.by_label(seen).T
