"""Which stages a run has, and how long each may take: what progress tells of the whole way."""

from __future__ import annotations

from stillroom.settings import Settings


def foreseen(settings: Settings, expected_s: dict[str, float] | None = None) -> dict[str, float | None]:
    """The stages to come, with the seconds that a plan expects of each; None where nobody knows."""
    recipe, wanted = settings.recipe, settings.evaluation
    there = {
        "teach": bool(recipe.teacher_names(settings)),
        "student": True,
        "control": recipe.has_control and wanted.control,
        "evaluate": True,
        "explain": wanted.explain > 0,
        "export": True,
        "profile": True,
        "corrupt": wanted.corruptions,
    }
    return {stage: (expected_s or {}).get(stage) for stage, comes in there.items() if comes}


def stage_of(name: str) -> str | None:
    """The stage that a timed piece of work belongs to, by its name in the manifest; None for one that has no own."""
    if "teacher" in name:
        return "teach"
    if name.startswith("train "):
        return "control" if "control" in name else "student"
    return name if name in ("evaluate", "explain", "export", "profile", "corrupt") else None
