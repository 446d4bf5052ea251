"""What a plan is made of: its limits, its choices, and the sheet on which the rules note them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from stillroom.errors import UsageError
from stillroom.ranges import positive
from stillroom.recipes import Recipe
from stillroom.settings.whole import SECTIONS, Settings

GIVEN = "given"
"""The reason of what stood on the command line, or in settings that the plan was made around."""


@dataclass(frozen=True)
class Limits:
    """What the plan must keep within.

    Attributes:
        minutes: for teaching and the training of teacher and student.
        max_mb: the student's float32 parameters, in 10^6 bytes; None for any.
        max_ms: milliseconds that the student takes for one image on one thread; None for any.
    """

    minutes: float = 20.0
    max_mb: float | None = 10.0
    max_ms: float | None = None

    def __post_init__(self) -> None:
        for flag, value in (("--minutes", self.minutes), ("--max-mb", self.max_mb), ("--max-ms", self.max_ms)):
            if value is None and flag != "--minutes":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"{flag} is a number, got {value!r}.")
            positive(flag, value)


@dataclass(frozen=True)
class Choice:
    """One setting of the plan: its value, and why."""

    value: Any
    why: str


@dataclass(frozen=True)
class Plan:
    """A run as it was planned. `stillroom.distill` takes it in the place of settings.

    Attributes:
        settings: what the choices say.
        choices: each setting that was planned or given, by its name, such as ``data.size``.
        facts: what the rules were told of images, weights and machine; plain values.
        budget: what was to be kept within.
        expected_s: seconds by stage: ``teach``, ``student``, ``control`` and what comes after. Empty where nobody knows,
            as after a change by hand.
    """

    settings: Settings
    choices: dict[str, Choice]
    facts: dict[str, Any]
    budget: Limits
    expected_s: dict[str, float]

    def with_flags(self, settings: Settings, fixed: Collection[str]) -> Plan:
        """The plan with settings of which ``fixed`` are given on the command line, seed and device included."""
        given = {name: Choice(value_of(settings, name), GIVEN) for name in fixed}
        known = names_of(type(settings.recipe))
        kept = {name: choice for name, choice in self.choices.items() if name in known}
        same = replace(settings, evaluation=self.settings.evaluation) == self.settings
        as_often = trainings_of(settings) == trainings_of(self.settings)
        expected = self.expected_s if same and as_often else {}
        return replace(self, settings=settings, choices=kept | given, expected_s=expected)


class Decision(NamedTuple):
    """What the rules decided: choices by setting, such as ``data.size``, and the seconds that each stage will take."""

    choices: dict[str, Choice]
    expected_s: dict[str, float]


class Sheet:
    """Where choices are noted.

    Args:
        given: holds the values of what is fixed.
        fixed: names of settings that are not the plan's to choose.
    """

    def __init__(self, given: Settings, fixed: frozenset[str]) -> None:
        self.given, self.fixed = given, fixed
        self.choices: dict[str, Choice] = {}

    def put(self, name: str, value: Any, why: str) -> Any:
        """Note a choice, unless it was not the plan's to make; returns what holds."""
        if name in self.fixed:
            value, why = value_of(self.given, name), GIVEN
        self.choices[name] = Choice(value, why)
        return value

    def close(self) -> dict[str, Choice]:
        """All choices, with what was given besides."""
        given = {name: Choice(value_of(self.given, name), GIVEN) for name in sorted(self.fixed - set(self.choices))}
        return self.choices | given


def trainings_of(settings: Settings) -> int:
    """How many trainings of the student a run asks for."""
    return max(settings.evaluation.repeats, settings.evaluation.folds)


def value_of(settings: Settings, name: str) -> Any:
    """The value of a setting by its name in a plan, such as ``data.size``."""
    section, _, field = name.partition(".")
    return getattr(getattr(settings, section), field)


def fixed_names(recipe: type[Recipe], flags: Collection[str]) -> frozenset[str]:
    """The settings that stand on a command line, by their names in a plan.

    Args:
        recipe: whose flags there are.
        flags: names of flags without dashes, such as ``label_fraction``; those that are no settings are passed over.
    """
    names = {name for name in names_of(recipe) if name.partition(".")[2] in flags}
    if "recipe" in flags or any(name.startswith("recipe.") for name in names):
        names.add("recipe.name")
    return frozenset(names)


def names_of(recipe: type[Recipe]) -> list[str]:
    """Every setting's name in a plan, those of the recipe included."""
    names = [f"{section}.{f.name}" for section, cls in SECTIONS.items() for f in fields(cls)]
    return [*names, "recipe.name", *(f"recipe.{f.name}" for f in fields(recipe))]


def in_passes(passes: float) -> str:
    """In words, with a decimal where it matters."""
    return "1 pass" if passes == 1 else f"{passes:.1f} passes" if passes < 10 and passes % 1 else f"{passes:.0f} passes"
