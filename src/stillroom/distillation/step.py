"""What an objective sees of one training step, and what an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor, nn

from stillroom.models.taps import Outputs
from stillroom.task import Task


@dataclass(frozen=True)
class TeacherOutputs:
    """What ``T`` teachers said about a batch of ``B`` views. Detached.

    Attributes:
        logits: ``[T, B, K]`` float32.
        pooled: per teacher ``[B, D_t]``, empty unless the objective asked for it.
        maps: per teacher ``[B, C_t, H_t, W_t]``, empty unless the objective asked for it.
    """

    logits: Tensor
    pooled: list[Tensor] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)


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
    """

    images: Tensor
    targets: Tensor
    student: Outputs
    teachers: TeacherOutputs | None
    task: Task
    progress: float
    class_weights: Tensor | None = None


class Objective(nn.Module, ABC):
    """What a student is trained to minimise. One subclass per published loss, one file each.

    A module, because some objectives own projectors: their parameters are trained with the student and left behind.

    Attributes:
        needs: what it reads beyond the student's logits: any of ``teacher_logits``, ``pooled``, ``map``. Every bank
            answers for logits, a fine-tuned teacher's for ``pooled`` too; the workbench refuses what a bank does not hold.
        kinds: the kinds of task it supports (see :attr:`Task.kind`).
    """

    needs: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset({"binary", "multiclass", "ordinal", "multilabel"})

    @abstractmethod
    def forward(self, step: Step) -> dict[str, Tensor]:
        """Weighted scalar losses by name; their sum is minimised."""
