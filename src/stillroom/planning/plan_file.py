"""plan.yaml: written for people to read and edit, read back with every mistake named."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError, nearest
from stillroom.files.atomic import write_atomically
from stillroom.files.reading import in_short, read_yaml
from stillroom.planning.sheet import Choice, Limits, Plan, names_of
from stillroom.recipes import MedAlmighty, recipe_named
from stillroom.settings.whole import from_dict, plain_values, read_section

FILE = "plan.yaml"
"""Its name in a run folder."""
EDITED = "edited"
"""The reason of a choice that stands in the file as a bare value."""

_HEAD = """\
# How this run was planned. Follow it with `stillroom distill --plan FILE`.
# Every choice can be edited: change its value, or write the value alone, as in `data.size: 128`.
# Any other setting of `stillroom distill` can be added under its section's name.
"""
_KEYS = ("source", "seed", "device", "budget", "facts", "expected_s", "choices")


def to_plain(plan: Plan) -> dict[str, Any]:
    """The plan as plain values, as they stand in the file."""
    settings = plan.settings
    return plain_values(
        {
            "source": settings.source,
            "seed": settings.seed,
            "device": settings.device,
            "budget": {f.name: getattr(plan.budget, f.name) for f in fields(Limits)},
            "facts": plan.facts,
            "expected_s": plan.expected_s,
            "choices": {name: {"value": choice.value, "why": choice.why} for name, choice in plan.choices.items()},
        }
    )


def write_plan(plan: Plan, path: Path) -> None:
    """Write the plan, whole or not at all. Raises StorageError where it cannot be written."""
    import yaml

    text = _HEAD + yaml.safe_dump(to_plain(plan), sort_keys=False, allow_unicode=True, width=110)
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))


def read_plan(path: Path) -> Plan:
    """A plan from its file, as it was written or edited.

    Raises:
        UsageError: it cannot be read or used; the message names the file and what is wrong in it.
    """
    content = read_yaml(path, "a plan")
    if not isinstance(content, dict) or not isinstance(content.get("choices"), dict):
        raise UsageError(f"{path} is not a plan: it must hold `source` and `choices`, as `stillroom plan` writes them.")
    for key in content:
        if key not in _KEYS:
            raise UsageError(f"{path}: there is no key {key!r}.{nearest(str(key), _KEYS)} Keys: {', '.join(_KEYS)}.")
    parts = {key: content.get(key) or {} for key in ("budget", "facts", "expected_s")}
    for key, part in parts.items():
        if not isinstance(part, dict):
            raise UsageError(f"{path}: {key} must hold values by name, got {in_short(part)}.")
    choices = {str(name): _choice(value, f"{path}: {name}") for name, value in content["choices"].items()}
    seconds = parts["expected_s"]
    if not all(isinstance(value, int | float) and value >= 0 for value in seconds.values()):
        raise UsageError(f"{path}: expected_s must hold seconds by stage, got {in_short(seconds)}.")
    head = {key: content[key] for key in ("source", "seed", "device") if key in content}
    settings = from_dict(head | _nested(choices, str(path)), str(path))
    return Plan(settings, choices, parts["facts"], read_section(Limits, parts["budget"], f"{path}: budget"), seconds)


def _choice(found: Any, where: str) -> Choice:
    if not isinstance(found, dict):
        return Choice(found, EDITED)
    if "value" not in found:
        raise UsageError(f"{where}: a choice needs a `value`, got {in_short(found)}.")
    return Choice(found["value"], str(found.get("why", EDITED)))


def _nested(choices: dict[str, Choice], where: str) -> dict[str, dict[str, Any]]:
    """The choices as settings by section."""
    recipe = recipe_named(str(choices.get("recipe.name", Choice(MedAlmighty.name, "")).value))
    known = names_of(recipe)
    nested: dict[str, dict[str, Any]] = {}
    for name, choice in choices.items():
        if name not in known:
            raise UsageError(f"{where}: choices: there is no setting {name!r}.{nearest(name, known)}")
        section, _, field = name.partition(".")
        nested.setdefault(section, {})[field] = choice.value
    return nested
