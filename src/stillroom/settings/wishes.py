"""What is asked of the classes: whether it can be had at all, whatever the source holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from stillroom.errors import UsageError


def check_wishes(merge: Sequence[str], drop_class: Sequence[str], classes: Sequence[str], positive: str) -> None:
    """Raises UsageError where what is asked of the classes contradicts itself, whatever the source holds."""
    for name, given in (("merge", merge), ("drop_class", drop_class), ("classes", classes)):
        if isinstance(given, str):
            raise UsageError(f"{name} takes a list, such as [{given!r}], got {given!r} alone.")
    seen: dict[str, str] = {}
    for text in merge:
        old, equals, new = text.partition("=")
        if not (old and equals and new) or "=" in new:
            raise UsageError(f"merge takes old=new, such as mild=ill, got {text!r}.")
        if old == new:
            raise UsageError(f"merge {text}: a class cannot be joined to itself.")
        if seen.setdefault(old, new) != new:
            raise UsageError(f"merge: {old!r} cannot count both as {seen[old]!r} and as {new!r}.")
    for old, new in seen.items():
        if new in seen:
            raise UsageError(
                f"merge {old}={new} and {new}={seen[new]} make a chain: write {old}={seen[new]} and {new}={seen[new]}."
            )
        for name in (old, new):
            if name in drop_class:
                raise UsageError(f"merge {old}={new} and drop_class {name} contradict each other: leave one out.")
    if positive and classes and (len(classes) != 2 or classes[-1] != positive):
        raise UsageError(
            f"positive {positive} and classes {' '.join(classes)} contradict each other: of two classes the last "
            "is the positive one. Give only one of these settings."
        )


def group_wishes(groups: Sequence[str]) -> list[tuple[str, tuple[float, ...]]]:
    """Columns that part images into subgroups, with the edges of bands: ``site,age=40,65`` is site, and age in three.

    Raises:
        UsageError: edges that are no numbers in ascending order, or a column twice.
    """
    if isinstance(groups, str):
        raise UsageError(f"groups takes a list, such as [{groups!r}], got {groups!r} alone.")
    wishes: list[tuple[str, tuple[float, ...]]] = []
    for text in groups:
        names, equals, told = text.partition("=")
        try:
            edges = tuple(float(edge) for edge in told.split(",")) if equals else ()
        except ValueError:
            edges = (float("nan"),)
        if any(not below < above for below, above in pairwise((float("-inf"), *edges, float("inf")))):
            raise UsageError(
                f"groups {text}: after = come the edges of bands, numbers in ascending order such as age=40,65; name other "
                "columns apart from it."
            )
        columns = [name.strip() for name in names.split(",")]
        if not all(columns):
            raise UsageError(f"groups {text!r} names no column: give names as site sex age, or site,sex,age.")
        wishes += [(name, edges if name is columns[-1] else ()) for name in columns]
    seen = [name.casefold() for name, _ in wishes]
    for name, _ in wishes:
        if seen.count(name.casefold()) > 1:
            raise UsageError(f"groups names the column {name!r} twice: leave one out.")
    return wishes


USUAL, NOTHING = "auto", ""
"""In what :func:`wanted_shares` gives: nothing was said; and the share for every class that is not named."""


def wanted_shares(name: str, given: Sequence[str]) -> dict[str, float | None]:
    """What is asked of thresholds: class to the wanted share, :data:`NOTHING` to that of all others.

    Args:
        name: of the setting, ``sensitivity`` or ``specificity``.
        given: each a share (``0.95``) or a class and a share (``melanoma=0.99``); or ``auto`` or ``none`` alone.

    Returns:
        ``{"auto": None}`` for ``auto``, and nothing for ``none`` and for nothing.

    Raises:
        UsageError: a share does not lie between 0 and 1, or two are given for one class.
    """
    if isinstance(given, str):
        raise UsageError(f"{name} takes a list, such as [{given!r}], got {given!r} alone.")
    given = [str(text) for text in given]
    if any(text in (USUAL, "none") for text in given):
        if len(given) > 1:
            raise UsageError(f"{name} {' '.join(given)}: {USUAL} and none stand alone.")
        return {USUAL: None} if given[0] == USUAL else {}
    found: dict[str, float | None] = {}
    for text in given:
        of, equals, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if not 0 < share < 1 or bool(equals) != bool(of):
            raise UsageError(f"{name} takes a share between 0 and 1, or class=share such as ill=0.95, got {text!r}.")
        if of in found:
            raise UsageError(f"{name} gives two shares for {of or 'every class'}: leave one out.")
        found[of] = share
    return found
