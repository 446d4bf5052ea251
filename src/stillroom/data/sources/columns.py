"""Which column of a table holds what, where the user did not say: by a kept list of names, and never without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stillroom.data.sources.column_names import hardly_else, named_like, nearly_like
from stillroom.data.sources.conventions import split_of_cell
from stillroom.data.sources.paths import Finder, is_file
from stillroom.data.sources.sheet import Sheet
from stillroom.data.spelling import filled, plain_integer
from stillroom.data.table import Finding
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

GROUPS = 10
"""A column that may be patients by its name, such as a study's or a lesion's id, is taken for them from so many values on."""
NO = "none"
"""What the user gives in the place of a column's name to have none used."""

_Kind = Literal["path", "split", "label", "patient", "mask"]
_SHOWN = 6


@dataclass(frozen=True)
class Chosen:
    """The columns in use, as the header writes them; None where there is none of a kind. ``findings`` tell of the choice."""

    path: str
    label: str
    patient: str | None
    split: str | None
    mask: str | None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Near:
    """Of the columns named nearly right, those that may be used with what their cells mean, and remarks on others."""

    able: Mapping[str, Sequence[object]]
    remarks: tuple[str, ...] = ()


def choose_columns(sheet: Sheet, settings: DataSettings, find: Finder) -> Chosen:
    """The columns that hold path, split, label, patient and mask.

    What the settings name must be there; ``none`` in the place of a patient, split or mask column has none used. Then come
    the names by default, and then those of :mod:`~stillroom.data.sources.column_names`, where just one column has such a name
    and cells that match it: files that exist, words for splits, ids. Each choice of that kind is told, and so are columns
    that look like one and were passed over.

    Raises:
        UsageError: a column is missing, or several may be meant: names them and the flag.
    """
    chosen: dict[_Kind, str | None] = {}
    guessed: list[str] = []
    remarks: list[str] = []
    kinds: dict[_Kind, Callable[[Sheet, list[str], Finder], _Near]]
    kinds = {"path": _paths, "split": _splits, "label": _labels, "patient": _patients, "mask": _masks}
    for kind in kinds:
        if (said := _by_name(sheet, kind, settings)) is not None:
            chosen[kind] = said or None
    for kind, look_at in kinds.items():
        if kind in chosen and getattr(settings, f"{kind}_column") != getattr(DataSettings(), f"{kind}_column"):
            continue
        free = [name for name in sheet.columns if name not in chosen.values()]
        near = look_at(sheet, free, find)
        own = chosen.get(kind)
        if own is not None:
            if kind in ("patient", "split"):
                means = _MEANING[kind](sheet.cells(own))
                remarks += [f"{name!r} ({own!r} is)" for name, other in near.able.items() if other != means]
            continue
        remarks += near.remarks
        if not near.able:
            if kind in ("path", "label"):
                sheet.required(getattr(settings, f"{kind}_column"), f"{kind}_column", near.remarks)
            chosen[kind] = None
            continue
        name = _only(sheet, kind, near.able)
        chosen[kind] = name
        optional = f" (--{kind}-column {NO} if it is not)" if kind in ("patient", "split", "mask") else ""
        guessed.append(f"{name!r} holds the {kind}{optional}")
    return Chosen(**chosen, findings=tuple(_findings(guessed, remarks)))  # type: ignore[arg-type]


def _by_name(sheet: Sheet, kind: _Kind, settings: DataSettings) -> str | None:
    """The column of the settings' name; ``""`` where none is wanted, None where the name is the default and not there."""
    setting = f"{kind}_column"
    name, default = getattr(settings, setting), getattr(DataSettings(), setting)
    found = sheet.find(name)
    if found is None and name != default:
        if kind in ("patient", "split", "mask") and name.casefold() == NO:
            return ""
        sheet.required(name, setting)
    return found


def _only(sheet: Sheet, kind: _Kind, able: Mapping[str, Sequence[object]]) -> str:
    """The one column, or the first of several that mean the same. Raises UsageError where they do not."""
    first, *others = able
    if any(able[name] != able[first] for name in others):
        none = f", or {NO} for none of them" if kind in ("patient", "split", "mask") else ""
        raise UsageError(
            f"{sheet.path} has no column {kind!r} but several that may be meant: {', '.join(map(repr, able))}. Say which by "
            f"--{kind}-column {_quoted(first)}{none}."
        )
    return first


