"""What an objective sees of one training step, and what an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from stillroom.models.network import Network
from stillroom.models.taps import Outputs
from stillroom.task import Direction, Task


@dataclass(frozen=True)
class TeacherOutputs:
    """What ``T`` teachers said about a batch of ``B`` views. Detached.

    Attributes:
        logits: ``[T, B, K]`` float32.
        pooled: per teacher ``[B, D_t]``, empty unless the objective asked for it.
        maps: per teacher ``[B, C_t, H_t, W_t]``, empty unless the objective asked for it.
        attentions: per teacher ``[B, 1, H_t, W_t]``, empty unless the objective asked for it.
    """

    logits: Tensor
    pooled: list[Tensor] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    attentions: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        images: ``[B, C, H, W]`` float in [0, 1], the views that student and teachers saw.
        targets: ``[B]`` int64, or ``[B, K]`` for multi-label.
        student: the student's outputs; gradients flow through them.
        teachers: the teachers' outputs on the same views, or None where there is no teacher.
        task: decides every loss that depends on what the labels mean.
        progress: share of the training that has passed, in [0, 1).
        class_weights: ``[K]`` weights of the labels' loss, or None.
        other_images: ``[B, C, H, W]`` second views of the same images, for objectives that compare two; else None.
        other: the student's outputs on them.
        other_targets: like ``targets``, of the images that these are mixed with; None where views mix nothing.
        share: ``[B]`` float32 in [0.5, 1], the share of ``targets`` in the mixture; None likewise.
    """

    images: Tensor
    targets: Tensor
    student: Outputs
    teachers: TeacherOutputs | None
    task: Task
    progress: float
    class_weights: Tensor | None = None
    other_images: Tensor | None = None
    other: Outputs | None = None
    other_targets: Tensor | None = None
    share: Tensor | None = None

    def label_loss(self) -> Tensor:
        """The task's loss of the student's answers on the labels per image, ``[B]`` float32; of mixtures, by their shares."""
        return self.by_label(lambda targets: self.task.hard_loss(self.student.logits, targets, self.class_weights))

    def by_label(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """What reads labels, of one image or of a mixture of two: ``share * loss(targets)`` and the rest of the other's.

        Args:
            loss: maps targets to ``[..., B]``.
        """
        if self.other_targets is None or self.share is None:
            return loss(self.targets)
        return self.share * loss(self.targets) + (1 - self.share) * loss(self.other_targets)


class Objective(nn.Module, ABC):
    """What a student is trained to minimise. One subclass per published loss, one file each.

    A module, because some objectives own projectors: their parameters are trained with the student and left behind.

    Attributes:
        needs: what it reads of the teachers: any of ``teacher_logits``, ``pooled``, ``map``, ``attention``. A recipe asks
            its teachers for it; the workbench refuses an objective that needs what a bank does not hold.
        kinds: the kinds of task it supports (see :attr:`Task.kind`).
        two_views: it compares two views of every image. They are new in every epoch, so no teacher can be asked.
        label_free: it reads no labels, so no validation figure selects an epoch: the last one's weights are kept.
        temperature: softens teachers' and student's answers where their distributions are compared.
        direction: of that comparison, see :meth:`Task.soft_loss`.
        teacher_weight: weight of the soft targets on images without labels.
    """

    needs: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset({"binary", "multiclass", "ordinal", "multilabel"})
    two_views: bool = False
    label_free: bool = False
    temperature: float = 1.0
    direction: Direction = "forward"
    teacher_weight: float = 1.0

    @abstractmethod
    def forward(self, step: Step) -> dict[str, Tensor]:
        """Weighted scalar losses by name; their sum is minimised."""

    def soft_loss(self, step: Step) -> Tensor:
        """The task's soft loss at the objective's temperature, averaged over images and teachers: a scalar."""
        assert step.teachers is not None
        task, logits, temperature = step.task, step.student.logits, self.temperature_at(step.progress)
        said = [task.soft_loss(logits, teacher, temperature, self.direction) for teacher in step.teachers.logits]
        return torch.stack(said).mean()

    def on_unlabelled(self, step: Step) -> dict[str, Tensor]:
        """Losses on images without labels: the teachers' soft targets alone. ``step.targets`` is empty."""
        return {"unlabelled": self.teacher_weight * self.soft_loss(step)}

    def temperature_at(self, progress: float) -> float:
        """The temperature when this share of the training has passed; constant unless an objective anneals it."""
        return self.temperature

    def after_step(self, student: Network, progress: float) -> None:
        """Called after every step of the optimiser, for what follows the student, such as a moving average."""
