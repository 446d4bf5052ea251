"""Which image of a data set each row of a table of answers is about."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from stillroom.data.answers import Answers
from stillroom.data.files import FileReader
from stillroom.data.spelling import tidy
from stillroom.data.table import Table
from stillroom.errors import UsageError


@dataclass(frozen=True)
class Placed:
    """Answers by the rows of a data set, those of other images left out.

    Attributes:
        answers: as they were read.
        images: ``[m]`` the data set's row of each answer.
        readers: ``[m]`` number of who gave it.
        values: ``[m, K]`` or ``[m, D]`` float64.
        names: of the readers; numbers from 1 where the file names none.
        unknown: rows of the file that are about no image of the data set.
    """

    answers: Answers
    images: np.ndarray
    readers: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]
    unknown: tuple[int, ...]


def place(answers: Answers, table: Table, digests: np.ndarray | None = None) -> Placed:
    """Find the image of every row.

    A path or an id is an id of the data set, or a path (absolute, or relative to the file's folder), or else the end of
    just one image's path, its last part with or without the ending; a digest is that of the image's pixels.

    Args:
        answers: from :func:`~stillroom.data.answers.read_answers`.
        table: the data set's images.
        digests: ``[N]`` of their pixels; None where they are not decoded yet: rows that are named by digest alone are then
            not looked for.

    Raises:
        UsageError: a row may be about several images, two rows of one reader about the same one, no row about any; or
            names and digests contradict each other.
    """
    found = _Finder(answers, table, digests)
    rows, images, unknown = [], [], []
    for row, name in enumerate(answers.names):
        places = found.images(row, name)
        rows += [row] * len(places)
        images += places
        if not places:
            unknown.append(row)
    if not rows and (answers.naming != "digest" or digests is not None):
        raise UsageError(
            f"{answers.path} is about none of the {len(table)} images of {table.name}: its first {answers.naming} is "
            f"{answers.names[0]!r}, an image's {'digest' if answers.naming == 'digest' else 'id'} is "
            f"{_example(answers, table, digests)!r}."
        )
    at = np.array(images, dtype=np.int64)
    said = [answers.readers[row] for row in rows] if answers.readers else _in_turn(at)
    names = tuple(dict.fromkeys(said if answers.readers else map(str, sorted(map(int, said)))))
    number = {name: place for place, name in enumerate(names)}
    readers = np.array([number[name] for name in said], dtype=np.int64)
    _refuse_twice(answers, table, rows, at, readers, names)
    return Placed(answers, at, readers, answers.values[rows], names, tuple(unknown))


class _Finder:
    def __init__(self, answers: Answers, table: Table, digests: np.ndarray | None) -> None:
        self.answers, self.table, self.digests = answers, table, digests
        self.folder = Path(os.path.abspath(answers.path.parent))  # noqa: PTH100  (resolve() would follow links)
        reader = table.reader
        files = [reader.name(int(row)) for row in table.rows] if isinstance(reader, FileReader) else []
        ids = table.ids.tolist()
        self.ids = {name: row for row, name in enumerate(ids)}
        self.paths = {os.path.abspath(file): row for row, file in enumerate(files)}  # noqa: PTH100
        # Ends are compared by how they look: Unicode has several forms of one name.
        self.own = [PurePosixPath(tidy(name)) for name in ids]
        self.whole = [PurePosixPath(tidy(Path(file).as_posix())) for file in self.paths] or self.own
        self.ends: dict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(self.whole):
            for last in {path.name, path.stem}:
                self.ends[last].append(row)
        self.by_digest: dict[str, list[int]] = defaultdict(list)
        for row, digest in enumerate([] if digests is None else digests.tolist()):
            self.by_digest[digest].append(row)

    def images(self, row: int, name: str) -> list[int]:
        """The images that a row is about: none, one, or all of equal pixels where a digest names it."""
        if self.answers.naming == "digest":
            return self.by_digest.get(name, [])
        name = name.replace("\\", "/")
        found = {at for at in (self.ids.get(name), self.paths.get(self._absolute(name))) if at is not None}
        found = found or self._by_end(PurePosixPath(tidy(name)))
        if len(found) > 1:
            which = ", ".join(sorted(str(self.table.ids[at]) for at in found)[:3])
            raise UsageError(
                f"{self.answers.path}, row {self.answers.numbers[row]}: {name!r} may be any of {len(found)} images, such as "
                f"{which}. Name the image by more of its path."
            )
        for at in found:
            self._check_pixels(row, at)
        return list(found)

    def _absolute(self, name: str) -> str:
        return os.path.abspath(self.folder / name)  # noqa: PTH100

    def _by_end(self, name: PurePosixPath) -> set[int]:
        """Images whose path ends in ``name``, or of those whose id ends it (another machine's path) the longest id's."""
        near = self.ends.get(name.name, [])
        found = {at for at in near if _ends_in(self.whole[at], name)}
        longer = [at for at in near if _ends_in(name, self.own[at])]
        most = max((len(self.own[at].parts) for at in longer), default=0)
        return found or {at for at in longer if len(self.own[at].parts) == most}

    def _check_pixels(self, row: int, at: int) -> None:
        if self.answers.digests and self.digests is not None and self.answers.digests[row] != self.digests[at]:
            raise UsageError(
                f"{self.answers.path}, row {self.answers.numbers[row]}: {self.answers.names[row]!r} is the name of an image "
                "whose pixels have another digest, so the answers are about other images of the same names. If they are "
                "the same at another resolution, leave out the column digest."
            )


def _ends_in(path: PurePosixPath, end: PurePosixPath) -> bool:
    """Whether the last parts of ``path`` are those of ``end``; the very last may lack its ending."""
    parts, wanted = path.parts, end.parts
    if len(parts) < len(wanted) or not wanted:
        return False
    return parts[len(parts) - len(wanted) : -1] == wanted[:-1] and wanted[-1] in (path.name, path.stem)


def _in_turn(images: np.ndarray) -> list[str]:
    """How often each image has come before, from 1: the readers of a file that names none."""
    seen: dict[int, int] = defaultdict(int)
    turns = []
    for image in images.tolist():
        seen[image] += 1
        turns.append(str(seen[image]))
    return turns


def _refuse_twice(
    answers: Answers, table: Table, rows: Sequence[int], images: np.ndarray, readers: np.ndarray, names: Sequence[str]
) -> None:
    first: dict[tuple[int, int], int] = {}
    for row, image, reader in zip(rows, images.tolist(), readers.tolist(), strict=True):
        before = first.setdefault((image, reader), row)
        if before != row:
            raise UsageError(
                f"{answers.path}, rows {answers.numbers[before]} and {answers.numbers[row]}: {names[reader]} answers twice "
                f"about {table.ids[image]}; keep one."
            )


def _example(answers: Answers, table: Table, digests: np.ndarray | None) -> str:
    return str(digests[0] if answers.naming == "digest" and digests is not None else table.ids[0])
