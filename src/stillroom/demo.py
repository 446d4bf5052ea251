"""The demonstration: the main job on synthetic phantoms, sized for two CPU cores and a few minutes."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from stillroom.pipeline import distill
from stillroom.recipes import MedAlmighty
from stillroom.run import Run
from stillroom.settings import (
    DataSettings,
    EvaluationSettings,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
    ViewSettings,
)


def demo_settings(seed: int = 0) -> Settings:
    """Without pretrained weights the teacher is a larger network, fine-tuned on the phantoms from random weights."""
    return Settings(
        source="phantoms:1000",
        recipe=MedAlmighty(alpha=0.2, temperature=2.0),
        data=DataSettings(size=64),
        views=ViewSettings(augment="light", views=4),
        teacher=TeacherSettings("resnet10t", teacher_mode="finetune", pretrained=False, teacher_epochs=14),
        student=StudentSettings("test_resnet"),
        training=TrainingSettings(epochs=12, batch_size=32, lr=2e-3),
        evaluation=EvaluationSettings(),
        seed=seed,
    )


def run_demo(out: Path | None = None, *, seed: int = 0, show_progress: bool = True) -> Run:
    """Run it; ``out`` defaults to the first of ``runs/demo``, ``runs/demo-2``... that does not exist."""
    folders = (Path("runs") / ("demo" if number == 1 else f"demo-{number}") for number in count(1))
    return distill(
        demo_settings(seed),
        out or next(path for path in folders if not path.exists()),
        show_progress=show_progress,
    )
