"""The demonstration: the main job on synthetic phantoms, planned for about two minutes on two CPU cores."""

from __future__ import annotations

from pathlib import Path

from stillroom.planning import Plan, plan
from stillroom.recipes import Best
from stillroom.run.claims import numbered
from stillroom.run.folder import Run
from stillroom.run.pipeline import distill_at
from stillroom.settings.sections import StudentSettings, TeacherSettings
from stillroom.settings.whole import Settings

MINUTES = 1.5
"""For teaching and training; control and evidence take as long again."""
GIVEN = frozenset(
    {
        *("recipe.name", "student.student", "student.student_pretrained"),
        *("teacher.teacher", "teacher.teacher_mode", "teacher.pretrained"),
    }
)


def demo_settings(seed: int = 0) -> Settings:
    """What the plan is made around: a network of 1.5 MB teaches one of .4 MB, both from random weights."""
    return Settings(
        source="phantoms:1000",
        recipe=Best(),
        teacher=TeacherSettings("test_resnet", teacher_mode="finetune", pretrained=False),
        student=StudentSettings("test_efficientnet"),
        seed=seed,
    )


def demo_plan(seed: int = 0) -> Plan:
    """The plan of the demonstration on this machine."""
    settings = demo_settings(seed)
    return plan(settings.source, minutes=MINUTES, given=settings, fixed=GIVEN)


def run_demo(out: Path | None = None, *, seed: int = 0, show_progress: bool = True) -> Run:
    """Run it; ``out`` defaults to the first of ``runs/demo``, ``runs/demo-2``... that does not exist."""
    planned = demo_plan(seed)
    if show_progress:
        from stillroom.cli import console

        console.say(console.plan_in_short(planned))
    return distill_at(planned, out or numbered(Path("runs") / "demo"), show_progress=show_progress)
