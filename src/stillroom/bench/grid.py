"""From a small YAML file to cells: every combination of data, recipe, teacher, student and seed, checked as settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError, nearest
from stillroom.files.cache import fingerprint
from stillroom.files.reading import in_short, read_yaml
from stillroom.planning.sheet import Limits
from stillroom.recipes import RECIPES, Baseline, Recipe, recipe_named
from stillroom.settings.whole import SECTIONS, Settings, from_dict, read_section, to_dict

KEYS = ("data", "recipes", "teachers", "students", "seeds", "settings", "plan")
_HOMES = {"data": "data", "recipes": "recipe", "teachers": "teacher", "students": "student"}
"""The lists of the file, and the part of the settings whose names stand directly in their entries."""
_LONGEST_ID = 120
PLANNED = "planned"
"""Stands for a network that the plan of a cell chooses."""

Parts = dict[str, dict[str, Any]]
"""Settings by part, as in settings.yaml."""


@dataclass(frozen=True)
class Entry:
    """One entry of a list in the file.

    Attributes:
        name: a source, recipe or network; empty for "the recipe's own choice".
        label: what tables call it.
        parts: the settings it gives.
        against: of a recipe, the label of the one it is compared with; empty for the baseline.
        plan: limits of a plan that its cells make and follow; None says nothing of it.
    """

    name: str
    label: str
    parts: Parts
    against: str = ""
    plan: dict[str, float] | None = None


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        id: a readable name that ends in a fingerprint of the settings; also the run folder's name.
        data, recipe, teacher, student: labels; the teacher is empty for a recipe without one.
        settings: everything that decides the run; of a planned one, what the file gives and defaults for the rest.
        against: label of the recipe it is compared with; empty for the baseline.
        plan: limits of the plan that is made where the cell runs; None follows the settings as they are.
        given: the parts of the settings that the file gives, around which is planned.
    """

    id: str
    data: str
    recipe: str
    teacher: str
    student: str
    settings: Settings
    against: str = ""
    plan: Limits | None = None
    given: Parts = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def is_baseline(self) -> bool:
        """Whether it is the recipe that the others are compared with."""
        return isinstance(self.settings.recipe, Baseline)

    @property
    def title(self) -> str:
        """For people: what is run on what."""
        return " · ".join(filter(None, (self.data, self.recipe, self.teacher, self.student, f"seed {self.seed}")))


def read_grid(path: Path) -> list[Cell]:
    """The cells of a grid file, in the order of the file; the seed varies fastest.

    Paths in the file are relative to its folder; ``$NAME`` in them stands for the environment's variable. Later layers
    win: `settings`, then the entry of `data`, `teachers`, `students` and, last, `recipes`. A recipe without a teacher
    gives one cell per student, not one per teacher; so does a recipe entry that names its own teacher (``teacher:
    {teacher: ...}``), and likewise for students. The control of each run is off unless the file turns it on, because the
    grid's baseline is the control; a recipe entry can name another one by its label (``against``).

    With `plan: {minutes: 2, max_mb: 10}`, of the whole file or of an entry of `data` or `recipes`, a cell plans around what
    the file gives. It does so where it runs; its id says what was asked for, not what came out.

    Raises:
        UsageError: the file cannot be read, or something in it cannot be used; file and key are named.
    """
    content = _read(path)
    base = Path(os.path.abspath(path)).parent  # noqa: PTH100 - `resolve` would follow links away from the file
    for key in content:
        if key not in KEYS:
            raise UsageError(
                f"{path}: there is no key {in_short(key)}.{nearest(str(key), KEYS)} Keys: {', '.join(KEYS)}."
            )
    for key in ("data", "recipes"):
        if not content.get(key):
            raise UsageError(f"{path}: `{key}` is missing or empty: list at least one.")
    seeds = content.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise UsageError(
            f"{path}: seeds must be a list of whole numbers from 0, such as [0, 1, 2]; got {in_short(seeds)}."
        )
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"{path}: seeds lists a seed twice: {in_short(seeds)}.")
    common, device = _common(content.get("settings") or {}, base, str(path))
    lists = {key: _entries(content.get(key), key, base, str(path)) for key in _HOMES}
    wanted = _limits(content.get("plan"), str(path))
    _check_controls(lists["recipes"], str(path))

    cells: dict[str, Cell] = {}
    for data in lists["data"]:
        for recipe in lists["recipes"]:
            for teacher, student, parts in _networks(recipe, lists, common | {}, data, str(path)):
                asked = [limits for limits in (wanted, data.plan, recipe.plan) if limits is not None]
                plan = {name: value for limits in asked for name, value in limits.items()} if asked else None
                for seed in seeds:
                    cell = _cell(str(path), data, recipe, teacher, student, parts, seed, device, plan)
                    if cell.id in cells:
                        raise UsageError(f"{path}: two entries ask for the same run: {cell.title}.")
                    cells[cell.id] = cell
    return list(cells.values())


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "a grid file")
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a grid file: it must hold {', '.join(KEYS)}.")
    return content


