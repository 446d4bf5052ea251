"""The cells of a table's label column: which hold labels, and which say that there is none."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from stillroom.data.sources.sheet import Sheet
from stillroom.data.spelling import EMPTY, PERHAPS_A_CLASS, is_missing, plain_integer, tidy
from stillroom.data.table import Finding
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

_JOINTS = re.compile(r"[;|]")


@dataclass(frozen=True)
class Labels:
    """Labels as a column gives them.

    Attributes:
        labels: of every row; one each, but where there may be several.
        several: whether an image may have any number of labels.
        findings: what is to be said of rows without a label.
    """

    labels: list[list[str]]
    several: bool
    findings: tuple[Finding, ...]


def read_labels(sheet: Sheet, column: str, settings: DataSettings) -> Labels:
    """The labels of every row.

    A cell that says nothing (:data:`~stillroom.data.spelling.MISSING`) is no class: with one label an image it is refused,
    with several an empty one, as programs write it, means no finding and the rest is refused. Two exceptions keep an honest
    class of such a name: what the settings name is a class, and so are words such as ``none`` and ``unknown``
    (:data:`~stillroom.data.spelling.PERHAPS_A_CLASS`), with a warning; but ``none`` with several labels an image is none.

    Raises:
        UsageError: rows have no label: says how many and which is first.
    """
    cells = _plain_integers(sheet.cells(column))
    wanted = (*settings.classes, settings.positive, *settings.drop_class, *settings.merges, *settings.merges.values())
    classes = {tidy(name) for name in wanted if name}
    joined = settings.task == "auto" and any(_JOINTS.search(cell) for cell in cells)
    several = settings.task == "multilabel" or joined
    labels, none, doubtful = [], Counter[str](), Counter[str]()
    without: dict[int, str] = {}
    for place, cell in enumerate(cells):
        parts = [part.strip() for part in _JOINTS.split(cell) if part.strip()] if several else [cell]
        if several and cell.lower() in EMPTY and tidy(cell) not in classes:
            none[cell] += 1
            parts = []
        for part in parts:
            if tidy(part) in classes:
                continue
            if tidy(part).lower() in PERHAPS_A_CLASS:
                doubtful[part] += 1
            elif is_missing(part):
                without.setdefault(place, part)
        labels.append(parts)
    if without:
        raise UsageError(_no_label(sheet, column, without, several))
    found = []
    if none:
        text = (
            f"{none.total():,} of {len(cells):,} images have no label and count as without a finding ({_counts(none)})."
        )
        found.append(Finding("note", "images_without_label", text))
    for name, images in doubtful.items():
        text = (
            f"The label {name!r} ({images:,} of {len(cells):,} images) is taken for a class of its own. If it says that the "
            f"label is missing, leave these images out by --drop-class {name}; if it is meant, name it among --classes."
        )
        found.append(Finding("warning", "label_perhaps_missing", text))
    return Labels(labels, several, tuple(found))


def _no_label(sheet: Sheet, column: str, without: dict[int, str], several: bool) -> str:
    place, word = next(iter(without.items()))
    words = Counter(without.values())
    said = f"holds {word!r}, which is no label" if word else "is empty"
    count = (
        f" ({len(without):,} of {len(sheet.rows):,} rows have no label: {_counts(words)})" if len(without) > 1 else ""
    )
    ways = ["fill it", "remove the row"]
    if word:
        ways.append(f"leave such rows out by --drop-class {word!r}")
        ways.append("name it among --classes if it is a class")
    if several:
        ways.append("leave it empty if it means no finding")
    else:
        ways.append("set `task` to multilabel if an empty cell means no finding")
    todo = f"{', '.join(ways[:-1])}, or {ways[-1]}"
    return f"{sheet.path}, row {sheet.numbers[place]}: the column {column!r} {said}{count}; {todo}."


def _counts(words: Counter[str]) -> str:
    return ", ".join(f"{repr(word) if word else 'empty'} {count:,}" for word, count in words.most_common(8))


def _plain_integers(labels: list[str]) -> list[str]:
    """``1.0`` as ``1`` where all labels are whole numbers: programs write them so when a column has gaps."""
    if all(re.fullmatch(r"-?[0-9]+(\.0+)?", label) for label in labels if not is_missing(label)):
        return [plain_integer(label) for label in labels]
    return labels
