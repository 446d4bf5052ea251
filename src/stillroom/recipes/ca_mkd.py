"""CA-MKD (2022): several teachers, each weighed per image by how well it knows the label. See docs/recipes.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.errors import UsageError
from stillroom.ranges import MOST_OFTEN, at_least, not_negative, positive
from stillroom.recipes.base import Recipe, require_different

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings


_SEEDS_APART = 1000
"""Between copies of a teacher, so that runs with seeds 0, 1, 2 share none: their luck must be their own."""


@dataclass(frozen=True)
class CAMKD(Recipe):
    """A student of several teachers, who counts more on an image the better it knows that image's label.

    Attributes:
        teachers: names of the teachers, of one architecture or of several. Default: `copies` of `--teacher`.
        copies: how many of `--teacher` to train, from as many seeds; where `teachers` is not given.
        temperature: softens teachers and student alike.
        feature_weight: weight of the last feature map's term; 0 leaves the logits alone.
        weighting: `confidence`, or `equal`, the averaging ensemble that the paper compares with.
        extra_division: divide the teachers' terms by their number once more, as the authors' code does, with which they
            chose the weight of 50: of three teachers it then weighs 16.7. `no` is the paper's formula as printed.
        learnt_weights: let gradients flow through the weights of the features' term, as the authors' code does.
    """

    name: ClassVar[str] = "ca_mkd"
    title: ClassVar[str] = "Several teachers, each weighed per image by how well it knows the label"
    citation: ClassVar[str] = "CA-MKD, ICASSP, 2022"
    default_teacher_mode: ClassVar[Literal["frozen", "finetune"]] = "finetune"
    default_teacher: ClassVar[str] = "resnet50"

    teachers: tuple[str, ...] = ()
    copies: int = 3
    temperature: float = 4.0
    feature_weight: float = 50.0
    weighting: Literal["confidence", "equal"] = "confidence"
    extra_division: bool = True
    learnt_weights: bool = False

    def __post_init__(self) -> None:
        at_least("copies", self.copies, 1, MOST_OFTEN)
        positive("temperature", self.temperature)
        not_negative("feature_weight", self.feature_weight)

    def check(self, settings: RunSettings) -> None:
        super().check(settings)
        require_different(self.teacher_names(settings), settings)
        if self.feature_weight and settings.training.epochs < 2:
            raise UsageError(
                "The features of CA-MKD are taught from the second epoch on: give --epochs 2 or more, or --feature-weight 0."
            )

    def unused(self, settings: RunSettings) -> list[str]:
        idle = self._idle(
            {
                "copies": bool(self.teachers),
                "learnt_weights": self.weighting == "equal" or not self.feature_weight,
            }
        )
        idle = super().unused(settings) + idle
        named = bool(self.teachers) and settings.teacher.teacher != self.default_teacher
        return [*idle, "teacher"] if named else idle

    def beyond_answers(self, settings: RunSettings) -> str:
        return "networks of its own (of several readers, --reader-weights confidence weighs each as it weighs teachers)"

    def teacher_names(self, settings: RunSettings) -> tuple[str, ...]:
        return self.teachers or (settings.teacher.teacher,) * self.copies

    def run(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.ca_mkd import CAMKDLoss, needs_of

        settings = bench.settings
        teachers = [
            bench.teacher(needs=needs_of(self.feature_weight), name=name, seed=bench.seed + _SEEDS_APART * number)
            for number, name in enumerate(self.teacher_names(settings))
        ]
        student = bench.student()
        objective = CAMKDLoss(
            student.map_shape,
            [teacher.network for teacher in teachers if teacher.network],
            temperature=self.temperature,
            feature_weight=self.feature_weight,
            weighting=self.weighting,
            epochs=settings.training.epochs,
            extra_division=self.extra_division,
            learnt_weights=self.learnt_weights,
            seed=bench.seed,
        )
        return bench.fit("student", student, objective, teachers=teachers)