def _common(content: Any, base: Path, where: str) -> tuple[Parts, str]:
    where = f"{where}: settings"
    if not isinstance(content, dict):
        raise UsageError(f"{where} must hold parts by name ({', '.join(SECTIONS)}), got {in_short(content)}.")
    known = [*SECTIONS, "device"]
    for name in content:
        if name not in known:
            raise UsageError(
                f"{where}: there is no part {in_short(name)}.{nearest(str(name), known)} Parts: {', '.join(known)}."
            )
    parts = {name: _part(name, content[name], base, where) for name in SECTIONS if content.get(name)}
    for part in ("teacher", "student"):
        if part in parts.get(part, {}):
            raise UsageError(f"{where}: {part}: list the {part} under `{part}s`, so that it can be varied.")
    return parts, content.get("device", "auto")


def _entries(raw: Any, key: str, base: Path, where: str) -> list[Entry]:
    if raw is None and key in ("teachers", "students"):
        return [Entry("", "", {})]
    if not isinstance(raw, list) or not raw:
        raise UsageError(f"{where}: {key} must be a list with at least one entry, got {in_short(raw)}.")
    entries = [_entry(item, key, base, f"{where}: {key}, entry {number}") for number, item in enumerate(raw, 1)]
    labels = [entry.label for entry in entries]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UsageError(f"{where}: {key} holds {in_short(twice)} twice: give each a `label` of its own.")
    return entries


def _entry(raw: Any, key: str, base: Path, where: str) -> Entry:
    home, named = _HOMES[key], "source" if key == "data" else "name"
    given = dict(raw) if isinstance(raw, dict) else {named: raw}
    name, label = given.pop(named, None), given.pop("label", None)
    against = given.pop("against", "") if key == "recipes" else ""
    plan = given.pop("plan", None) if key in ("data", "recipes") else None
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}: expected a name, or settings with a `{named}`, got {in_short(raw)}.")
    if label is not None and (not isinstance(label, str) or not label.strip()):
        raise UsageError(f"{where}: label must be a text, got {in_short(label)}.")
    where = f"{where} ({name})"
    limits = _limits(plan, where)
    cls = _recipe(name, where) if key == "recipes" else SECTIONS[home]
    own = [f.name for f in fields(cls) if f.name != home]  # a network's name stands under `name`
    others = [part for part in SECTIONS if part != home]
    for item in given:
        if item not in (*own, *others):
            known = [*own, *others, named, "label", *(["against"] if key == "recipes" else [])]
            known += ["plan"] if key in ("data", "recipes") else []
            raise UsageError(f"{where}: there is no setting {in_short(item)}.{nearest(str(item), known)}")
    parts = {part: _part(part, given[part], base, where) for part in others if given.get(part)}
    flat = {item: given[item] for item in own if item in given}
    if key == "recipes":
        parts["recipe"] = {"name": name} | _checked(cls, flat, base, where)
    elif key == "data":
        parts["data"] = _checked(cls, flat, base, where)
    else:
        _check_network(name, where)
        parts[home] = {home: name} | _checked(cls, flat, base, where)
    if key == "data":
        short = Path(name).name or name
        return Entry(_source(name, base, where), label or short, parts, plan=limits)
    return Entry(name, label or name, parts, against, limits)


def _limits(raw: Any, where: str) -> dict[str, float] | None:
    """The limits of a plan as the file gives them, checked."""
    if raw is None:
        return None
    if not isinstance(raw, dict) or None in raw.values():
        raise UsageError(
            f"{where}: plan must hold limits by name, such as {{minutes: 2, max_mb: 10}}, got {in_short(raw)}."
        )
    try:
        read_section(Limits, raw, f"{where}: plan")
    except UsageError as error:
        text = str(error)
        raise UsageError(text if text.startswith(where) else f"{where}: plan: {text}") from None
    return raw


def _check_controls(recipes: list[Entry], where: str) -> None:
    known = [entry.label for entry in recipes]
    for entry in recipes:
        if entry.against and (entry.against not in known or entry.against == entry.label):
            raise UsageError(
                f"{where}: recipes ({entry.label}): against must be the label of another recipe here, got "
                f"{in_short(entry.against)}.{nearest(str(entry.against), known)}"
            )


