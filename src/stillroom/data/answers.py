"""A table of answers: what a teacher that cannot be run, or several human readers, said of images. See docs/how-to.md."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from stillroom.data.answer_columns import ENDINGS, Columns, read_arrays, read_columns, require_finite
from stillroom.data.spelling import EMPTY, is_missing, plain_integer, tidy
from stillroom.errors import UsageError, nearest
from stillroom.files.walk import why_no_file
from stillroom.settings.sections import AnswersKind
from stillroom.task import Task

Naming = Literal["path", "id", "digest"]
NAMINGS: tuple[Naming, ...] = ("path", "id", "digest")
"""Columns that name an image, the first that is there."""

_VOTE, _LABEL, _READER, _EMBEDDING = "vote", "label", "reader", "embedding"
_ROUNDING = 0.01
"""By how much the probabilities of a row may miss 1: files are rounded."""
_FLAG = "Say by --answers-kind what they are: probabilities, logits, votes or embedding."


@dataclass(frozen=True)
class Answers:
    """What a file says, a row an image and reader.

    Attributes:
        path: the file.
        digest: of its content, 64 hex digits.
        kind: what ``values`` are. ``votes`` are 0 and 1, by reader; counted votes are ``probabilities``.
        naming: what ``names`` are.
        names: ``[n]`` the image of each row.
        digests: ``[n]`` of the images' pixels, where the file has a column of that name beside ``names``; else empty.
        values: ``[n, K]`` float64 in the order of the task's classes, or ``[n, D]`` of an embedding.
        readers: ``[n]`` who said so; empty where the file does not say.
        numbers: ``[n]`` of the file's rows, as a spreadsheet counts them.
        passed_over: columns that were not read.
        read_as: columns whose names are only like what they were read as, each with that.
    """

    path: Path
    digest: str
    kind: AnswersKind
    naming: Naming
    names: tuple[str, ...]
    digests: tuple[str, ...]
    values: np.ndarray
    readers: tuple[str, ...]
    numbers: tuple[int, ...]
    passed_over: tuple[str, ...] = ()
    read_as: tuple[tuple[str, str], ...] = ()


def digest_of(path: Path) -> str:
    """Of a file's content, 64 hex digits. Raises UsageError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"teacher_answers: {path} cannot be read: {error.strerror}.") from None


