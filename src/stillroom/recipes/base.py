"""What a recipe is: the settings of one published system, and the few lines that run it.

Adding a method is one file: a frozen dataclass with a `run`, listed in :mod:`stillroom.recipes`. Importing a recipe
must not import torch, because the command line's help is made from these classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.errors import UsageError
from stillroom.settings.methods import DEFAULT, Method
from stillroom.settings.network_names import shown

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings
    from stillroom.task import Task


@dataclass(frozen=True)
class Claim:
    """What the control puts to the test, in words for the report.

    Attributes:
        adds: what the recipe adds to the control, as the subject of a sentence: "the teacher".
        control: what the control is: "the same student, on the same budget, without a teacher".
        origin: where the student comes from: "Distilled from resnet50".
    """

    adds: str
    control: str
    origin: str


@dataclass(frozen=True)
class Recipe(ABC):
    """Base of every recipe. Fields of a subclass are its settings; each is a flag of the command line.

    Attributes:
        name: what `--recipe` takes.
        title: one line for people.
        citation: the paper it implements; empty for the baseline.
        kinds: the kinds of task it supports (see :attr:`Task.kind`).
        has_teacher: whether it uses the teacher's settings.
        uses_unlabelled: whether it can learn from images without labels.
        has_control: whether it adds something to the labels, so that a control without it is worth training.
        default_teacher: what `--teacher` is where it is not given.
        default_teacher_mode: what `--teacher-mode` is.
        default_student: what `--student` is.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    citation: ClassVar[str] = ""
    kinds: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "ordinal", "multilabel"})
    has_teacher: ClassVar[bool] = True
    uses_unlabelled: ClassVar[bool] = True
    has_control: ClassVar[bool] = True
    default_teacher: ClassVar[str] = "vit_base_patch14_dinov2"
    default_teacher_mode: ClassVar[Literal["frozen", "finetune"]] = "frozen"
    default_student: ClassVar[str] = "resnet10t_050"
    default_map: ClassVar[Method] = DEFAULT

    def adapt(self, task: Task) -> Task:
        """The task as this recipe trains it. Raises UsageError where the recipe does not support it."""
        if task.kind not in self.kinds:
            raise UsageError(
                f"Recipe {self.name} supports {', '.join(sorted(self.kinds))} tasks; this data set's is {task.kind}. "
                "See `stillroom recipes` for one that fits."
            )
        return task

    def claim(self, settings: RunSettings) -> Claim:
        """What the report says that this recipe adds, and what its control is."""
        table = settings.teacher.teacher_answers
        names = (
            f"the answers in {table.name}"
            if table
            else " + ".join(dict.fromkeys(map(shown, self.teacher_names(settings))))
        )
        return Claim(
            "the teacher", "the same student, on the same budget, without a teacher", f"Distilled from {names}"
        )

    def controls_by_itself(self, settings: RunSettings) -> bool:
        """Whether its control is another network than the baseline with the same settings."""
        return self.has_control and type(self).control is not Recipe.control

    def check(self, settings: RunSettings) -> None:
        """Raises UsageError for settings that do not go with the recipe, before anything takes long."""
        if settings.training.unlabelled and not self.uses_unlabelled:
            raise UsageError(
                f"Recipe {self.name} cannot learn from images without labels: leave out --unlabelled, or choose a recipe "
                "with a teacher."
            )
        if self.has_teacher and settings.teacher.teacher_answers:
            self._check_answers(settings)

    def beyond_answers(self, settings: RunSettings) -> str:
        """What it needs that no table of answers holds, in words; empty where answers or an embedding will do."""
        return ""

    def reads_features(self, settings: RunSettings) -> bool:
        """Whether it reads a teacher's pooled features, which a table holds as an embedding alone."""
        return False

    def unused(self, settings: RunSettings) -> list[str]:
        """Names of settings that differ from their defaults and yet change nothing in this run."""
        if not self.has_teacher:
            return self._idle_teacher(settings)
        teacher, of_tables = settings.teacher, ("answers_kind", "answers_of", "reader_weights")
        if teacher.teacher_answers is None:
            defaults = {f.name: f.default for f in fields(teacher)}
            return [name for name in of_tables if getattr(teacher, name) != defaults[name]]
        head = ("head_solver", "teacher_epochs") if teacher.answers_kind in (None, "embedding") else ()
        return self._idle_teacher(settings, "teacher_answers", *of_tables, *head)

    def _check_answers(self, settings: RunSettings) -> None:
        """Raises UsageError where a table of answers cannot teach."""
        if why := self.beyond_answers(settings):
            raise UsageError(
                f"Recipe {self.name} cannot be taught by a table of answers: it needs {why}. Choose another --recipe, such "
                "as best, or leave out --teacher-answers."
            )
        if settings.views.mix != "none":
            raise UsageError(
                "--mix shows two images in one, and a table holds answers to single images: give --mix none, or leave out "
                "--teacher-answers."
            )
        if settings.training.unlabelled:
            raise UsageError(
                "--teacher-answers are about the images of the source, so they teach nothing about those of --unlabelled: "
                "leave out one of them."
            )

    def _idle(self, switches: dict[str, bool]) -> list[str]:
        """Of the recipe's own settings by name, those that are switched off (True) and yet are not at their default."""
        defaults = {f.name: f.default for f in fields(self)}
        return [name for name, off in switches.items() if off and getattr(self, name) != defaults[name]]

    def _idle_teacher(self, settings: RunSettings, *read: str) -> list[str]:
        """The teacher's settings that are not at their default, though nothing but ``read`` is read of them."""
        if settings.student.starts_pretrained:
            read = (*read, "weights")  # where the student's are looked for
        defaults = {f.name: f.default for f in fields(settings.teacher)}
        name = "" if settings.teacher.teacher_answers else self.default_teacher
        defaults |= {"teacher": name, "teacher_mode": settings.teacher.mode_told or self.default_teacher_mode}
        return [
            name for name, value in defaults.items() if name not in read and getattr(settings.teacher, name) != value
        ]

    def teacher_names(self, settings: RunSettings) -> tuple[str, ...]:
        """The networks whose weights the run needs besides the student's; none where a table of answers teaches."""
        return (settings.teacher.teacher,) if self.has_teacher and not settings.teacher.teacher_answers else ()

    def teacher_inputs(self, settings: RunSettings) -> tuple[tuple[str, int | None], ...]:
        """The same networks, each with the side that its input was given; None for the usual one."""
        return tuple((name, settings.teacher.teacher_size) for name in self.teacher_names(settings))

    def has_start(self, settings: RunSettings) -> bool:
        """Whether the student knows something before it is trained: its weights are pretrained, or cut out of such."""
        return settings.student.starts_pretrained

    def start(self, bench: Moves) -> Network:
        """The student before it is trained."""
        return bench.student()

    @abstractmethod
    def run(self, bench: Moves) -> Network:
        """Train what the system trains and return the student."""

    def control(self, bench: Moves) -> Network:
        """The same student without what the system adds: on the labels alone, for as many image passes."""
        from stillroom.distillation.objectives.labels import LabelLoss

        return bench.fit("control", bench.student(), LabelLoss(), epochs=bench.control_epochs())


def require_places(role: str, network: Network, otherwise: str) -> None:
    """Raises UsageError where the network's last feature map has one place, so that attention has nowhere to go.

    Args:
        role: ``student`` or ``teacher``.
        network: before any training.
        otherwise: what else the user can do, for the message.
    """
    if network.map_shape[1:] == (1, 1):
        raise UsageError(
            f"The last feature map of the {role} {network.name} has one place at {network.input_size[0]} pixels, so that "
            f"attention has nowhere else to go. Give a larger --size or --{role}-size, or {otherwise}."
        )


def require_different(names: tuple[str, ...], settings: RunSettings) -> None:
    """Raises UsageError where a panel of these networks, in the teacher's mode, holds copies that all answer alike."""
    if settings.teacher.teacher_mode == "frozen" and settings.teacher.pretrained and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"Frozen copies of {twice} would all say the same. Give --teacher-mode finetune, or --teachers that differ."
        )
