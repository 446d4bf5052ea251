"""The baseline: the student on the labels alone. Also the control that stands beside every distilled student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stillroom.recipes.base import Recipe

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.workbench import Workbench


@dataclass(frozen=True)
class Baseline(Recipe):
    """The same student, views and budget, without a teacher."""

    name: ClassVar[str] = "baseline"
    title: ClassVar[str] = "The student on the labels alone, without a teacher"
    has_teacher: ClassVar[bool] = False

    def run(self, bench: Workbench, role: str = "student") -> Network:
        from stillroom.distillation.objectives.labels import LabelLoss

        return bench.fit(role, bench.student(), LabelLoss())
