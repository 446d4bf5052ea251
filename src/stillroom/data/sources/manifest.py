"""A table of images: a CSV, TSV or Parquet file with paths, labels, and what else is known of each image."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stillroom.data.files import FileReader
from stillroom.data.sources.columns import choose_columns
from stillroom.data.sources.conventions import (
    check_training_classes,
    exclusive_task,
    one_spelling,
    order_classes,
    split_of_cell,
    what_to_do,
    whose,
)
from stillroom.data.sources.dicom_cells import Places, is_uid, places_in
from stillroom.data.sources.dicom_rows import frames_of
from stillroom.data.sources.group_columns import group_columns, hint_at_groups
from stillroom.data.sources.labels import read_labels
from stillroom.data.sources.paths import Finder, ending_hint, file_finder
from stillroom.data.sources.relabelling import refuse_positive, relabel
from stillroom.data.sources.sheet import BINARY, Sheet, read_sheet
from stillroom.data.spelling import filled, is_missing, look, plain_integer
from stillroom.data.table import SPLITS, Change, Finding, Table
from stillroom.errors import UsageError
from stillroom.files.walk import told_otherwise
from stillroom.settings.sections import DataSettings
from stillroom.task import MultiLabel, Task

MANY, MANY_TIMES = 10, 5
"""From so many images on, and so many times those of the next, one patient's id is doubted."""

_JOINTS = re.compile(r"[;|]")


def read_manifest(path: Path, settings: DataSettings, *, training: bool = True) -> Table:
    """The table of a ``.csv``, ``.tsv`` or ``.parquet`` file, one row per image.

    The settings name the columns, found in any case; :func:`~stillroom.data.sources.columns.choose_columns` says what is done
    where there are none of these names.

    - Paths are relative to the table's folder, or absolute. A few missing files are left to the reader, which says so of
      each; the findings count them by class. When more than half are missing, or all of a class that is to be learned, it
      is an error.
    - Labels are names or numbers (``1.0`` is ``1``). Joined by ``;`` or ``|`` they make the task multi-label,
      where an empty cell means no finding. With ``task`` multiclass or ordinal they are never taken apart.
    - Masks of one image may be joined likewise. A cell that says nothing, however that is written
      (:data:`~stillroom.data.spelling.MISSING`), is no mask, no split, no patient.

    Args:
        path: the file. Ids are the images' POSIX paths relative to its folder.
        settings: columns, ``groups``, ``classes``, ``positive``, ``drop_class``, ``merge`` and ``task`` are used.
        training: see :func:`stillroom.data.load.open_source`.

    Raises:
        UsageError: names the file, the row as a spreadsheet numbers it, and the column.
    """
    sheet = read_sheet(Path(path))
    places = places_in(sheet.path.parent, file_finder(sheet.path.parent))
    find = places.find
    columns = choose_columns(sheet, settings, find)
    sheet, task, targets, changes, said = _targets(sheet, columns.label, settings, training)
    findings = [*columns.findings, *said]

    files = _image_files(sheet, columns.path, places)
    masks = _masks(sheet, columns.mask, find) if columns.mask else ()
    patients = [plain_integer(filled(cell)) for cell in sheet.cells(columns.patient)] if columns.patient else []
    groups = group_columns(sheet, settings.groups)
    splits, joined = _splits(sheet, columns.split)
    findings += [*joined, *_alike(patients), *_crowded(patients)]
    if not groups:
        used = {columns.path, columns.label, columns.patient, columns.split, columns.mask}
        findings += hint_at_groups(sheet, used)
    for column, named in ((columns.path, files), (columns.mask or "", masks)):
        findings += _missing_files(sheet, column, named, task, targets, training)
    if training:
        check_training_classes(task, targets, splits, f"The table {sheet.path}")
    every = [path for row in files for path in row]
    frames = frames_of(every, settings, training=training)
    rows = np.repeat(np.arange(len(files)), [len(row) for row in files])[frames.of]
    _refuse_masks_of_several(sheet, masks, rows)
    paths = tuple(every[file] for file in frames.of)
    known = np.array(patients)[rows] if any(patients) else frames.patients
    return Table(
        name=sheet.path.stem,
        source=f"table {sheet.path.name}",
        task=task,
        ids=_identities(sheet, paths, frames.ends),
        targets=targets[rows],
        splits=splits[rows],
        rows=np.arange(len(paths)),
        reader=FileReader(
            paths, tuple(masks[row] for row in rows) if any(masks) else (), frames.numbers, frames.display
        ),
        patients=known,
        patient_column=columns.patient or "",
        groups=tuple(replace(one, cells=one.cells[rows]) for one in groups),
        has_masks=any(masks),
        changes=changes,
        findings=(*findings, *frames.findings),
        white=frames.white,
        shown=frames.shown,
        window=frames.window,
    )


