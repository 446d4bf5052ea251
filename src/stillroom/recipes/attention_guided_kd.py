"""Attention-guided distillation: the student is also asked to look where its teacher looks. See docs/recipes.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.errors import UsageError
from stillroom.ranges import numeric, positive, share
from stillroom.recipes.base import Claim, Recipe, require_places

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings


@dataclass(frozen=True)
class AttentionGuidedKD(Recipe):
    """Labels and soft targets of one teacher, and the teacher's map of where it looks. The control lacks the map alone.

    Attributes:
        alpha: weight in [0, 1] of the labels; the teacher's answers weigh 1 - alpha.
        temperature: softens teacher and student alike.
        beta: weight of looking alike; above 0. Without it this is the control.
        look: what a network looks at: `cam`, its class activation map of the true class, or `energy`, its feature map's
            squares, if it can give no `cam`. `auto` takes `cam` if both networks can, else `energy` of both.
    """

    name: ClassVar[str] = "attention_guided_kd"
    title: ClassVar[str] = "One teacher, and the student is also asked to look where the teacher looks"
    citation: ClassVar[str] = (
        "Attention transfer (Zagoruyko and Komodakis, ICLR, 2017), class attention transfer (Guo, CVPR, 2023)"
    )
    default_teacher: ClassVar[str] = "resnet50"
    default_teacher_mode: ClassVar[Literal["frozen", "finetune"]] = "finetune"

    alpha: float = 0.5
    temperature: float = 4.0
    beta: float = 1.0
    look: Literal["auto", "cam", "energy"] = "auto"

    def __post_init__(self) -> None:
        share("alpha", self.alpha)
        positive("temperature", self.temperature)
        numeric("beta", self.beta)
        if not 0 < self.beta < math.inf:
            raise UsageError(
                f"beta must be above 0 and finite, got {self.beta}. Without it the student is the control."
            )

    def claim(self, settings: RunSettings) -> Claim:
        control = "the same student with the same teacher and budget, without being asked to look where it looks"
        return Claim("the teacher's attention", control, super().claim(settings).origin)

    def beyond_answers(self, settings: RunSettings) -> str:
        return "the teacher's last feature map"

    def run(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.attention_guided import AttentionGuidedLoss

        student, untaught = bench.student(), bench.untaught()
        for role, network in (("student", student), ("teacher", untaught)):  # before the teacher is trained
            require_places(role, network, "choose another recipe")
        student_kind, teacher_kind = self._kinds(student, untaught)
        bench.run.note(look={"student": student_kind, "teacher": teacher_kind})

        teacher = bench.teacher(needs=AttentionGuidedLoss.needs)
        assert teacher.network is not None  # a table of answers was refused
        objective = AttentionGuidedLoss(
            student.classifier() if student_kind == "cam" else None,
            [teacher.network.classifier() if teacher_kind == "cam" else None],
            alpha=self.alpha,
            temperature=self.temperature,
            beta=self.beta,
        )
        return bench.fit("student", student, objective, teachers=[teacher])

    def control(self, bench: Moves) -> Network:
        """The same student of the same teacher, which is not asked to look where it looks."""
        from stillroom.distillation.objectives.hybrid import HybridLoss

        return bench.fit("control", bench.student(), HybridLoss(self.alpha, self.temperature), teachers=bench.teachers)

    def _kinds(self, student: Network, teacher: Network) -> tuple[str, str]:
        """What student and teacher look at: ``cam`` or ``energy`` each."""
        from stillroom.distillation.objectives.attention_guided import gives_cam

        if self.look == "energy":
            return "energy", "energy"
        able = gives_cam(student), gives_cam(teacher)
        if self.look == "auto":
            return ("cam", "cam") if all(able) else ("energy", "energy")
        if not any(able):
            raise UsageError(
                f"Neither the student {student.name} nor the teacher {teacher.name} can give class activation maps: their "
                "classifiers do not read the last feature map's mean. Give --look energy, or choose other networks."
            )
        return "cam" if able[0] else "energy", "cam" if able[1] else "energy"
