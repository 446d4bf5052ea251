"""Which stages a run has, and how long each may take: what progress tells of the whole way."""

from __future__ import annotations

from stillroom.settings.whole import Settings


def foreseen(settings: Settings, expected_s: dict[str, float] | None = None) -> dict[str, float | None]:
    """The stages to come, with the seconds that a plan expects of each; None where nobody knows."""
    recipe, wanted = settings.recipe, settings.evaluation
    there = {
        "teach": bool(recipe.teacher_names(settings)),
        "student": True,
        "control": recipe.has_control and wanted.control,
        "repeats": wanted.repeats > 1,
        "folds": wanted.folds > 1,
        "evaluate": True,
        "explain": wanted.explain != 0,
        "export": True,
        "profile": True,
        "corrupt": wanted.corruptions,
    }
    seconds = dict(expected_s or {})
    trainings = max(wanted.repeats, wanted.folds)
    if trainings > 1 and seconds:  # the plan has all trainings of a network as one
        for stage in ("student", "control"):
            seconds[stage] = seconds.get(stage, 0.0) / trainings
        again = "repeats" if wanted.repeats > 1 else "folds"
        seconds[again] = (trainings - 1) * (seconds["student"] + seconds["control"])
    return {stage: seconds.get(stage) for stage, comes in there.items() if comes}


def stage_of(name: str) -> str | None:
    """The stage that a timed piece of work belongs to, by its name in the manifest; None for one that has no own."""
    if name.startswith(("ask ", "fit ", "train teacher")):
        return "teach"
    if name.startswith("train "):
        return "control" if "control" in name else "student"
    return name if name in _OF_THEIR_OWN else None


_OF_THEIR_OWN = ("repeats", "folds", "evaluate", "explain", "export", "profile", "corrupt")
