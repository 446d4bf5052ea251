"""A CSV, TSV or Parquet file as rows of text that know their number, so that errors can point at a cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.data.spelling import filled, tidy
from stillroom.errors import UsageError, nearest
from stillroom.extras import need
from stillroom.files.walk import why_no_file

BINARY = "(binary data)"
"""Stands in cells of a Parquet file that hold bytes which are no text in UTF-8."""

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Sheet:
    """A table of text. Cells are stripped; what is missing is said by :mod:`stillroom.data.spelling`.

    Attributes:
        path: the file.
        columns: the header, tidied.
        rows: cells, each row as long as the header.
        numbers: each row's number as a spreadsheet shows it, the header being row 1.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]

    def take(self, places: Iterable[int]) -> Sheet:
        """The same sheet with only these rows, under their own numbers."""
        chosen = [(self.rows[place], self.numbers[place]) for place in places]
        return Sheet(self.path, self.columns, tuple(row for row, _ in chosen), tuple(number for _, number in chosen))

    def find(self, name: str) -> str | None:
        """The column of this name, in any case and Unicode form, as the header has it; None where there is none.

        Raises:
            UsageError: several columns have this name.
        """
        name = tidy(name)
        exact = [column for column in self.columns if column == name]
        found = exact or [column for column in self.columns if column.casefold() == name.casefold()]
        if len(found) > 1:
            raise UsageError(f"{self.path} has {len(found)} columns named {name!r}; rename all but one.")
        return found[0] if found else None

    def cells(self, column: str) -> list[str]:
        """The cells of a column that is there. Raises UsageError where two have its name."""
        if self.columns.count(column) > 1:
            self.find(column)
        place = self.columns.index(column)
        return [row[place] for row in self.rows]

    def required(self, name: str, setting: str, remarks: Sequence[str] = ()) -> str:
        """The column of this name, as the header has it.

        Args:
            name: as :meth:`find` takes it.
            setting: where the name comes from.
            remarks: what else to say where it is not there.

        Raises:
            UsageError: there is no such column; lists those there are.
        """
        column = self.find(name)
        if column is None:
            raise UsageError(
                f"{self.path} has no column {name!r}; its columns are {', '.join(self.columns)}."
                f"{nearest(name, self.columns)} Set `{setting}` to the one meant.{''.join(f' {one}.' for one in remarks)}"
            )
        return column


def read_sheet(path: Path) -> Sheet:
    """Read a ``.csv``, ``.tsv`` or ``.parquet`` file.

    Text files are UTF-8 (with or without a byte order mark) or UTF-16 with one. The header tells the
    delimiter: comma, semicolon, tab or bar. Lines whose every cell is missing are passed over but counted.

    Raises:
        UsageError: no such file, another kind, unreadable, no rows, or a row of another length.
    """
    if not path.is_file():
        raise UsageError(f"{path} {why_no_file(path)}.")
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv", ".parquet"):
        raise UsageError(f"{path} is not a .csv, .tsv or .parquet table; save it as CSV in UTF-8.")
    lines = _parquet_lines(path) if ending == ".parquet" else _text_lines(path)
    numbered = [(number, cells) for number, cells in enumerate(lines, 1) if any(map(filled, cells))]
    if not numbered:
        raise UsageError(f"{path} is empty; it needs a header line and one line per image.")
    (_, header), *body = numbered
    columns = tuple(map(tidy, header))
    if not body:
        raise UsageError(f"{path} has a header ({', '.join(columns)}) but no rows; add one line per image.")
    for number, cells in body:
        if len(cells) != len(columns):
            raise UsageError(
                f"{path}, row {number}: {len(cells)} cells where the header has {len(columns)}; "
                "put quotes around a cell that holds the delimiter."
            )
        if any("\0" in cell for cell in cells):
            raise UsageError(f"{path}, row {number}, holds a zero byte: the file is damaged. Save the table again.")
    return Sheet(path, columns, tuple(cells for _, cells in body), tuple(number for number, _ in body))


def _text_lines(path: Path) -> list[tuple[str, ...]]:
    raw = path.read_bytes()
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = raw.decode(encoding).lstrip("\ufeff")  # marks of files that were written or joined twice
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}, is not valid UTF-8; save the table as CSV in UTF-8.") from None
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
    try:
        return [_clean(cells) for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    except csv.Error as error:
        raise UsageError(f"{path} is not a readable table: {error}.") from None


def _parquet_lines(path: Path) -> list[tuple[str, ...]]:
    need("pyarrow", f"Reading {path}", "A CSV file needs nothing more.")
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} is not a readable Parquet file: {reason}") from None
    columns = [table.column(i).to_pylist() for i in range(table.num_columns)]
    header = _clean(table.column_names)
    return [header, *(_clean(map(_as_text, cells)) for cells in zip(*columns, strict=True))]


def _clean(cells: Iterable[str]) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in cells)


def _as_text(value: Any) -> str:
    """A Parquet value as a CSV would hold it; a list of labels is joined by ``;``."""
    if value is None or value != value:  # NaN alone differs from itself
        return ""
    if isinstance(value, (list, tuple)):
        return ";".join(map(_as_text, value))
    if isinstance(value, bytes):  # some programs write text so
        try:
            return value.decode()
        except UnicodeDecodeError:
            return BINARY
    return str(value)
