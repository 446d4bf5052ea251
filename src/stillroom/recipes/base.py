"""What a recipe is: the settings of one published system, and the few lines that run it.

Adding a method is one file: a frozen dataclass with a `run`, listed in :mod:`stillroom.recipes`. Importing a recipe
must not import torch, because the command line's help is made from these classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stillroom.errors import UsageError
from stillroom.task import Task

if TYPE_CHECKING:
    from stillroom.models.network import Network
    from stillroom.workbench import Workbench


@dataclass(frozen=True)
class Recipe(ABC):
    """Base of every recipe. Fields of a subclass are its settings; each is a flag of the command line.

    Attributes:
        name: what `--recipe` takes.
        title: one line for people.
        citation: the paper it implements; empty for the baseline.
        kinds: the kinds of task it supports (see :attr:`Task.kind`).
        has_teacher: whether it learns from a teacher, so that a control without one is worth training.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    citation: ClassVar[str] = ""
    kinds: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "ordinal", "multilabel"})
    has_teacher: ClassVar[bool] = True

    def adapt(self, task: Task) -> Task:
        """The task as this recipe trains it. Raises UsageError where the recipe does not support it."""
        if task.kind not in self.kinds:
            raise UsageError(
                f"Recipe {self.name} supports {', '.join(sorted(self.kinds))} tasks; this data set's is {task.kind}. "
                "See `stillroom recipes` for one that fits."
            )
        return task

    @abstractmethod
    def run(self, bench: Workbench) -> Network:
        """Train what the system trains and return the student."""
