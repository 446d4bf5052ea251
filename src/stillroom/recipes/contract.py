"""What a recipe is given: the run's settings as far as it reads them, and the moves that it trains by.

Protocols, so that a recipe knows nothing of the rooms above it. :class:`~stillroom.run.workbench.Workbench` makes the moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from stillroom.settings.evaluation import EvaluationSettings
from stillroom.settings.sections import (
    DataSettings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
)

if TYPE_CHECKING:
    import numpy as np

    from stillroom.distillation.step import Objective
    from stillroom.distillation.teachers import Teacher
    from stillroom.models.network import Network
    from stillroom.training.feeding import TrainingData


class RunSettings(Protocol):
    """The settings of a whole run."""

    @property
    def data(self) -> DataSettings: ...
    @property
    def views(self) -> ViewSettings: ...
    @property
    def teacher(self) -> TeacherSettings: ...
    @property
    def student(self) -> StudentSettings: ...
    @property
    def training(self) -> TrainingSettings: ...
    @property
    def evaluation(self) -> EvaluationSettings: ...
    @property
    def seed(self) -> int: ...


class Folder(Protocol):
    """Where a recipe may leave what it found."""

    @property
    def path(self) -> Path: ...
    def note(self, **entries: Any) -> None: ...


class Moves(Protocol):
    """The workbench, as a recipe sees it; each move is described there."""

    milestones: dict[str, Network]

    @property
    def run(self) -> Folder: ...
    @property
    def settings(self) -> RunSettings: ...
    @property
    def data(self) -> TrainingData: ...
    @property
    def teachers(self) -> Sequence[Teacher]: ...
    @property
    def training_rows(self) -> np.ndarray: ...
    @property
    def seed(self) -> int: ...

    def student(self, *, attention: bool = False, seed: int | None = None) -> Network: ...
    def pretrained(self) -> Network: ...
    def untaught(self, name: str | None = None, *, seed: int | None = None, size: int | None = None) -> Network: ...
    def probe(self, role: str, *, pretrained: bool = True) -> Network: ...
    def slices(
        self, count: int, fraction: float, rows: np.ndarray | None = None, *, draw: int = 0
    ) -> list[np.ndarray]: ...
    def epochs(self, rows: np.ndarray) -> int: ...
    def epochs_alone(self) -> int: ...
    def control_epochs(self, rows: np.ndarray | None = None) -> int: ...

    def teacher(
        self,
        *,
        needs: frozenset[str] = frozenset(),
        name: str | None = None,
        seed: int | None = None,
        class_weights: bool | None = None,
        mode: Literal["frozen", "finetune"] | None = None,
        size: int | None = None,
    ) -> Teacher: ...
    def asked(
        self,
        network: Network,
        *,
        needs: frozenset[str] = frozenset(),
        rows: np.ndarray | None = None,
        label: str = "teacher",
    ) -> Teacher: ...
    def fit(
        self,
        role: str,
        network: Network,
        objective: Objective,
        *,
        teachers: Sequence[Teacher] = (),
        epochs: int | None = None,
        rows: np.ndarray | None = None,
        lr: float | None = None,
        class_weights: bool | None = None,
        seed: int | None = None,
    ) -> Network: ...
    def trial(
        self,
        role: str,
        network: Network,
        objective: Objective,
        *,
        teachers: Sequence[Teacher] = (),
        epochs: int | None = None,
        rows: np.ndarray | None = None,
        lr: float | None = None,
    ) -> float: ...
