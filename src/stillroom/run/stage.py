"""What a stage is: work on what the stages before it left, which adds figures and perhaps a section of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from stillroom.distillation.teachers import Panel
from stillroom.evaluation.roles import STUDENT
from stillroom.models.network import Network
from stillroom.report.section import Section
from stillroom.run.folder import Run
from stillroom.run.workbench import Workbench
from stillroom.settings.whole import Settings

if TYPE_CHECKING:
    from stillroom.evaluation.assess import Assessment
    from stillroom.evaluation.density import FeatureDensity
    from stillroom.explanation.layers import Layer
    from stillroom.run.probes import Rival
    from stillroom.run.repeats import Trained
    from stillroom.run.selection import Joined


@dataclass
class Evidence:
    """What the stages of a run have found so far. Each reads what those before it set.

    Attributes:
        bench: the run's workbench.
        trained: the run's own training, and its repeats.
        joined: several trainings as one; None where there was one.
        networks: by role, the student first.
        simpler: linear probes by role.
        logits: by role, ``[N, K]`` of every row.
        assessment: figures, calibrated probabilities ``[N, K]`` and temperatures by role.
        exported: the role of the network that is handed over.
        density: of its features, by which it knows foreign images.
        layer: of which its heat maps are made.
        onnx: the exported file.
        figures: metrics.json.
    """

    bench: Workbench
    trained: list[Trained] = field(default_factory=list)
    joined: Joined | None = None
    networks: dict[str, nn.Module] = field(default_factory=dict)
    simpler: dict[str, Rival] = field(default_factory=dict)
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    assessment: Assessment | None = None
    exported: str = STUDENT
    density: FeatureDensity | None = None
    layer: Layer | None = None
    onnx: Path | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> Run:
        return self.bench.run

    @property
    def student(self) -> Network | Panel:
        """The student that is evaluated: of several trainings the chosen one, or all of them joined."""
        return self.networks[STUDENT]  # type: ignore[return-value]


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: of its time in the manifest and on the progress line; empty for one whose parts are timed by themselves.
        work: gives the parts that it adds to metrics.json, by name.
        wanted: whether a run with these settings has it.
        section: what the report and the model card show of those parts, for a stage with no place of its own there.
    """

    name: str
    work: Callable[[Evidence], dict[str, Any]]
    wanted: Callable[[Settings], bool] = lambda settings: True
    section: Callable[[dict[str, Any]], Section] | None = None


def carry_out(stage: Stage, evidence: Evidence) -> None:
    """Do the work of a stage, and add what it found to ``evidence.figures``."""
    if stage.name:
        with evidence.run.stage(stage.name):
            parts = stage.work(evidence)
    else:
        parts = stage.work(evidence)
    evidence.figures |= parts
    if stage.section:
        evidence.figures.setdefault("sections", []).append(stage.section(parts).to_dict())
