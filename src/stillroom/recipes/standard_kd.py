"""The field's standard distillation losses, each with one teacher and its authors' weights. See docs/recipes.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.errors import UsageError
from stillroom.ranges import positive
from stillroom.recipes.base import Recipe, require_places

if TYPE_CHECKING:
    from stillroom.distillation.step import Objective
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings


@dataclass(frozen=True)
class StandardKD(Recipe):
    """One teacher, one student and a published loss between them, with that paper's weights.

    Attributes:
        loss: `kd` (Hinton's), `dkd` (decoupled) and `dist` (correlations) compare logits; `attention` and `hints` the
            last feature map; `rkd` how pooled features of different images lie to each other.
        temperature: softens teacher and student alike. Default: the loss's own; `attention` and `rkd` have none.
    """

    name: ClassVar[str] = "standard_kd"
    title: ClassVar[str] = "One teacher and a published loss: KD, DKD, DIST, attention transfer, hints or RKD"
    citation: ClassVar[str] = (
        "KD (Hinton 2015), DKD (Zhao 2022), DIST (Huang 2022), attention transfer (Zagoruyko 2017), FitNets hints "
        "(Romero 2015), RKD (Park 2019)"
    )

    loss: Literal["kd", "dkd", "dist", "attention", "hints", "rkd"] = "kd"
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.temperature is None:
            return
        positive("temperature", self.temperature)
        if self.loss in ("attention", "rkd"):
            raise UsageError(
                f"The loss {self.loss} softens nothing: leave out --temperature, or choose another --loss."
            )

    def beyond_answers(self, settings: RunSettings) -> str:
        return "the teacher's last feature map" if self.loss in ("attention", "hints") else ""

    def reads_features(self, settings: RunSettings) -> bool:
        return self.loss == "rkd"

    def run(self, bench: Moves) -> Network:
        needs = {"attention": "map", "hints": "map", "rkd": "pooled"}.get(self.loss)
        student = bench.student()
        if self.loss == "attention":  # before the teacher is trained
            require_places("student", student, "choose another --loss")
            require_places("teacher", bench.untaught(), "choose another --loss")
        teacher = bench.teacher(needs=frozenset({"teacher_logits", needs} if needs else {"teacher_logits"}))
        objective = self._objective(student, teacher.network, bench.seed)
        return bench.fit("student", student, objective, teachers=[teacher])

    def _objective(self, student: Network, teacher: Network | None, seed: int) -> Objective:
        from stillroom.distillation.objectives.attention_transfer import AttentionTransferLoss
        from stillroom.distillation.objectives.dist import DISTLoss
        from stillroom.distillation.objectives.dkd import DKDLoss
        from stillroom.distillation.objectives.hints import HintLoss
        from stillroom.distillation.objectives.hybrid import HybridLoss
        from stillroom.distillation.objectives.rkd import RKDLoss

        match self.loss:
            case "kd":
                return HybridLoss(alpha=0.1, temperature=self.temperature or 4.0)
            case "dkd":
                return DKDLoss(temperature=self.temperature or 4.0)
            case "dist":
                return DISTLoss(temperature=self.temperature or 4.0)
            case "attention":
                return AttentionTransferLoss()
            case "hints":
                assert teacher is not None  # a table of answers was refused
                shapes = (student.map_shape, [teacher.map_shape])
                return HintLoss(*shapes, temperature=self.temperature or 3.0, seed=seed)
            case "rkd":
                return RKDLoss()
