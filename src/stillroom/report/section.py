"""A section that a stage declares for the report and the model card: a title, sentences and tables, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillroom.report.numbers import Estimate, estimate
from stillroom.report.tables import Cell, Grid


@dataclass(frozen=True)
class Section:
    """What the pages show of a stage.

    Attributes:
        key: of its place on the page, in lower case.
        title: its heading.
        text: paragraphs.
        tables: each with its caption. A cell is a text or an :class:`~stillroom.report.numbers.Estimate`.
    """

    key: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[tuple[str, Grid], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json."""
        tables = [
            {
                "caption": caption,
                "columns": list(grid.columns),
                "rows": [[_plain(cell) for cell in row] for row in grid.rows],
            }
            for caption, grid in self.tables
        ]
        return {"key": self.key, "title": self.title, "text": list(self.text), "tables": tables}


def sections(metrics: Mapping[str, Any]) -> list[Section]:
    """The sections that stages declared, from metrics.json."""
    return [
        Section(
            found["key"],
            found["title"],
            tuple(found["text"]),
            tuple(
                (
                    table["caption"],
                    Grid(tuple(table["columns"]), [tuple(_cell(cell) for cell in row) for row in table["rows"]]),
                )
                for table in found["tables"]
            ),
        )
        for found in metrics.get("sections", [])
    ]


def _plain(cell: Cell) -> Any:
    return {"value": cell.value, "low": cell.low, "high": cell.high} if isinstance(cell, Estimate) else cell


def _cell(raw: Any) -> Cell:
    return raw if isinstance(raw, str) else estimate(raw) or "n/a"