def read_answers(path: Path, task: Task, *, kind: AnswersKind | None = None, of: str = "") -> Answers:
    """Read a table of answers.

    Args:
        path: a .csv, .tsv, .parquet or .npz file. Its columns are one of :data:`NAMINGS`, perhaps ``reader`` (or one column
            of a name like theirs, see :mod:`~stillroom.data.sources.column_names`), and either the task's classes, ``vote``
            (or ``label`` beside ``reader``), or an embedding: ``0`` to ``D-1``, ``e0`` to ``e<D-1>`` or lists in
            ``embedding``. An .npz file holds arrays of these names, of which ``probabilities``, ``logits`` or ``votes`` is
            ``[N, K]`` or ``[N, R, K]`` in the order of ``classes [K]``; ``readers [R]`` names R; a block of NaN is a reader
            who did not answer.
        task: its classes.
        kind: what the numbers are. Default: read off the values, where these leave no doubt.
        of: whose columns are read, where the file has some for several networks, each as ``NAME:CLASS``.

    Raises:
        UsageError: the file cannot be read, its classes have other names, a cell is no number or no class, or what its
            numbers are is not clear; names the file, the row and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"teacher_answers: {path} {why_no_file(path)}.")
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"teacher_answers: {path} is of another kind: give one of {', '.join(ENDINGS)}.")
    arrays = path.suffix.lower() == ".npz"
    if arrays and of:
        raise UsageError(f"{path} holds arrays, which are not named by network: leave out --answers-of.")
    found = _of_arrays(path, task, kind) if arrays else _of_columns(path, task, kind, of)
    return replace(found, digest=digest_of(path))


# -- columns ------------------------------------------------------------------------------------------------------
def _of_columns(path: Path, task: Task, kind: AnswersKind | None, of: str) -> Answers:
    columns = read_columns(path)
    classes = _class_columns(columns, task, of)
    naming = columns.named(*NAMINGS) or columns.near("path", but=classes)
    if naming is None:
        raise UsageError(
            f"{path} has no column that names the image: path, id or digest. Its columns are "
            f"{_some(list(columns.cells))}."
        )
    reader = columns.named(_READER) or columns.near("reader", but=classes)
    digest = columns.named("digest")
    vote = columns.named(_VOTE) or (columns.named(_LABEL) if reader else None)
    if not classes and not vote:
        vote = columns.near("vote", but=()) or (columns.near("label", but=()) if reader else None)
    embedding = _embedding_columns(columns)
    if classes and vote and kind is None and columns.named(_VOTE):
        raise UsageError(f"{path} has columns of the classes and a column {vote!r} as well: leave one of them out.")
    if classes and embedding and kind is None and set(classes) != set(embedding):
        raise UsageError(f"{path}: its numbered columns may be classes or an embedding. {_FLAG}")
    used: tuple[str, ...]
    if kind == "embedding" or (kind is None and embedding and not classes):
        if not embedding:
            raise UsageError(f"{path} has no embedding: columns 0, 1, 2..., e0, e1, e2..., or lists in {_EMBEDDING!r}.")
        used, kind = embedding, "embedding"
        values = columns.vectors(_EMBEDDING) if used == (_EMBEDDING,) else columns.values(used)
    elif classes and not (kind == "votes" and vote):
        used, values = classes, columns.values(classes)
        sure = not embedding  # else numbers that are no probabilities may be either
        kind, values = _understood(values, task, kind, _Place(path, columns.numbers, used), sure=sure)
    elif vote and kind in (None, "votes"):
        used, kind, values = (vote,), "votes", _votes(columns, vote, task)
    else:
        raise UsageError(_no_classes(columns, task, of, kind))
    known = {naming, reader, digest, *used}
    roles = (("path", naming), ("reader", reader), (_VOTE, vote if vote in used else None))
    own = (*NAMINGS, _READER, _VOTE, _LABEL)
    return Answers(
        path,
        "",
        kind,
        next((known for known in NAMINGS if known == naming.casefold()), "path"),
        tuple(columns.texts(naming)),
        tuple(columns.texts(digest)) if digest and digest != naming else (),
        values,
        tuple(plain_integer(tidy(text)) for text in columns.texts(reader)) if reader else (),
        tuple(columns.numbers),
        tuple(name for name in columns.cells if name not in known),
        tuple((name, role) for role, name in roles if name and name.casefold() not in own),
    )


def _class_columns(columns: Columns, task: Task, of: str) -> tuple[str, ...]:
    """The classes' columns in the task's order; empty where the file has none."""
    classes = tuple(map(tidy, task.classes))  # as the columns are
    whose = dict.fromkeys(name.partition(":")[0] for name in columns.cells if ":" in name)
    able = [one for one in whose if all(f"{one}:{name}" in columns.cells for name in classes)]
    if of:
        if of not in able:
            raise UsageError(
                f"{columns.path} has no columns {of}:{task.classes[0]} and so on for every class. "
                f"{'It has answers of ' + ', '.join(able) + '.' if able else 'Leave out --answers-of.'}"
            )
        return tuple(f"{of}:{name}" for name in classes)
    if all(name in columns.cells for name in classes):
        return classes
    if len(able) > 1:
        raise UsageError(f"{columns.path} holds the answers of {', '.join(able)}: say whose by --answers-of {able[0]}.")
    return tuple(f"{one}:{name}" for one in able for name in classes)


def _embedding_columns(columns: Columns) -> tuple[str, ...]:
    if _EMBEDDING in columns.cells:
        return (_EMBEDDING,)
    for prefix in ("", "e"):
        count = sum(re.fullmatch(rf"{prefix}[0-9]+", name) is not None for name in columns.cells)
        names = tuple(f"{prefix}{place}" for place in range(count))
        if count and all(name in columns.cells for name in names):
            return names
    return ()


def _votes(columns: Columns, name: str, task: Task) -> np.ndarray:
    """``[n, K]`` of 0 and 1."""
    own = {tidy(known): known for known in task.classes}
    cells = [str(cell).strip() if cell is not None and cell == cell else "" for cell in columns.cells[name]]
    if all(re.fullmatch(r"-?[0-9]+(\.0+)?", cell) for cell in cells if not is_missing(cell)):
        cells = [plain_integer(cell) for cell in cells]
    rows = []
    for cell, number in zip(cells, columns.numbers, strict=True):
        parts = [cell] if task.exclusive else [part for part in re.split("[;|]", cell) if part.strip()]
        if not task.exclusive and cell.lower() in EMPTY and tidy(cell) not in own:
            parts = []
        parts = [tidy(part) for part in parts]
        for part in parts:
            if part not in own:
                said = f"{part!r} is none of the classes {', '.join(task.classes)}" if part else "the cell is empty"
                raise UsageError(
                    f"{columns.path}, row {number}, column {name!r}: {said}.{nearest(part, task.classes)}"
                    + (" Leave the row out where a reader did not answer." if is_missing(part) else "")
                )
        rows.append(";".join(own[part] for part in parts))
    return task.one_hot(task.parse(rows)).astype(np.float64)


def _no_classes(columns: Columns, task: Task, of: str, kind: AnswersKind | None) -> str:
    """Why no answers were found."""
    names = [name for name in columns.cells if name.casefold() not in (*NAMINGS, _READER)]
    lacking = [name for name in task.classes if f"{of}:{name}" not in columns.cells and name not in columns.cells]
    text = (
        f"{columns.path} lacks columns of the classes {_some(lacking)}: the classes are {', '.join(task.classes)}, the "
    )
    text += f"file's other columns {_some(names) or 'none'}."
    if kind == "votes":
        text += f" Votes stand in a column {_VOTE!r}, or in one of each class as counts."
    if kind is None and columns.named(_LABEL):
        text += f" If {_LABEL!r} is what readers said, call it {_VOTE!r}, or name each reader in a column {_READER!r}."
    return text + (nearest(lacking[0], names) if lacking else "")


# -- arrays -------------------------------------------------------------------------------------------------------
def _of_arrays(path: Path, task: Task, kind: AnswersKind | None) -> Answers:
    arrays = read_arrays(path)
    naming = next((name for name in NAMINGS if name in arrays), None)
    if naming is None:
        raise UsageError(f"{path} has no array path, id or digest that names the images; it has {_some(list(arrays))}.")
    kinds: tuple[AnswersKind, ...] = ("probabilities", "logits", "votes", "embedding")
    there: list[AnswersKind] = [name for name in kinds if name in arrays]
    if kind is None and len(there) > 1:
        raise UsageError(f"{path} holds {' and '.join(there)}. {_FLAG}")
    if not there or (kind and kind not in there):
        raise UsageError(
            f"{path} holds no {kind or 'answers: an array probabilities, logits, votes or embedding'}; it has "
            f"{_some(list(arrays))}."
        )
    kind = kind or there[0]
    names, values = [str(name) for name in arrays[naming].tolist()], arrays[kind]
    if values.dtype.kind not in "fiub":
        raise UsageError(f"{path}: {kind} must hold numbers, not {values.dtype}.")
    if arrays[naming].ndim != 1 or values.ndim not in ((2,) if kind == "embedding" else (2, 3)) or not len(names):
        raise UsageError(f"{path}: {naming} must be [N] and {kind} [N, K], N at least 1; got {values.shape}.")
    if len(values) != len(names):
        raise UsageError(f"{path}: {kind} has {len(values)} rows, {naming} {len(names)}.")
    if "digest" in arrays and arrays["digest"].shape != arrays[naming].shape:
        raise UsageError(f"{path}: digest has {len(arrays['digest'])} rows, {naming} {len(names)}.")
    digests = tuple(map(str, arrays["digest"].tolist())) if "digest" in arrays and naming != "digest" else ()
    values, numbers, readers = values.astype(np.float64), list(range(len(names))), []
    if values.ndim == 3:
        said = [str(one) for one in arrays["readers"].tolist()] if "readers" in arrays else None
        said = said or [str(number + 1) for number in range(values.shape[1])]
        if len(set(said)) != len(said) or len(said) != values.shape[1]:
            raise UsageError(f"{path}: readers must name each of the {values.shape[1]} readers of {kind} once.")
        kept = ~np.isnan(values).all(axis=2)
        place, number = np.nonzero(kept)
        names, digests = [names[i] for i in place], tuple(digests[i] for i in place) if digests else ()
        numbers, readers, values = place.tolist(), [said[i] for i in number], values[kept]
        if not len(values):
            raise UsageError(f"{path}: {kind} holds no answer.")
    if kind != "embedding":
        values = _in_order(path, arrays, values, task)
    labels = [f"{kind}[{name}]" for name in task.classes] if kind != "embedding" else None
    require_finite(values, path, numbers, labels or [f"{kind}[{place}]" for place in range(values.shape[1])])
    if kind != "embedding":
        kind, values = _understood(values, task, kind, _Place(path, numbers, task.classes))
    known = {naming, "digest", kind, "readers", "classes"}
    other = tuple(name for name in arrays if name not in known)
    if kind != "embedding":
        other += tuple(str(name) for name in arrays["classes"].tolist() if str(name) not in task.classes)
    return Answers(path, "", kind, naming, tuple(names), digests, values, tuple(readers), tuple(numbers), other)


def _in_order(path: Path, arrays: dict[str, np.ndarray], values: np.ndarray, task: Task) -> np.ndarray:
    """``[n, K]`` with the columns in the order of the task's classes."""
    if "classes" not in arrays:
        raise UsageError(f"{path} has no array classes, which says what the columns of its answers are.")
    classes = [str(name) for name in arrays["classes"].tolist()]
    if len(classes) != values.shape[1] or len(set(classes)) != len(classes):
        raise UsageError(f"{path}: classes must name each of the {values.shape[1]} columns of the answers once.")
    lacking = [name for name in task.classes if name not in classes]
    if lacking:
        raise UsageError(
            f"{path} lacks the classes {_some(lacking)}: it has {_some(classes)}, the images' are "
            f"{', '.join(task.classes)}.{nearest(lacking[0], classes)}"
        )
    return values[:, [classes.index(name) for name in task.classes]]


