"""Which stages a run has, and how long each may take: what progress tells of the whole way."""

from __future__ import annotations

from collections.abc import Iterable

from stillroom.settings.whole import Settings


def foreseen(
    settings: Settings, afterwards: Iterable[str], expected_s: dict[str, float] | None = None
) -> dict[str, float | None]:
    """The stages to come, with the seconds that a plan expects of each; None where nobody knows.

    Args:
        settings: of the run.
        afterwards: names of the stages after training, in order.
        expected_s: of the plan; it says nothing of a stage that takes next to no time, or that it does not know.
    """
    recipe, wanted = settings.recipe, settings.evaluation
    training = {
        "teach": bool(recipe.teacher_names(settings)),
        "student": True,
        "control": recipe.has_control and wanted.control,
        "repeats": wanted.repeats > 1,
        "folds": wanted.folds > 1,
    }
    stages = [*(stage for stage, comes in training.items() if comes), *afterwards]
    if not expected_s:
        return dict.fromkeys(stages)
    seconds = dict(expected_s)
    trainings = max(wanted.repeats, wanted.folds)
    if trainings > 1:  # the plan has all trainings of a network as one
        for stage in ("student", "control"):
            seconds[stage] = seconds.get(stage, 0.0) / trainings
        again = "repeats" if wanted.repeats > 1 else "folds"
        seconds[again] = (trainings - 1) * (seconds["student"] + seconds["control"])
    return {stage: seconds.get(stage, 0.0) for stage in stages}


def stage_of(name: str) -> str:
    """The stage that a timed piece of work belongs to, by its name in the manifest; its own, but for parts of a training."""
    if name.startswith(("ask ", "fit ", "train teacher")):
        return "teach"
    if name.startswith("train "):
        return "control" if "control" in name else "student"
    return name
