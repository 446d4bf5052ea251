"""MedAlmighty (2025): a frozen foundation model with a linear head teaches a small network. See docs/recipes.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.ranges import positive, share
from stillroom.recipes.base import Recipe

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings
    from stillroom.task import Task


@dataclass(frozen=True)
class MedAlmighty(Recipe):
    """Hybrid of cross-entropy with the labels and temperature-scaled KL to the teacher.

    Attributes:
        alpha: weight in [0, 1] of the term that `alpha_role` names. The paper's best is 0.2.
        temperature: softens teacher and student alike. The paper's best is 2.
        alpha_role: `label` follows the paper's equation; `teacher` is the reading that fits its sweeps better.
        kl_direction: `forward` is KL(teacher || student); `reverse` is the order that the paper's formula prints.
        paper_softmax: train multi-label data with one softmax over all labels, as the paper did. Wrong for such data;
            only there to reproduce its ChestMNIST row.
    """

    name: ClassVar[str] = "medalmighty"
    title: ClassVar[str] = "A frozen foundation model with a linear head teaches a small network"
    citation: ClassVar[str] = "MedAlmighty, Frontiers in Artificial Intelligence, 2025"

    alpha: float = 0.2
    temperature: float = 2.0
    alpha_role: Literal["label", "teacher"] = "label"
    kl_direction: Literal["forward", "reverse"] = "forward"
    paper_softmax: bool = False

    def __post_init__(self) -> None:
        share("alpha", self.alpha)
        positive("temperature", self.temperature)

    def adapt(self, task: Task) -> Task:
        task = super().adapt(task)
        return task.with_paper_softmax() if self.paper_softmax else task

    def beyond_answers(self, settings: RunSettings) -> str:
        return "a teacher with one softmax over all labels (--paper-softmax)" if self.paper_softmax else ""

    def run(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.hybrid import HybridLoss

        objective = HybridLoss(self.alpha, self.temperature, self.alpha_role, self.kl_direction)
        teacher = bench.teacher()  # its head is fitted first, then it is asked once per view
        return bench.fit("student", bench.student(), objective, teachers=[teacher])
