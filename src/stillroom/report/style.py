"""How roles and classes look in every drawing: a colour, marker, glyph and dash each; none rests on colour alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillroom.evaluation.roles import CONTROL, MAJORITY, PROBE_OF_STUDENT, PROBE_OF_TEACHER, STUDENT, TEACHER
from stillroom.report.svg import ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {
    STUDENT: "o",
    CONTROL: "s",
    TEACHER: "D",
    PROBE_OF_TEACHER: "^",
    PROBE_OF_STUDENT: "v",
    MAJORITY: "X",
}
DASHES: dict[str, Any] = {
    STUDENT: "-", CONTROL: (0, (5, 2)), TEACHER: (0, (6, 1.5, 1.2, 1.5)), PROBE_OF_TEACHER: (0, (1.2, 1.2)),
    PROBE_OF_STUDENT: (0, (3, 1, 1, 1, 1, 1)),
}  # fmt: skip
# Names of the page's colours.
COLOURS = {
    STUDENT: "student", CONTROL: "control", TEACHER: "teacher", PROBE_OF_TEACHER: "class-3", PROBE_OF_STUDENT: "class-2",
    MAJORITY: "muted",
}  # fmt: skip
_MEMBERS: tuple[tuple[str, str, Any], ...] = (
    ("class-4", "P", (0, (9, 2))), ("class-5", "*", (0, (2.5, 2.5))), ("class-7", "X", (0, (8, 2, 2, 2, 2, 2))),
)  # fmt: skip
"""Colour, marker and dash of the first, second and third of several teachers, and of every third after them."""

CLASS_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CLASS_GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖")
_GLYPHS = {**dict(zip(CLASS_MARKERS, CLASS_GLYPHS, strict=True)), "*": "★"}


def colour_name(role: str) -> str:
    """Name of the page's colour of a role; networks on the way are muted."""
    member = _member(role)
    return COLOURS.get(role, member[0] if member else "muted")


def colour(role: str) -> str:
    """Its sentinel in drawings."""
    return ink(colour_name(role))


def marker(role: str) -> str:
    """What matplotlib marks its figures with."""
    member = _member(role)
    return MARKERS.get(role, member[1] if member else "X")


def dashes(role: str) -> Any:
    """How matplotlib draws its lines."""
    member = _member(role)
    return DASHES.get(role, member[2] if member else ":")


def glyph(role: str) -> str:
    """The character that looks like the role's marker, for legends outside of drawings."""
    return _GLYPHS[marker(role)]


def _member(role: str) -> tuple[str, str, Any] | None:
    """The looks of one of several teachers, ``teacher_1`` and so on; None of other roles."""
    base, _, number = role.rpartition("_")
    return _MEMBERS[(int(number) - 1) % len(_MEMBERS)] if base == TEACHER and number.isdigit() else None


def unit_axes(axes: Axes, x: str, y: str) -> None:
    """Axes over the unit square with these labels."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y)