# -- files --------------------------------------------------------------------------------------------------------
def _image_files(sheet: Sheet, column: str, named: Places) -> tuple[tuple[Path, ...], ...]:
    """For each row the files that it is about: one, or those of a DICOM series."""
    places = sheet.cells(column)
    empty = [(place, number) for place, number in zip(places, sheet.numbers, strict=True) if is_missing(place)]
    if empty:
        place, number = empty[0]
        said = f"holds {place!r}, which names no file" if place else "is empty"
        count = f", as in {len(empty) - 1:,} more of {len(places):,} rows" if len(empty) > 1 else ""
        raise UsageError(f"{sheet.path}, row {number}: the column {column!r} {said}{count}.")
    if BINARY in places:
        number = sheet.numbers[places.index(BINARY)]
        raise UsageError(
            f"{sheet.path}, row {number}: the column {column!r} holds binary data, where paths are text in UTF-8; save the "
            "images as files and their paths as text."
        )
    first_at: dict[Path, int] = {}
    files = tuple(named.all(place) for place in places)
    for found, place, number in zip(files, places, sheet.numbers, strict=True):
        for path in found:
            if path in first_at:
                raise UsageError(
                    f"{sheet.path}: rows {first_at[path]} and {number} name the same image, {place}; keep one "
                    "row per image (several labels of one image go into one cell, joined by ';')."
                )
            first_at[path] = number
    return files


def _identities(sheet: Sheet, paths: Sequence[Path], ends: Sequence[str]) -> np.ndarray:
    folder = Path(os.path.abspath(sheet.path.parent))  # noqa: PTH100  (resolve() would follow links)
    ids = []
    for path, end in zip(paths, ends, strict=True):
        if folder.drive != path.drive:  # on Windows: nothing to be relative to
            ids.append(path.as_posix() + end)
        else:
            ids.append(os.path.relpath(path, folder).replace(os.sep, "/") + end)
    return np.array(ids)


def _masks(sheet: Sheet, column: str, find: Finder) -> tuple[tuple[Path, ...], ...]:
    cells = ["" if is_missing(cell) else cell for cell in sheet.cells(column)]
    return tuple(tuple(find(part.strip()) for part in _JOINTS.split(cell) if part.strip()) for cell in cells)


def _refuse_masks_of_several(sheet: Sheet, masks: Sequence[Sequence[Path]], rows: np.ndarray) -> None:
    """A mask is of one image: of a series or of several frames nothing says of which."""
    images = np.bincount(rows, minlength=len(sheet.rows))
    for row, number in enumerate(sheet.numbers):
        if masks and masks[row] and images[row] > 1:
            raise UsageError(
                f"{sheet.path}, row {number}: its mask is of one image, but the row names {images[row]:,}: give each image "
                "a row, or the row no mask."
            )


def _missing_files(
    sheet: Sheet, column: str, files: Sequence[Sequence[Path]], task: Task, targets: np.ndarray, training: bool
) -> list[Finding]:
    """How many images are lost because a file of theirs does not exist, by class.

    Raises:
        UsageError: more than half of the files, or all images of a class that is to be learned.
    """
    # What is there but no file, such as a folder, is left to the reader, which says of each what it is.
    lost = [[path for path in row if not os.path.exists(path)] for row in files]  # noqa: PTH110  (names no file can have)
    missing = [path for row in lost for path in row]
    if not missing:
        return []
    labels, rows = task.one_hot(targets).astype(np.int64), np.array(list(map(bool, lost)))
    gone, of = labels[rows].sum(axis=0).tolist(), labels.sum(axis=0).tolist()
    count, first = sum(map(len, files)), f"{missing[0]}{ending_hint(missing[0])}"
    if (told := told_otherwise()) and not str(missing[0]).isascii():
        first += f" ({told})"
    text = f"{len(missing):,} of {count:,} files in the column {column!r} do not exist"
    if all(map(is_uid, (path.name for path in missing))):
        first, text = (
            missing[0].name,
            f"{len(missing):,} UIDs in the column {column!r} are of no DICOM file in {sheet.path.parent}",
        )
    whole = [repr(name) for name, some, every in zip(task.classes, gone, of, strict=True) if some and some == every]
    if 2 * len(missing) > count or (whole and training):
        among = f", among them every image of {', '.join(whole)}" if whole else ""
        raise UsageError(
            f"{sheet.path}: {text}{among}; the first is {first}. Relative paths start at the table's folder."
        )
    by_class = ", ".join(f"{name} {some:,}" for name, some in zip(task.classes, gone, strict=True) if some)
    text += f", so that images are left out ({by_class or 'none with a label'}); the first is {first}."
    return [Finding("warning", "files_missing", text)]


