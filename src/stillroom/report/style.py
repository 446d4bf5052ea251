"""How roles and classes look in every drawing: a colour, marker, glyph and dash each; none rests on colour alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillroom.evaluation.roles import CONTROL, MAJORITY, PROBE_OF_STUDENT, PROBE_OF_TEACHER, STUDENT, TEACHER
from stillroom.report.svg import ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {STUDENT: "o", CONTROL: "s", TEACHER: "D", PROBE_OF_TEACHER: "^", PROBE_OF_STUDENT: "v", MAJORITY: "X"}
DASHES: dict[str, Any] = {
    STUDENT: "-", CONTROL: (0, (5, 2)), TEACHER: (0, (6, 1.5, 1.2, 1.5)), PROBE_OF_TEACHER: (0, (1.2, 1.2)),
    PROBE_OF_STUDENT: (0, (3, 1, 1, 1, 1, 1)),
}  # fmt: skip
# Names of the page's colours.
COLOURS = {
    STUDENT: "student", CONTROL: "control", TEACHER: "teacher", PROBE_OF_TEACHER: "class-3", PROBE_OF_STUDENT: "class-2",
    MAJORITY: "muted",
}  # fmt: skip
CLASS_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CLASS_GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖")
_GLYPHS = dict(zip(CLASS_MARKERS, CLASS_GLYPHS, strict=True))


def colour(role: str) -> str:
    """Sentinel colour of a role; networks on the way are muted."""
    return ink(COLOURS.get(role, "muted"))


def glyph(role: str) -> str:
    """The character that looks like the role's marker, for legends outside of drawings."""
    return _GLYPHS[MARKERS.get(role, "X")]


def unit_axes(axes: Axes, x: str, y: str) -> None:
    """Axes over the unit square with these labels."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y)
