"""A table of images: a CSV, TSV or Parquet file with paths, labels, and what else is known of each image."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from stillroom.data.files import FileReader
from stillroom.data.sources.conventions import (
    check_training_classes,
    exclusive_task,
    order_classes,
    parse_split,
    what_to_do,
    whose,
)
from stillroom.data.sources.relabelling import refuse_positive, relabel
from stillroom.data.sources.sheet import Sheet, read_sheet
from stillroom.data.table import SPLITS, Change, Table
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings
from stillroom.task import MultiLabel, Task

_JOINTS = re.compile(r"[;|]")


def read_manifest(path: Path, settings: DataSettings, *, training: bool = True) -> Table:
    """The table of a ``.csv``, ``.tsv`` or ``.parquet`` file, one row per image.

    The settings name the columns, found in any case. Patient, split and mask columns are used where the
    table has them; one that the settings name otherwise than by default must be there.

    - Paths are relative to the table's folder, or absolute. A few missing files are left to the reader,
      which says so of each; when more than half are missing the paths are wrong: an error.
    - Labels are names or numbers (``1.0`` is ``1``). Joined by ``;`` or ``|`` they make the task multi-label,
      where an empty cell means no finding. With ``task`` multiclass or ordinal they are never taken apart.
    - Masks of one image may be joined likewise. An empty cell is no mask, no split, no patient.

    Args:
        path: the file. Ids are the images' POSIX paths relative to its folder.
        settings: columns, ``classes``, ``positive``, ``drop_class``, ``merge`` and ``task`` are used.
        training: see :func:`stillroom.data.load.open_source`.

    Raises:
        UsageError: names the file, the row as a spreadsheet numbers it, and the column.
    """
    sheet = read_sheet(Path(path))
    sheet.required(settings.path_column, "path_column")
    sheet, task, targets, changes = _targets(sheet, settings, training)
    places = sheet.required(settings.path_column, "path_column")
    patients = _optional(sheet, "patient_column", settings)
    split_words = _optional(sheet, "split_column", settings)
    mask_places = _optional(sheet, "mask_column", settings)

    paths = _image_paths(sheet, places, settings.path_column)
    splits = _splits(sheet, split_words, settings.split_column)
    masks = tuple(
        tuple(_resolve(sheet, part.strip()) for part in _JOINTS.split(cell) if part.strip())
        for cell in mask_places or ()
    )
    _require_files(sheet, [mask for row in masks for mask in row], settings.mask_column)
    if training:
        check_training_classes(task, targets, splits, f"The table {sheet.path}")
    return Table(
        name=sheet.path.stem,
        source=f"table {sheet.path.name}",
        task=task,
        ids=np.array([_identity(sheet, path) for path in paths]),
        targets=targets,
        splits=splits,
        rows=np.arange(len(paths)),
        reader=FileReader(paths, masks if any(masks) else ()),
        patients=None if patients is None or not any(patients) else np.array(patients),
        has_masks=any(masks),
        changes=changes,
    )


def _optional(sheet: Sheet, setting: str, settings: DataSettings) -> list[str] | None:
    """A column that may be missing, unless the user named it: a slip would undo patient-safe splits."""
    name = getattr(settings, setting)
    if name != getattr(DataSettings(), setting):
        return sheet.required(name, setting)
    return sheet.column(name)


def _image_paths(sheet: Sheet, places: list[str], column: str) -> tuple[Path, ...]:
    first_at: dict[Path, int] = {}
    for place, number in zip(places, sheet.numbers, strict=True):
        if not place:
            raise UsageError(f"{sheet.path}, row {number}: the column {column!r} is empty.")
        path = _resolve(sheet, place)
        if path in first_at:
            raise UsageError(
                f"{sheet.path}: rows {first_at[path]} and {number} name the same image, {place}; keep one "
                "row per image (several labels of one image go into one cell, joined by ';')."
            )
        first_at[path] = number
    _require_files(sheet, list(first_at), column)
    return tuple(first_at)


def _resolve(sheet: Sheet, place: str) -> Path:
    if os.sep == "/":  # tables written on Windows
        place = place.replace("\\", "/")
    return Path(os.path.abspath(sheet.path.parent / place))  # noqa: PTH100  (resolve() would follow links)


def _identity(sheet: Sheet, path: Path) -> str:
    folder = Path(os.path.abspath(sheet.path.parent))  # noqa: PTH100
    if folder.drive != path.drive:  # on Windows: nothing to be relative to
        return path.as_posix()
    return Path(os.path.relpath(path, folder)).as_posix()


def _require_files(sheet: Sheet, paths: list[Path], column: str) -> None:
    missing = [path for path in paths if not path.is_file()]
    if 2 * len(missing) > len(paths):
        raise UsageError(
            f"{sheet.path}: {len(missing)} of {len(paths)} files in the column {column!r} do not exist, the "
            f"first is {missing[0]}. Relative paths start at the table's folder."
        )


def _targets(
    sheet: Sheet, settings: DataSettings, training: bool
) -> tuple[Sheet, Task, np.ndarray, tuple[Change, ...]]:
    """The rows that are kept, what their labels mean, the targets, and what was done to which class."""
    where = f"The table {sheet.path}"
    labels = _plain_integers(sheet.required(settings.label_column, "label_column"))
    joined = settings.task == "auto" and any(_JOINTS.search(label) for label in labels)
    several = settings.task == "multilabel" or joined
    if several:
        refuse_positive(settings, where)
        parts = [[part.strip() for part in _JOINTS.split(label) if part.strip()] for label in labels]
    else:
        _require_filled(sheet, labels, settings)
        parts = [[label] for label in labels]
    found = relabel(parts, settings, where, training=training)
    sheet = sheet.take(found.kept)
    _require_known(sheet, found.labels, settings, training)
    names = [name for row in found.labels for name in row]
    task: Task
    if several:
        task = MultiLabel(order_classes(names, settings, where, training=training))
    else:
        task = exclusive_task(names, settings, where, training=training)
    return sheet, task, task.parse([";".join(row) for row in found.labels]), found.changes


def _require_filled(sheet: Sheet, labels: list[str], settings: DataSettings) -> None:
    for label, number in zip(labels, sheet.numbers, strict=True):
        if not label:
            raise UsageError(
                f"{sheet.path}, row {number}: the column {settings.label_column!r} is empty; fill it, remove "
                "the row, or set `task` to multilabel if an empty cell means no finding."
            )


def _require_known(sheet: Sheet, labels: list[list[str]], settings: DataSettings, training: bool) -> None:
    """Point at the row of the first label that the settings' classes do not name."""
    for row, number in zip(labels, sheet.numbers, strict=True):
        for name in row:
            if settings.classes and name not in settings.classes:
                raise UsageError(
                    f"{sheet.path}, row {number}, column {settings.label_column!r}: the label {name!r} is "
                    f"not among {whose(training)}: {', '.join(settings.classes)}."
                    f"{what_to_do(name, settings.classes)}"
                )


def _splits(sheet: Sheet, words: list[str] | None, column: str) -> np.ndarray:
    splits = np.full(len(sheet.rows), "", dtype="<U5")
    for i, word in enumerate(words or ()):
        split = parse_split(word) if word else ""
        if split is None:
            raise UsageError(
                f"{sheet.path}, row {sheet.numbers[i]}, column {column!r}: {word!r} is not a split; "
                f"write {', '.join(SPLITS)}, or nothing."
            )
        splits[i] = split
    return splits


def _plain_integers(labels: list[str]) -> list[str]:
    """``1.0`` as ``1`` where all labels are whole numbers: programs write them so when a column has gaps."""
    if all(re.fullmatch(r"-?[0-9]+(\.0+)?", label) for label in labels if label):
        return [label.split(".")[0] for label in labels]
    return labels
