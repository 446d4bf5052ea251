"""How roles and classes look in every drawing: a colour, marker and dash each; none rests on colour alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillroom.report.svg import ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {"student": "o", "control": "s", "teacher": "D"}
DASHES: dict[str, Any] = {"student": "-", "control": (0, (5, 2)), "teacher": (0, (6, 1.5, 1.2, 1.5))}
CLASS_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CLASS_GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖")


def colour(role: str) -> str:
    """Sentinel colour of a role; networks besides the three are muted."""
    return ink(role if role in MARKERS else "muted")


def unit_axes(axes: Axes, x: str, y: str) -> None:
    """Axes over the unit square with these labels."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y)
