"""Which column of a table holds what, where the user did not say: by a kept list of names, and never without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stillroom.data.sources.column_names import hardly_else, named_like, nearly_like, perhaps_folds, perhaps_patients
from stillroom.data.sources.conventions import split_of_cell
from stillroom.data.sources.dicom_cells import is_uid
from stillroom.data.sources.paths import Finder, ending_hint, is_file
from stillroom.data.sources.patient_cells import like_patients
from stillroom.data.sources.sheet import Sheet
from stillroom.data.spelling import filled, plain_integer
from stillroom.data.table import Finding
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

GROUPS = 10
"""A column that may be patients by its name, such as a study's or a lesion's id, is taken for them from so many values on."""
FEWEST = 3
"""A column whose name is only like that for patients is not taken for them by itself below so many values."""
SPLIT_SHARE = 0.9
"""A column of any name is pointed at as a split where so large a share of its filled cells are words for one."""
NO = "none"
"""What the user gives in the place of a column's name to have none used."""

_Kind = Literal["path", "split", "label", "patient", "mask"]
_OPTIONAL = ("split", "patient", "mask")
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
    kinds: dict[_Kind, Callable[[Sheet, list[str], Finder], _Near]]
    kinds = {"path": _paths, "split": _splits, "label": _labels, "patient": _patients, "mask": _masks}
    chosen = {kind: found or None for kind in kinds if (found := _by_name(sheet, kind, settings)) is not None}
    guessed: list[str] = []
    aside: list[str] = []
    lost: list[str] = []
    for kind, look_at in kinds.items():
        if kind in chosen and not (kind in _MEANING and _by_default(settings, kind)):
            continue  # the user's word needs no remarks
        near = look_at(sheet, [name for name in sheet.columns if name not in chosen.values()], find)
        own = chosen.get(kind)
        if own is not None:
            meant = _MEANING[kind](sheet.cells(own))
            aside += [f"{name!r} ({own!r} is)" for name, other in near.able.items() if other != meant]
            continue
        if near.able:
            name = chosen[kind] = _only(sheet, kind, near.able)
            guessed.append(
                f"{name!r} holds the {kind}" + (f" (--{kind}-column {NO} if not)" if kind in _OPTIONAL else "")
            )
        elif kind in _OPTIONAL:
            chosen[kind] = None
        else:
            sheet.required(getattr(settings, f"{kind}_column"), f"{kind}_column", near.remarks)
        if kind in _OPTIONAL:
            (aside if near.able or kind == "mask" else lost).extend(near.remarks)
    if chosen["patient"] is None and settings.patient_column.casefold() != NO:
        told = " ".join(lost)
        free = [name for name in sheet.columns if name not in chosen.values() and repr(name) not in told]
        for name, seen in like_patients(sheet, free, sheet.cells(str(chosen["label"]))).items():
            lost.append(f"{name!r} ({seen}): --patient-column {_quoted(name)} uses it")
    return Chosen(**chosen, findings=tuple(_findings(guessed, aside, lost)))  # type: ignore[arg-type]


def _by_name(sheet: Sheet, kind: _Kind, settings: DataSettings) -> str | None:
    """The column of the settings' name; ``""`` where none is wanted, None where the default's is not there or is empty."""
    name = getattr(settings, f"{kind}_column")
    found = sheet.find(name)
    if (
        found is not None
        and kind in _OPTIONAL
        and _by_default(settings, kind)
        and not any(map(filled, sheet.cells(found)))
    ):
        return None
    if found is None and not _by_default(settings, kind):
        if kind in _OPTIONAL and name.casefold() == NO:
            return ""
        sheet.required(name, f"{kind}_column")
    return found


def _by_default(settings: DataSettings, kind: _Kind) -> bool:
    return bool(getattr(settings, f"{kind}_column") == getattr(DataSettings(), f"{kind}_column"))


def _only(sheet: Sheet, kind: _Kind, able: Mapping[str, Sequence[object]]) -> str:
    """The one column, or the first of several that mean the same. Raises UsageError where they do not."""
    first, *others = able
    if any(able[name] != able[first] for name in others):
        none = f", or {NO} for none of them" if kind in _OPTIONAL else ""
        raise UsageError(
            f"{sheet.path} has no column {kind!r} but several that may be meant: {', '.join(map(repr, able))}. Say which by "
            f"--{kind}-column {_quoted(first)}{none}."
        )
    return first


