"""The columns of a table that part its images into subgroups: those that the user names, and a hint at those to name."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from stillroom.data.bands import MOST_VALUES, is_age, number_of, plain_values, values_that_differ
from stillroom.data.sources.column_names import named_like, plain_name
from stillroom.data.sources.sheet import Sheet
from stillroom.data.spelling import filled, plain_integer
from stillroom.data.table import Finding, GroupColumn
from stillroom.errors import UsageError, nearest
from stillroom.settings.wishes import group_wishes

_NAMES = """sex gender patientsex patientgender geschlecht sexe age ages patientage ageyears ageatscan alter race ethnicity
    skintype skintone fitzpatrick site sites hospital hospitalid center centre centerid clinic institution institute scanner
    scannermodel manufacturer vendor device devicemodel camera view viewposition laterality country"""
"""What columns that are worth a hint are called."""
REFUSED = 100
"""Columns of text with more different values are no groups but ids, dates or remarks."""


def group_columns(sheet: Sheet, groups: tuple[str, ...]) -> tuple[GroupColumn, ...]:
    """The columns that the user named, in that order.

    Raises:
        UsageError: there is no such column (lists those there are), or its values do not part images into subgroups.
    """
    found: list[GroupColumn] = []
    for wish in groups:
        exact = sheet.find(wish)  # a name may hold a comma or an equals sign
        for name, edges in [(exact, ())] if exact is not None else group_wishes((wish,)):
            column = sheet.find(name)
            if column is None:
                raise UsageError(
                    f"{sheet.path} has no column {name!r} to part images by; its columns are {', '.join(sheet.columns)}."
                    f"{nearest(name, sheet.columns)} Name those meant by --groups."
                )
            cells = np.array([plain_integer(filled(cell)) for cell in sheet.cells(column)])
            found.append(_fit(sheet, GroupColumn(column, cells, tuple(edges))))
    return tuple(found)


def _fit(sheet: Sheet, column: GroupColumn) -> GroupColumn:
    """The column as it is, where subgroups can be made of it."""
    values = values_that_differ(column.cells)
    where = f"{sheet.path}, column {column.name!r}"
    if not values:
        raise UsageError(f"{where}: every cell is empty, so that it parts no images; leave it out of --groups.")
    numbers = {value for value in values if number_of(column.name, value) is not None}
    if len(values) > MOST_VALUES and (_named_like_ids(column.name) or _like_ids(column, values) or _like_dates(values)):
        kind = "dates" if _like_dates(values) else "ids"
        raise UsageError(
            f"{where} holds {len(values):,} different values in {len(column.cells):,} rows, such as {values[0]!r}, and looks "
            f"like {kind}: these are no groups. Leave it out of --groups, or write groups into a column of another name."
        )
    if column.edges and len(numbers) < len(values):
        other = next(value for value in values if value not in numbers)
        raise UsageError(f"{where}: {other!r} is no number, so that no edges can cut it; leave out the edges.")
    if not column.edges and len(values) > REFUSED and not plain_values(column):
        odd = [value for value in values if value not in numbers]
        why = f"; {len(odd):,} are no numbers, such as {odd[0]!r}" if numbers and odd else ""
        raise UsageError(
            f"{where} holds {len(values):,} different values in {len(column.cells):,} rows, such as {values[0]!r}{why}: ids, "
            f"dates and remarks are no groups ({REFUSED} values at most, numbers apart). Leave it out of --groups, or write "
            "groups into a column of their own."
        )
    return column


def _named_like_ids(name: str) -> bool:
    return bool(named_like([name], "patient") or named_like([name], "group"))


def _like_dates(values: list[str]) -> bool:
    """Whether most values are days, such as 2020-01-31, 31.01.2020 or 20200131."""
    day = re.compile(r"(\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4})([ T].*)?|(19|20)\d\d[01]\d[0-3]\d")
    return 2 * sum(day.fullmatch(value) is not None for value in values) > len(values)


def _like_ids(column: GroupColumn, values: list[str]) -> bool:
    """Whether nearly every row has a whole number of its own."""
    return len(values) > max(REFUSED, 0.9 * len(column.cells)) and all(value.isdigit() for value in values)


def hint_at_groups(sheet: Sheet, used: set[str | None]) -> list[Finding]:
    """A note of columns that are called as groups often are and hold a few values, or ages; none is used by itself."""
    able = []
    for name in sheet.columns:
        if plain_name(name) not in _NAMES.split() or name in used or sheet.columns.count(name) > 1:
            continue
        cells = np.array([plain_integer(filled(cell)) for cell in sheet.cells(name)])
        counts = Counter(cells[cells != ""].tolist())
        if len(counts) > 1 and (
            len(counts) <= MOST_VALUES or (is_age(name) and plain_values(GroupColumn(name, cells)))
        ):
            able.append(name)
    if not able:
        return []
    flags = " ".join(name if name.replace("_", "").isalnum() else f"'{name}'" for name in able)
    text = f"Columns by which subgroups could be judged: --groups {flags} tells figures and gaps of each."
    return [Finding("note", "columns_for_groups", text)]
