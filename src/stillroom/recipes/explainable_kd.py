"""Explainable KD (2025): a compact student of one large teacher, with imbalance in mind. See docs/recipes.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.ranges import not_negative, positive, share
from stillroom.recipes.base import Claim, Recipe
from stillroom.settings.methods import Method

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings


@dataclass(frozen=True)
class ExplainableKD(Recipe):
    """A compact searched network learns from one fine-tuned teacher; hard and soft targets, class imbalance weighed.

    Attributes:
        alpha: weight in [0, 1] of the labels; the teacher weighs 1 - alpha.
        temperature: softens teacher and student alike.
        kd: how soft targets are compared: `kl`, or `mse` between softened probabilities as in the paper whose method
            this one follows.
        hard: the loss on the labels: `ce`, or `focal`, by which easy images count less.
        gamma: how much less, with `--hard focal`.
        balanced: weigh rare classes up in the cross-entropy of student, control and fine-tuned teacher. Focal loss is
            weighed only by `--class-weights`.
    """

    name: ClassVar[str] = "explainable_kd"
    title: ClassVar[str] = "A compact network learns from one fine-tuned teacher, class imbalance weighed"
    citation: ClassVar[str] = (
        "Explainable knowledge distillation, arXiv 2508.15251, 2025 (reconstructed from the abstract)"
    )
    default_teacher: ClassVar[str] = "densenet201"
    default_teacher_mode: ClassVar[Literal["frozen", "finetune"]] = "finetune"
    default_student: ClassVar[str] = "ofa595"
    default_map: ClassVar[Method] = "score_cam"  # the paper's

    alpha: float = 0.5
    temperature: float = 4.0
    kd: Literal["kl", "mse"] = "kl"
    hard: Literal["ce", "focal"] = "ce"
    gamma: float = 2.0
    balanced: bool = True

    def __post_init__(self) -> None:
        share("alpha", self.alpha)
        positive("temperature", self.temperature)
        not_negative("gamma", self.gamma)

    def controls_by_itself(self, settings: RunSettings) -> bool:
        return self.hard == "focal" or (self.balanced and not settings.training.class_weights)

    def unused(self, settings: RunSettings) -> list[str]:
        return super().unused(settings) + self._idle({"gamma": self.hard == "ce"})

    def claim(self, settings: RunSettings) -> Claim:
        control = "the same student, on the same budget and with the same loss on the labels, without a teacher"
        return replace(super().claim(settings), control=control)

    def run(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.imbalance import FocalKD

        objective = FocalKD(self.alpha, self.temperature, self.kd, self._gamma)
        teacher = bench.teacher(needs=objective.needs, class_weights=self._weighted)
        return bench.fit("student", bench.student(), objective, teachers=[teacher], class_weights=self._weighted)

    def control(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.imbalance import FocalLoss

        loss, epochs = FocalLoss(self._gamma), bench.control_epochs()
        return bench.fit("control", bench.student(), loss, epochs=epochs, class_weights=self._weighted)

    @property
    def _gamma(self) -> float:
        return self.gamma if self.hard == "focal" else 0.0

    @property
    def _weighted(self) -> bool | None:
        return True if self.balanced and self.hard == "ce" else None