def _findings(guessed: list[str], aside: list[str], lost: list[str]) -> list[Finding]:
    found = []
    if lost:
        text = f"Columns that may be patients or a split are not used: {_some(lost)}."
        found.append(Finding("warning", "columns_not_used", text))
    if guessed:
        found.append(Finding("note", "columns_by_name", f"Columns told by their names: {'; '.join(guessed)}."))
    if aside:
        found.append(Finding("note", "columns_passed_over", f"Columns that are not used: {_some(aside)}."))
    return found


def _some(remarks: list[str]) -> str:
    return "; ".join(remarks[:_SHOWN]) + (f"; and {len(remarks) - _SHOWN} more" if len(remarks) > _SHOWN else "")


# -- what may be used, by kind ------------------------------------------------------------------------------------
def _paths(sheet: Sheet, free: list[str], find: Finder) -> _Near:
    able, remarks = {}, []
    for name in named_like(free, "path"):
        paths = [find(cell) for cell in sheet.cells(name) if filled(cell)]
        lost = [path for path in paths if not is_file(path)]
        if 2 * len(lost) < len(paths):
            able[name] = paths
        elif paths:
            such = f"files do not exist, such as {lost[0]}{ending_hint(lost[0])}"
            if all(is_uid(path.name) for path in lost):
                such = f"UIDs are of no DICOM file beside the table, such as {lost[0].name}"
            remarks.append(f"{name!r} would do by its name, but {len(lost)} of its {such}")
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
    named = named_like(free, "split")
    for name in [*named, *(name for name in perhaps_folds(free) if name not in named and _holds_folds(sheet, name))]:
        words = Counter(filter(None, map(filled, sheet.cells(name))))
        known = sum(count for word, count in words.items() if split_of_cell(word))
        if known and 2 * known >= words.total():
            able[name] = _MEANING["split"](sheet.cells(name))
        elif words and hardly_else(name):
            some = ", ".join(sorted(words)[:5]) + (", ..." if len(words) > 5 else "")
            remarks.append(
                f"{name!r} holds {some}: write train, val and test there and give --split-column {_quoted(name)}"
            )
    near = nearly_like(free, "split")
    near += [name for name in free if name not in (*able, *near) and _holds_splits(sheet, name)]
    remarks += [f"{name!r}: --split-column {_quoted(name)} uses it" for name in near]
    return _Near(able, tuple(remarks))


def _patients(sheet: Sheet, free: list[str], _: Finder) -> _Near:
    meant = {name: _ids(sheet.cells(name)) for name in named_like(free, "patient")}
    able = {name: _parts(ids) for name, ids in meant.items() if len({*filter(None, ids)}) >= FEWEST}
    remarks = [_too_few(name, len({*filter(None, meant[name])})) for name in meant if name not in able]
    near = nearly_like(free, "patient")
    near += [name for name in perhaps_patients(free) if name not in near and _repeats(_ids(sheet.cells(name)))]
    remarks += [f"{name!r}: --patient-column {_quoted(name)} uses it" for name in near]
    if able:
        return _Near(able, tuple(remarks))
    for name in named_like(free, "group"):
        ids = _ids(sheet.cells(name))
        counts = Counter(filter(None, ids))
        if not _repeats(ids):
            continue  # one to an image, or two sides of something: no patients
        if len(counts) >= GROUPS:
            able[name] = _parts(ids)
        else:
            remarks.append(f"{name!r}: --patient-column {_quoted(name)} takes its {len(counts)} values for patients")
    return _Near(able, tuple(remarks))


def _too_few(name: str, values: int) -> str:
    if not values:
        return f"{name!r} (empty)"
    return f"{name!r} has {values} value{'s' * (values > 1)} only: --patient-column {_quoted(name)} takes them for patients"


def _repeats(ids: Sequence[str]) -> bool:
    counts = Counter(filter(None, ids))
    return FEWEST <= len(counts) < counts.total()


def _holds_splits(sheet: Sheet, name: str) -> bool:
    """Whether nearly all filled cells are words for a split, of two kinds or more. No column twice in the header."""
    if sheet.columns.count(name) > 1:
        return False
    counts, kinds = Counter(sheet.cells(name)), Counter[str | None]()
    for cell, count in counts.items():
        if filled(cell):
            kinds[split_of_cell(filled(cell))] += count
    known = kinds.total() - kinds[None]
    return sum(map(bool, kinds)) > 1 and known >= SPLIT_SHARE * kinds.total()


def _holds_folds(sheet: Sheet, name: str) -> bool:
    """Whether the cells are a few whole numbers."""
    numbers = set(filter(None, _ids(sheet.cells(name)))) if sheet.columns.count(name) == 1 else set()
    return 1 < len(numbers) <= 20 and all(number.isdigit() for number in numbers)


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
