"""Parts that may strengthen teaching, put together: a panel of teachers, its answers and its features.

See docs/recipes.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.errors import UsageError
from stillroom.ranges import LARGEST_SIDE, MOST_OFTEN, at_least, not_negative, positive, share
from stillroom.recipes.base import Recipe, require_different

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings

_SEEDS_APART = 1000
"""Between copies of a teacher, so that runs with seeds 0, 1, 2 share none: their luck must be their own."""


@dataclass(frozen=True)
class Best(Recipe):
    """One teacher or several as a panel, whose mean answer is taught; and, where asked for, what the panel sees.

    Attributes:
        teachers: more networks that teach, beside `--teacher` and in its mode.
        frozen_teachers: pretrained networks that join the panel frozen, each with a head of its own, whatever the teacher's
            mode; the teacher's own name may be among them, and so may the student's.
        frozen_size: input side of the frozen teachers, in pixels. Default: that of the teacher.
        teacher_seeds: how many of each fine-tuned teacher to train, from as many seeds.
        alpha: weight in [0, 1] of the labels; the panel's answers weigh 1 - alpha.
        temperature: softens panel and student alike.
        answers: what is taught of a view: the panel's answer to that very `view`, or the `mean` of its answers to all the
            image's views.
        feature_weight: weight of foretelling the teachers' pooled features from the student's; 0 leaves them alone.
    """

    name: ClassVar[str] = "best"
    title: ClassVar[str] = "A panel of teachers: its mean answer, to the view or over views, and its features"
    default_teacher: ClassVar[str] = "mobilenet_edgetpu_100"

    teachers: tuple[str, ...] = ()
    frozen_teachers: tuple[str, ...] = ()
    frozen_size: int | None = None
    teacher_seeds: int = 1
    alpha: float = 0.5
    temperature: float = 2.0
    answers: Literal["view", "mean"] = "view"
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("teachers", "frozen_teachers"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name} takes a list of names, got {getattr(self, name)!r} alone.")
        at_least("teacher_seeds", self.teacher_seeds, 1, MOST_OFTEN)
        if self.frozen_size is not None:
            at_least("frozen_size", self.frozen_size, 16, LARGEST_SIDE)
        share("alpha", self.alpha)
        positive("temperature", self.temperature)
        not_negative("feature_weight", self.feature_weight)

    def check(self, settings: RunSettings) -> None:
        super().check(settings)
        if settings.teacher.teacher_answers and (self.teachers or self.frozen_teachers or self.teacher_seeds > 1):
            raise UsageError(
                "A table of answers teaches alone: leave out --teachers, --frozen-teachers and --teacher-seeds, or "
                "--teacher-answers."
            )
        names = self._own(settings)
        require_different(names, settings)
        if len(set(self.frozen_teachers)) < len(self.frozen_teachers) or (
            settings.teacher.teacher_mode == "frozen" and set(self.frozen_teachers) & {*names}
        ):
            raise UsageError("--frozen-teachers names a network that is in the panel frozen already: leave it out.")
        if self.frozen_teachers and not settings.teacher.pretrained:
            raise UsageError(
                "--frozen-teachers read pretrained weights: leave out --no-pretrained, or --frozen-teachers."
            )
        if self.answers == "mean" and settings.views.mix != "none":
            raise UsageError(
                "Every view mixes an image with another one, so that the mean over views is no answer to any: give "
                "--answers view, or --mix none."
            )
        stored = bool(settings.views.views or settings.views.still or settings.teacher.teacher_answers)
        if self.answers == "mean" and not stored:
            raise UsageError(
                "With --views 0 no answer is stored to take the mean of: give --answers view, or --views 8."
            )

    def unused(self, settings: RunSettings) -> list[str]:
        table = settings.teacher.teacher_answers is not None  # it answers to all views alike
        return super().unused(settings) + self._idle(
            {
                "answers": settings.views.still or table,
                "temperature": self.alpha == 1,
                "frozen_size": not self.frozen_teachers,
            }
        )

    def reads_features(self, settings: RunSettings) -> bool:
        return self.feature_weight > 0

    def teacher_names(self, settings: RunSettings) -> tuple[str, ...]:
        return () if settings.teacher.teacher_answers else self._own(settings) + self.frozen_teachers

    def teacher_inputs(self, settings: RunSettings) -> tuple[tuple[str, int | None], ...]:
        if settings.teacher.teacher_answers:
            return ()
        size = settings.teacher.teacher_size
        own = tuple((name, size) for name in self._own(settings))
        return own + tuple((name, self.frozen_size or size) for name in self.frozen_teachers)

    def _own(self, settings: RunSettings) -> tuple[str, ...]:
        """Those in the teacher's mode, every seed of them."""
        return (settings.teacher.teacher, *self.teachers) * self.teacher_seeds

    def run(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.panel import PanelLoss, needs_of
        from stillroom.distillation.teachers import of_mean_answers

        names, seed = self._own(bench.settings), bench.seed
        teachers = [
            bench.teacher(
                needs=needs_of(self.feature_weight),
                name=name,
                seed=seed + _SEEDS_APART * (number * self.teacher_seeds // len(names)),
            )
            for number, name in enumerate(names)
        ]
        teachers += [
            bench.teacher(needs=needs_of(self.feature_weight), name=name, mode="frozen", size=self.frozen_size)
            for name in self.frozen_teachers
        ]
        student, rows = bench.student(), bench.data.train
        objective = PanelLoss(
            self.alpha,
            self.temperature,
            feature_weight=self.feature_weight,
            student=student.pooled_dim,
            features=[teacher.output("pooled", rows, None) for teacher in teachers] if self.feature_weight else (),
            seed=bench.seed,
        )
        if self.answers == "mean":
            teachers = [of_mean_answers(teacher) for teacher in teachers]
        return bench.fit("student", student, objective, teachers=teachers)
