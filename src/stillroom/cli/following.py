"""What `stillroom distill` follows: the settings as they stand, a plan from a file, or one made around the flags."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from stillroom.errors import UsageError
from stillroom.files.places import require_file_place
from stillroom.files.reading import read_yaml
from stillroom.planning.plan_file import read_plan
from stillroom.planning.sheet import Limits, Plan, fixed_names, trainings_of
from stillroom.settings.whole import SECTIONS, Settings, anchored


def plan_or_settings(
    wanted: Settings,
    names: Collection[str],
    out: Path | None,
    plan: Path | None,
    no_plan: bool,
    settings: Path | None,
    minutes: float | None,
    max_ms: float | None,
) -> Settings | Plan:
    """What to follow.

    Args:
        wanted: the settings as flags and files give them.
        names: of what stands on the command line, or in the settings file.
        out: where the run will stand; where that is taken nothing is planned.
        plan: a plan to follow.
        no_plan: follow none.
        settings: the settings file, beside which nothing is planned unless ``minutes`` or ``max_ms`` asks for it.
        minutes: for a plan to be made.
        max_ms: for a plan to be made.

    Raises:
        UsageError: these do not go together, the plan is of another source, or none can be made.
    """
    for flag, value in (("--minutes", minutes), ("--max-ms", max_ms)):
        if value is not None and (plan or no_plan):
            raise UsageError(
                f"{flag} is for a plan that is yet to be made: leave it out beside --{'plan' if plan else 'no-plan'}."
            )
    if plan and no_plan:
        raise UsageError("--plan and --no-plan contradict each other: give one.")
    fixed = fixed_names(type(wanted.recipe), names)
    if plan:
        found = read_plan(plan)
        if anchored(wanted).source != anchored(found.settings).source:
            raise UsageError(
                f"{plan} was made for {found.settings.source}, not for {wanted.source}: make one by "
                f"`stillroom plan {wanted.source}`, or change `source` in it."
            )
        _tell_of_trainings(found, wanted)
        return found.with_flags(wanted, fixed)
    if no_plan or (settings and minutes is None and max_ms is None):
        return wanted
    return _made(wanted, fixed, out, minutes, max_ms)


def _tell_of_trainings(plan: Plan, wanted: Settings) -> None:
    """Say so where a plan's minutes are those of fewer trainings than are asked for."""
    planned, asked = trainings_of(plan.settings), trainings_of(wanted)
    if asked > planned:
        from stillroom.cli import console

        console.say(
            f"The plan was made for {planned} training{'s' * (planned > 1)} of the student: {asked} take "
            f"{asked / planned:.3g} times its {plan.budget.minutes:g} minutes, or nearly. `stillroom plan` has no "
            "--repeats and --folds; `stillroom distill` without --plan makes a plan that shares the minutes among them."
        )


def _made(
    wanted: Settings, fixed: frozenset[str], out: Path | None, minutes: float | None, max_ms: float | None
) -> Plan:
    limits = Limits()
    if "evaluation.max_mb" in fixed:
        limits = Limits(max_mb=wanted.evaluation.max_mb)
    if minutes is not None:
        limits = Limits(minutes, limits.max_mb)
    if out:
        from stillroom.run.claims import require_vacant

        require_vacant(out)
    from stillroom.cli import console
    from stillroom.planning import plan as make

    console.say("Planning: looking at the images and timing a few steps ...")
    made = make(wanted.source, minutes=limits.minutes, max_mb=limits.max_mb, max_ms=max_ms, given=wanted, fixed=fixed)
    console.say(console.plan_in_short(made))
    return made


def names_in(file: Path) -> set[str]:
    """Names of the settings that stand in a settings file, as flags without dashes."""
    content = read_yaml(file, "a settings file")
    names = {name for section in SECTIONS for name in content.get(section) or {}}
    return names | ({"recipe"} | set(content["recipe"]) if content.get("recipe") else set())


def refuse_where_taken(file: Path) -> None:
    """Raises UsageError where a plan cannot be written to ``file``."""
    require_file_place(file)
    if file.exists():
        raise UsageError(f"{file} exists already: choose another --out, or remove it.")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {file.absolute().parent} to write {file.name} to: choose another --out.")