def _part(part: str, content: Any, base: Path, where: str) -> dict[str, Any]:
    where = f"{where}: {part}"
    if not isinstance(content, dict):
        raise UsageError(f"{where} must hold settings by name, got {in_short(content)}.")
    return _checked(SECTIONS[part], content, base, where)


def _checked(cls: type, values: dict[str, Any], base: Path, where: str) -> dict[str, Any]:
    """The values as given, their paths made whole. Raises UsageError for a name or a value that ``cls`` refuses."""
    try:
        read_section(cls, values, where)
    except UsageError as error:  # a check of the settings' own does not know the file
        text = str(error)
        raise UsageError(text if text.startswith(where) else f"{where}: {text}") from None
    paths = [f.name for f in fields(cls) if "Path" in str(f.type)]
    return {name: _whole(value, base) if name in paths and value else value for name, value in values.items()}


def _recipe(name: str, where: str) -> type[Recipe]:
    known = [recipe.name for recipe in RECIPES]
    if name not in known:
        raise UsageError(
            f"{where}: there is no recipe {in_short(name)}.{nearest(name, known)} Recipes: {', '.join(known)}."
        )
    return recipe_named(name)


def _check_network(name: str, where: str) -> None:
    from stillroom.models.zoo import specification

    try:
        specification(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _source(name: str, base: Path, where: str) -> str:
    from stillroom.data.load import is_named_set
    from stillroom.data.sources.medmnist import medmnist_flags

    if is_named_set(name):
        return name
    path = _whole(name, base)
    if not Path(path).exists():
        hint = nearest(name, [*medmnist_flags(), "phantoms"])
        raise UsageError(f"{where}: there is no folder or file {path}, and no data set called {in_short(name)}.{hint}")
    return path


def _whole(path: Any, base: Path) -> str:
    return os.path.normpath(base / Path(os.path.expandvars(str(path))).expanduser())


def _networks(
    recipe: Entry, lists: dict[str, list[Entry]], common: Parts, data: Entry, where: str
) -> Iterator[tuple[str, str, Parts]]:
    """Label of the teacher, label of the student and the merged settings, for every pair that the recipe runs with."""
    own_teacher = recipe.parts.get("teacher", {}).get("teacher")
    own_student = recipe.parts.get("student", {}).get("student")
    teachers, students = lists["teachers"], lists["students"]
    # What names its own network, or needs none, is not repeated for each of the list.
    for teacher in [Entry("", own_teacher, {})] if own_teacher else teachers:
        for student in [Entry("", own_student, {})] if own_student else students:
            taught = recipe_named(recipe.name).has_teacher
            parts = _merged(common, data.parts, teacher.parts if taught else {}, student.parts, recipe.parts)
            content = dict(parts) | {"source": data.name}
            resolved = from_dict(content, f"{where}: {recipe.label} on {data.label}")
            asked = resolved.recipe.teacher_names(resolved)
            listed = set(asked) == {resolved.teacher.teacher}  # else the recipe has teachers of its own, or none
            label = (teacher.label or resolved.teacher.teacher) if listed else " + ".join(dict.fromkeys(asked))
            if taught and (table := resolved.teacher.teacher_answers):
                label = table.name
            if listed or teacher is teachers[0] or own_teacher:
                yield label, student.label or resolved.student.student, parts


def _merged(*layers: Parts) -> Parts:
    merged: Parts = {"evaluation": {"control": False, "explain": 0}}
    for layer in layers:
        for part, values in layer.items():
            merged[part] = merged.get(part, {}) | values
    return merged


def _cell(
    where: str,
    data: Entry,
    recipe: Entry,
    teacher: str,
    student: str,
    parts: Parts,
    seed: int,
    device: str,
    limits: dict[str, float] | None,
) -> Cell:
    content = dict(parts) | {"source": data.name, "seed": seed, "device": device}
    settings = from_dict(content, f"{where}: {recipe.label} on {data.label}")
    plan = None if limits is None else Limits(**limits)
    names = [Path(data.name).name, recipe.name, *settings.recipe.teacher_names(settings)[:1], settings.student.student]
    of: Any = to_dict(settings)
    if plan:
        teacher, student = (
            name if section in parts.get(section, {}) or not name else PLANNED
            for section, name in (("teacher", teacher), ("student", student))
        )
        names[2:] = [name for name in (teacher, student) if name]
        of = [of, asdict(plan), parts]
    readable = "-".join(re.sub(r"[^\w.]+", "-", name).strip("-.") for name in names)[:_LONGEST_ID]
    return Cell(
        id=f"{readable}-s{seed}-{fingerprint(of)[:8]}",
        data=data.label,
        recipe=recipe.label,
        teacher=teacher,
        student=student,
        settings=settings,
        against=recipe.against,
        plan=plan,
        given=parts,
    )