# -- what the numbers are -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Place:
    path: Path
    numbers: Sequence[int]
    columns: Sequence[str]

    def first(self, bad: np.ndarray) -> str:
        """Where the first True of ``[n, K]`` stands."""
        row, column = np.argwhere(bad)[0]
        return f"{self.path}, row {self.numbers[row]}, column {self.columns[column]!r}"


def _understood(
    values: np.ndarray, task: Task, kind: AnswersKind | None, place: _Place, *, sure: bool = True
) -> tuple[AnswersKind, np.ndarray]:
    """What the numbers ``[n, K]`` are, and they themselves, probabilities and counts to the sum of 1."""
    sums = values.sum(axis=1)
    inside = bool(((values >= 0) & (values <= 1)).all())
    whole = inside and (not task.exclusive or bool((np.abs(sums - 1) <= _ROUNDING).all()))
    if kind is None:
        if whole:
            kind = "probabilities"
        elif sure and (values < 0).any():
            kind = "logits"
        else:
            why = "lie between 0 and 1, but not every row sums to 1" if inside else "are not below 0, and some above 1"
            if (values < 0).any():
                why = "may be logits or an embedding"
            raise UsageError(f"{place.path}: the numbers of {_some(list(place.columns))} {why}. {_FLAG}")
    if kind == "logits":
        return kind, values
    if kind == "votes":
        return _counted(values, task, place)
    outside = (values < 0) | (values > 1)
    if outside.any():
        raise UsageError(f"{place.first(outside)}: {values[outside][0]:g} is no probability. {_FLAG}")
    if task.exclusive and not whole:
        row = int(np.flatnonzero(np.abs(sums - 1) > _ROUNDING)[0])
        raise UsageError(
            f"{place.path}, row {place.numbers[row]}: the probabilities sum to {sums[row]:g}, not 1. {_FLAG}"
        )
    if np.isin(values, (0, 1)).all():
        return "votes", values
    return "probabilities", values / sums[:, None] if task.exclusive else values


def _counted(values: np.ndarray, task: Task, place: _Place) -> tuple[AnswersKind, np.ndarray]:
    if np.isin(values, (0, 1)).all() and (not task.exclusive or (values.sum(axis=1) == 1).all()):
        return "votes", values
    if not task.exclusive:
        raise UsageError(
            f"{place.path}: with several labels an image, counts do not say how many readers there were: give a row a "
            f"reader, with the labels in a column {_VOTE!r}."
        )
    odd = (values < 0) | (values != np.round(values))
    if odd.any():
        raise UsageError(f"{place.first(odd)}: {values[odd][0]:g} is no number of votes. {_FLAG}")
    sums = values.sum(axis=1)
    if (sums == 0).any():
        row = int(np.flatnonzero(sums == 0)[0])
        raise UsageError(f"{place.path}, row {place.numbers[row]}: nobody voted. Leave the row out.")
    return "probabilities", values / sums[:, None]


def _some(names: list[str], count: int = 8) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(map(str, names[:count])) + (f" and {len(names) - count} more" if len(names) > count else "")