def _findings(guessed: list[str], remarks: list[str]) -> list[Finding]:
    found = []
    if guessed:
        found.append(Finding("note", "columns_by_name", f"Columns told by their names: {'; '.join(guessed)}."))
    if remarks:
        shown = "; ".join(remarks[:_SHOWN]) + (f"; and {len(remarks) - _SHOWN} more" if len(remarks) > _SHOWN else "")
        found.append(Finding("note", "columns_not_used", f"Columns that are not used: {shown}."))
    return found


# -- what may be used, by kind ------------------------------------------------------------------------------------
def _paths(sheet: Sheet, free: list[str], find: Finder) -> _Near:
    able, remarks = {}, []
    for name in named_like(free, "path"):
        paths = [find(cell) for cell in sheet.cells(name) if filled(cell)]
        lost = [path for path in paths if not is_file(path)]
        if 2 * len(lost) < len(paths):
            able[name] = paths
        elif paths:
            remarks.append(
                f"{name!r} would do by its name, but {len(lost)} of its files do not exist, such as {lost[0]}"
            )
    return _Near(able, tuple(remarks))


def _masks(sheet: Sheet, free: list[str], find: Finder) -> _Near:
    able = {}
    for name in named_like(free, "mask"):
        masks = [cell.split(";")[0] for cell in sheet.cells(name) if filled(cell)]
        if 2 * sum(is_file(find(mask)) for mask in masks) > len(masks):
            able[name] = sheet.cells(name)
    remarks = [f"{name!r} (no masks that exist)" for name in named_like(free, "mask") if name not in able]
    return _Near(able, tuple(remarks))


def _labels(sheet: Sheet, free: list[str], _: Finder) -> _Near:
    able, remarks = {}, []
    for name in named_like(free, "label"):
        cells = [filled(cell) for cell in sheet.cells(name)]
        kinds = len(set(cells))
        if kinds > 20 and 2 * kinds > len(cells):
            remarks.append(f"{name!r} would do by its name, but holds {kinds} different texts in {len(cells)} rows")
        else:
            able[name] = cells
    return _Near(able, tuple(remarks))


def _splits(sheet: Sheet, free: list[str], _: Finder) -> _Near:
    able, remarks = {}, []
    for name in named_like(free, "split"):
        words = Counter(filter(None, map(filled, sheet.cells(name))))
        known = sum(count for word, count in words.items() if split_of_cell(word))
        if known and 2 * known >= words.total():
            able[name] = _MEANING["split"](sheet.cells(name))
        elif words and hardly_else(name):
            some = ", ".join(sorted(words)[:5]) + (", ..." if len(words) > 5 else "")
            remarks.append(
                f"{name!r} holds {some}: write train, val and test there and give --split-column {_quoted(name)}"
            )
    remarks += [f"{name!r}: --split-column {_quoted(name)} uses it" for name in nearly_like(free, "split")]
    return _Near(able, tuple(remarks))


def _patients(sheet: Sheet, free: list[str], _: Finder) -> _Near:
    meant = {name: _ids(sheet.cells(name)) for name in named_like(free, "patient")}
    able = {name: _parts(ids) for name, ids in meant.items() if any(ids)}
    remarks = [f"{name!r} (empty)" for name in meant if name not in able]
    remarks += [f"{name!r}: --patient-column {_quoted(name)} uses it" for name in nearly_like(free, "patient")]
    if able:
        return _Near(able, tuple(remarks))
    for name in named_like(free, "group"):
        ids = _ids(sheet.cells(name))
        counts = Counter(filter(None, ids))
        if counts.total() == len(counts) or len(counts) < 3:
            continue  # one to an image, or two sides of something: no patients
        if len(counts) >= GROUPS:
            able[name] = _parts(ids)
        else:
            remarks.append(f"{name!r}: --patient-column {_quoted(name)} takes its {len(counts)} values for patients")
    return _Near(able, tuple(remarks))


def _ids(cells: Sequence[str]) -> list[str]:
    return [plain_integer(filled(cell)) for cell in cells]


def _parts(ids: Sequence[str]) -> list[int]:
    """Ids by the order in which they come: equal for two columns that part the rows in the same way."""
    number: dict[str, int] = {}
    return [number.setdefault(one, len(number)) for one in ids]


_MEANING: dict[str, Callable[[Sequence[str]], Sequence[object]]] = {
    "patient": lambda cells: _parts(_ids(cells)),
    "split": lambda cells: [split_of_cell(filled(cell)) for cell in cells],
}


def _quoted(name: str) -> str:
    """A column's name as a shell takes it."""
    return name if name.replace("_", "").replace("-", "").isalnum() else f"'{name}'"