# -- labels and splits --------------------------------------------------------------------------------------------
def _targets(
    sheet: Sheet, column: str, settings: DataSettings, training: bool
) -> tuple[Sheet, Task, np.ndarray, tuple[Change, ...], tuple[Finding, ...]]:
    """The rows that are kept, what their labels mean, the targets, what was done to which class, and what is to be said."""
    where = f"The table {sheet.path}"
    read = read_labels(sheet, column, settings)
    if read.several:
        refuse_positive(settings, where)
    parts, spelled = one_spelling(read.labels, settings)
    found = relabel(parts, settings, where, training=training)
    sheet = sheet.take(found.kept)
    _require_known(sheet, column, found.labels, settings, training)
    names = [name for row in found.labels for name in row]
    task: Task
    if read.several:
        task = MultiLabel(order_classes(names, settings, where, training=training))
    else:
        task = exclusive_task(names, settings, where, training=training)
    targets = task.parse([";".join(row) for row in found.labels])
    return sheet, task, targets, found.changes, (*read.findings, *spelled)


def _require_known(sheet: Sheet, column: str, labels: list[list[str]], settings: DataSettings, training: bool) -> None:
    """Point at the row of the first label that the settings' classes do not name."""
    for row, number in zip(labels, sheet.numbers, strict=True):
        for name in row:
            if settings.classes and name not in settings.classes:
                raise UsageError(
                    f"{sheet.path}, row {number}, column {column!r}: the label {name!r} is "
                    f"not among {whose(training)}: {', '.join(settings.classes)}."
                    f"{what_to_do(name, settings.classes)}"
                )


def _splits(sheet: Sheet, column: str | None) -> tuple[np.ndarray, list[Finding]]:
    """``[N]`` the splits, and which words were taken for one."""
    cells = [""] * len(sheet.rows) if column is None else [filled(cell) for cell in sheet.cells(column)]
    splits = [split_of_cell(cell) if cell else "" for cell in cells]
    unknown = Counter(cell for cell, split in zip(cells, splits, strict=True) if split is None)
    if unknown:
        at = splits.index(None)
        others = f" (of {len(cells):,} rows: {_counts(unknown)})" if unknown.total() > 1 else ""
        raise UsageError(
            f"{sheet.path}, row {sheet.numbers[at]}, column {column!r}: {cells[at]!r} is not a split{others}; write "
            f"{', '.join(SPLITS)}, or nothing, or have the column not used by --split-column none."
        )
    words: dict[str | None, Counter[str]] = {}
    for cell, split in zip(cells, splits, strict=True):
        words.setdefault(split, Counter())[cell.casefold()] += 1
    several = [f"{_counts(counts)} as {split}" for split, counts in words.items() if len(counts) > 1]
    text = f"Words of the column {column!r} that mean one split: {'; '.join(several)}."
    return np.array(splits, dtype="<U5"), [Finding("note", "split_words_joined", text)] if several else []


def _alike(patients: list[str]) -> list[Finding]:
    """A warning of patients who may be one, written in two ways."""
    first: dict[str, str] = {}
    plain = {one: re.sub(r"(?<![0-9.])0+(?=[0-9])", "", look(one)) for one in dict.fromkeys(patients)}
    twins = [(before, one) for one, key in plain.items() if (before := first.setdefault(key, one)) != one]
    if not twins:
        return []
    more = f", and {len(twins) - 1:,} pairs more" if len(twins) > 1 else ""
    text = (
        "Patient ids that differ only in case or leading zeros, or look alike, count as different patients: "
        f"{twins[0][0]!r} and {twins[0][1]!r}{more}. Write them alike where they are one."
    )
    return [Finding("warning", "patients_look_alike", text)]


def _crowded(patients: list[str]) -> list[Finding]:
    """A warning of an id that may say that the patient is not known, by the many images it has."""
    counts = Counter(filter(None, patients)).most_common(2)
    if len(counts) < 2 or counts[0][1] < max(MANY, MANY_TIMES * counts[1][1]):
        return []
    (name, images), (_, next_most) = counts
    text = (
        f"The patient {name!r} has {images:,} images, and no other more than {next_most:,}. If it says that the patient is "
        "not known, leave these cells empty: they count as one patient now."
    )
    return [Finding("warning", "patient_perhaps_missing", text)]


def _counts(words: Counter[str]) -> str:
    shown = ", ".join(f"{word!r} {count:,}" for word, count in words.most_common(8))
    return shown + (", ..." if len(words) > 8 else "")
