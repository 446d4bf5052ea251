"""A linear probe: a frozen pretrained network with a linear head, the plainest use of a foundation model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from stillroom.errors import UsageError
from stillroom.recipes.base import Claim, Recipe

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings


@dataclass(frozen=True)
class LinearProbe(Recipe):
    """The student is a frozen backbone, and only a linear head is fitted, as `--features` and `--head-solver` say."""

    name: ClassVar[str] = "linear_probe"
    title: ClassVar[str] = "A frozen pretrained network with a linear head, such as DINOv2; nothing is distilled"
    has_teacher: ClassVar[bool] = False
    uses_unlabelled: ClassVar[bool] = False
    default_student: ClassVar[str] = "vit_base_patch14_dinov2"

    def unused(self, settings: RunSettings) -> list[str]:
        idle = self._idle_teacher(settings, "features", "feature_layers", "head_solver", "teacher_epochs")
        for part in (settings.training, settings.views):
            idle += [f.name for f in fields(part) if f.name != "label_fraction" and getattr(part, f.name) != f.default]
        return idle

    def claim(self, settings: RunSettings) -> Claim:
        control = "the same head on the same network with random weights"
        return Claim("pretraining", control, "A linear head on a frozen pretrained network, fitted")

    def check(self, settings: RunSettings) -> None:
        super().check(settings)
        if not settings.student.student_pretrained:
            raise UsageError("A linear probe reads a pretrained network: give --student-pretrained.")

    def has_start(self, settings: RunSettings) -> bool:
        return False  # nothing of it is trained: the student is that probe

    def run(self, bench: Moves) -> Network:
        return bench.probe("student")

    def control(self, bench: Moves) -> Network:
        """The same head on the same network with random weights: what the pretraining is worth."""
        return bench.probe("control", pretrained=False)
