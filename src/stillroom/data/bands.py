"""Images parted into subgroups by what is known of them: values as they are, numbers in bands, what is missing apart."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillroom.data.spelling import look
from stillroom.data.table import GroupColumn

AGES = (18.0, 40.0, 65.0, 80.0)
"""Where ages are cut: minors, younger and older adults, the old and the very old, as the field's registries have it."""
OLDEST = 120.0
"""An age above is a slip, and not known."""
MOST_VALUES = 20
"""A column of more different values has its commonest as subgroups, and the rest as one."""
KEPT = 12
"""So many of them."""
NOT_KNOWN, OTHER = "not known", "other"
THIRDS = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class Grouping:
    """One way to part images into subgroups.

    Attributes:
        name: of the column, or the property.
        groups: names of the subgroups, in their order.
        members: ``[N]`` int64, the subgroup of each image.
        how: how values were made subgroups, in a sentence; empty where each value is one.
        edges: of bands, ascending: a value that is an edge lies in the band above it.
    """

    name: str
    groups: tuple[str, ...]
    members: np.ndarray
    how: str = ""
    edges: tuple[float, ...] = ()

    def take(self, rows: np.ndarray) -> Grouping:
        """The same of these rows; subgroups without images go."""
        there, members = np.unique(self.members[rows], return_inverse=True)
        return Grouping(self.name, tuple(self.groups[k] for k in there), members.astype(np.int64), self.how, self.edges)


def grouped(column: GroupColumn, learnt: np.ndarray, edges: Sequence[float] | None = None) -> Grouping:
    """The subgroups of a column.

    Numbers are cut at the edges given with the column, ages at :data:`AGES`, and other numbers of more than
    :data:`MOST_VALUES` values into thirds of those that were learnt from. All else are values, which count as one where they
    look alike.

    Args:
        column: with ``[N]`` cells.
        learnt: ``[N]`` bool, the images by which thirds are cut.
        edges: of a column that another set was cut by, so that bands compare; before all but the column's own.
    """
    numbers = _numbers(column)
    if numbers is None:
        return _by_value(column)
    if column.edges:
        cut, how = column.edges, "Cut where the settings say."
    elif edges is not None:
        cut, how = tuple(edges), "Cut as the run's own images were."
    elif is_age(column.name):
        cut, how = AGES, f"Ages cut at {', '.join(f'{edge:g}' for edge in AGES)}."
    else:
        known = np.isfinite(numbers)
        base = numbers[known & learnt] if (known & learnt).any() else numbers[known]
        cut = thirds(base)
        how = (
            "Cut into thirds of the training images." if (known & learnt).any() else "Cut into thirds of these images."
        )
    if is_age(column.name) and (beyond := int((np.isfinite(_parsed(column)) & ~np.isfinite(numbers)).sum())):
        how += f" Ages below 0 or above {OLDEST:g} count as not known ({beyond:,})."
    whole = bool((numbers[np.isfinite(numbers)] % 1 == 0).all() and all(edge % 1 == 0 for edge in cut))
    return banded(column.name, numbers, cut, band_names(cut, whole), how)


def banded(name: str, numbers: np.ndarray, edges: Sequence[float], names: Sequence[str], how: str) -> Grouping:
    """``[N]`` numbers in the bands between ascending edges, those that are not finite apart; bands without images go."""
    members = np.searchsorted(np.asarray(edges, dtype=np.float64), numbers, side="right")
    members = np.where(np.isfinite(numbers), members, len(edges) + 1)
    whole = Grouping(name, (*names, NOT_KNOWN), members, how, tuple(map(float, edges)))
    return whole.take(np.arange(len(numbers)))


def thirds(numbers: np.ndarray) -> tuple[float, ...]:
    """The edges of thirds of ``[M]`` numbers; fewer where many are alike, none where all are."""
    edges = np.unique(np.quantile(numbers, THIRDS)) if len(numbers) else np.array([])
    return tuple(float(edge) for edge in edges if edge > numbers.min())


def band_names(edges: Sequence[float], whole: bool) -> tuple[str, ...]:
    """``under 40``, ``40 to 64``, ``65 and over``; of numbers that are not whole ``40 to under 65``."""
    if not edges:
        return ("all",)
    shown = [_short(edge) for edge in edges]
    between = [
        f"{low} to {edge - 1:g}" if whole else f"{low} to under {high}"
        for low, high, edge in zip(shown, shown[1:], edges[1:], strict=False)
    ]
    return (f"under {shown[0]}", *between, f"{shown[-1]} and over")


def values_that_differ(cells: np.ndarray) -> list[str]:
    """The values of ``[N]`` cells that do not look alike, the commonest first, each as it is most often written."""
    counts: dict[str, Counter[str]] = {}
    for cell, number in Counter(cells[cells != ""].tolist()).items():
        counts.setdefault(look(cell), Counter())[cell] += number
    ranked = sorted(counts.values(), key=lambda spelt: -spelt.total())
    return [spelt.most_common(1)[0][0] for spelt in ranked]


def plain_values(column: GroupColumn) -> bool:
    """Whether its cells are numbers, which bands can be made of."""
    return _numbers(column) is not None


def is_age(name: str) -> bool:
    """Whether a column's name speaks of ages in years."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold())
    return bool({"age", "ages", "alter", "edad", "patientage"} & set(words)) and not {"bone", "gestational"} & set(
        words
    )


def number_of(name: str, cell: str) -> float | None:
    """The number that a cell is; of ages also ``58Y``, ``058Y``, ``58 years``, ``90+`` and ``>89``. None where it is none."""
    text = cell
    if is_age(name):
        found = re.fullmatch(r"[<>≥]?=?\s*([0-9]+(?:\.[0-9]+)?)\s*(?:\+|y|yr|yrs|years?)?", cell.casefold())
        text = found[1] if found else cell
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _numbers(column: GroupColumn) -> np.ndarray | None:
    """``[N]`` float64, NaN where not known; None where the column is none of numbers that bands are made of."""
    numbers = _parsed(column)
    if np.isnan(numbers).sum() > (column.cells == "").sum() or not np.isfinite(numbers).any():
        return None
    if is_age(column.name):
        return np.where((numbers >= 0) & (numbers <= OLDEST), numbers, np.nan)
    few = len(np.unique(numbers[np.isfinite(numbers)])) <= MOST_VALUES
    return None if few and not column.edges else numbers


def _parsed(column: GroupColumn) -> np.ndarray:
    values, place = np.unique(column.cells, return_inverse=True)
    parsed = [number_of(column.name, str(value)) for value in values]
    return np.array([np.nan if number is None else number for number in parsed])[place]


def _by_value(column: GroupColumn) -> Grouping:
    values = values_that_differ(column.cells)
    kept = values if len(values) <= MOST_VALUES else values[:KEPT]
    order = sorted(kept, key=_in_order)
    places = {look(value): place for place, value in enumerate(order)}
    cells, inverse = np.unique(column.cells, return_inverse=True)
    of_cells = [len(order) + 1 if cell == "" else places.get(look(str(cell)), len(order)) for cell in cells]
    how = ""
    if len(values) > len(kept):
        how = f"The {len(kept)} commonest of {len(values)} values; the others count as one."
    members = np.array(of_cells, dtype=np.int64)[inverse]
    names = (*order, OTHER if OTHER not in order else "all other", NOT_KNOWN if NOT_KNOWN not in order else "empty")
    return Grouping(column.name, names, members, how).take(np.arange(len(members)))


def _in_order(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value.casefold()


def _short(edge: float) -> str:
    return f"{edge:.4g}"
