"""A file of answers (CSV, TSV, Parquet or npz) as named columns whose every cell can be pointed at."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillroom.data.sources.column_names import Role, named_like
from stillroom.data.sources.sheet import read_sheet
from stillroom.data.spelling import is_missing, tidy
from stillroom.errors import UsageError

ENDINGS = (".csv", ".tsv", ".parquet", ".npz")


@dataclass(frozen=True)
class Columns:
    """Columns of equal length.

    Attributes:
        path: the file.
        cells: by tidied name, ``[n]`` texts, or numbers where the file has a type for them.
        numbers: of each row, as a spreadsheet counts them: the header is row 1.
    """

    path: Path
    cells: Mapping[str, Sequence]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def named(self, *names: str) -> str | None:
        """The first of these names that is a column's, in any case; None where none is."""
        folded = {name.casefold(): name for name in self.cells}
        return next((folded[name] for name in names if name in folded), None)

    def near(self, role: Role, but: Sequence[str]) -> str | None:
        """The one column that is named like a role, those in ``but`` aside. Raises UsageError where several are."""
        found = named_like((name for name in self.cells if name not in but), role)
        if len(found) > 1:
            raise UsageError(
                f"{self.path} has no column {role!r} but several that may be meant: {', '.join(map(repr, found))}. Rename "
                f"the one meant to {role}."
            )
        return found[0] if found else None

    def texts(self, name: str) -> list[str]:
        """``[n]``, each filled. Raises UsageError for an empty one."""
        found = [_text(cell) for cell in self.cells[name]]
        for text, number in zip(found, self.numbers, strict=True):
            if is_missing(text):
                said = f"holds {text!r}, which says nothing" if text else "is empty"
                raise UsageError(f"{self.path}, row {number}, column {name!r}: the cell {said}.")
        return found

    def values(self, names: Sequence[str]) -> np.ndarray:
        """``[n, len(names)]`` float64, all finite. Raises UsageError with row and column of the first that is not."""
        return np.stack([self._numbers(name) for name in names], axis=1)

    def vectors(self, name: str) -> np.ndarray:
        """``[n, D]`` float64 of a column whose cells are lists of numbers."""
        rows = list(self.cells[name])
        if not all(isinstance(row, list | tuple | np.ndarray) for row in rows) or len({len(row) for row in rows}) != 1:
            raise UsageError(f"{self.path}, column {name!r}: every cell must be a list of as many numbers.")
        try:
            found = np.array([[np.nan if one is None else one for one in row] for row in rows], dtype=np.float64)
        except (TypeError, ValueError):
            raise UsageError(f"{self.path}, column {name!r} holds lists of something else than numbers.") from None
        return require_finite(found, self.path, self.numbers, [f"{name}[{place}]" for place in range(found.shape[1])])

    def _numbers(self, name: str) -> np.ndarray:
        found = np.empty(len(self), dtype=np.float64)
        for place, cell in enumerate(self.cells[name]):
            try:
                found[place] = float(cell)
            except (TypeError, ValueError):
                found[place] = math.nan
            if not math.isfinite(found[place]):
                said = "the cell is empty" if is_missing(_text(cell)) else f"{_text(cell)!r} is not a finite number"
                raise UsageError(f"{self.path}, row {self.numbers[place]}, column {name!r}: {said}.")
        return found


def read_columns(path: Path) -> Columns:
    """The columns of a CSV, TSV or Parquet file.

    Raises:
        UsageError: it cannot be read, is empty, or names two columns alike.
    """
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _parquet(path)
    sheet = read_sheet(path)
    _refuse_twins(path, sheet.columns)
    cells = {name: [row[place] for row in sheet.rows] for place, name in enumerate(sheet.columns)}
    return Columns(path, cells, sheet.numbers)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises UsageError where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise UsageError(
                    f"{path} holds one array without a name: save it by np.savez, each array under its name."
                )
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} is not a readable .npz file of plain arrays: {reason}") from None


def require_finite(values: np.ndarray, path: Path, numbers: Sequence[int], names: Sequence[str]) -> np.ndarray:
    """``[n, C]`` values as they are. Raises UsageError with row and column of the first that is not finite."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise UsageError(
            f"{path}, row {numbers[row]}, {names[column]!r}: {values[row, column]} is not a finite number."
        )
    return values


def _parquet(path: Path) -> Columns:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} is not a readable Parquet file: {reason}") from None
    if not table.num_rows:
        raise UsageError(f"{path} holds no rows; it needs one for every image.")
    names = [tidy(str(name)) for name in table.column_names]
    _refuse_twins(path, names)
    cells = {}
    for name, column in zip(names, table.columns, strict=True):
        plain = pyarrow.types.is_floating(column.type) or pyarrow.types.is_integer(column.type)
        cells[name] = column.to_numpy() if plain else column.to_pylist()
    return Columns(path, cells, range(2, table.num_rows + 2))


def _refuse_twins(path: Path, names: Sequence[str]) -> None:
    for name in dict.fromkeys(names):
        if list(names).count(name) > 1:
            raise UsageError(f"{path} has {list(names).count(name)} columns named {name!r}: rename all but one.")


def _text(cell: object) -> str:
    """A cell as a CSV would hold it; what is missing is empty."""
    if cell is None or (isinstance(cell, float | np.floating) and math.isnan(cell)):
        return ""
    return str(cell).strip()
