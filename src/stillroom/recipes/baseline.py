"""The baseline: the student on the labels alone. What every distilled student is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stillroom.recipes.base import Recipe

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves


@dataclass(frozen=True)
class Baseline(Recipe):
    """The same student, views and budget, without a teacher."""

    name: ClassVar[str] = "baseline"
    title: ClassVar[str] = "The student on the labels alone, without a teacher"
    has_teacher: ClassVar[bool] = False
    uses_unlabelled: ClassVar[bool] = False
    has_control: ClassVar[bool] = False

    def run(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.labels import LabelLoss

        return bench.fit("student", bench.student(), LabelLoss(), epochs=bench.epochs_alone())
