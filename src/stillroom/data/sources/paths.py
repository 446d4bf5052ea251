"""The files that a table names: found though the name is composed otherwise, and counted where they do not exist."""

from __future__ import annotations

# os.path answers False for a name that no file can have, where pathlib raises.
# ruff: noqa: PTH100, PTH110, PTH113, PTH118, PTH122, PTH208
import os
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

from stillroom.data.spelling import tidy

Finder = Callable[[str], Path]


def file_finder(folder: Path) -> Finder:
    """What gives the file that a cell names, relative to ``folder`` or absolute; as named where there is no such file.

    A name in another Unicode form than the file's, with another kind of space, or with Windows' separators is found too, as
    long as just one file may be meant.
    """

    @cache
    def names_in(place: str) -> dict[str, list[str]]:
        names: dict[str, list[str]] = defaultdict(list)
        try:
            for name in os.listdir(place):
                names[tidy(name)].append(name)
        except OSError:
            pass  # what cannot be looked into holds nothing to be found
        return names

    def actual(named: str) -> str | None:
        place, *parts = Path(named).parts
        for name in parts:
            below = os.path.join(place, name)
            if not os.path.exists(below):
                alike = names_in(place).get(tidy(name), [])
                if len(alike) != 1:
                    return None
                below = os.path.join(place, alike[0])
            place = below
        return place

    def find(cell: str) -> Path:
        named = os.path.abspath(os.path.join(folder, cell))  # resolve() would follow links
        if os.path.exists(named):
            return Path(named)
        if os.sep == "/":  # a table written on Windows
            named = os.path.abspath(os.path.join(folder, cell.replace("\\", "/")))
        return Path(actual(named) or named)

    return find


def ending_hint(path: Path) -> str:
    """Of a path that leads nowhere: the file beside it that has the same name and an ending, in brackets; or nothing."""
    try:
        names = [name for name in sorted(os.listdir(path.parent)) if os.path.splitext(name)[0] == path.name]
    except (OSError, ValueError):
        return ""
    return f" (there is {path.parent / names[0]}: names need their endings)" if names else ""


def is_file(path: Path) -> bool:
    """Whether there is such a file; False too for a name that no file can have."""
    return os.path.isfile(path)
