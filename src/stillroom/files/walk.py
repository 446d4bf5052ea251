"""Walking folders that others filled: what systems leave in them is passed over, and no link leads in a circle.

Every walk over a user's images is one of these, so that a kept list of names holds at every depth.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from stillroom.errors import UsageError

LEFT_BEHIND = (
    # network stores: thumbnails, indices, deleted files and older states of the same folder
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "@sharesnap", "@snapshot", "@database"),
    *("@transcode", "@qphoto", "@s2s", "#recycle", "#snapshot", "~snapshot", "syno*_thumb_*", "synoindex_media_info"),
    # Windows
    *("$recycle.bin", "recycler", "system volume information", "found.[0-9][0-9][0-9]", "thumbs.db", "ehthumbs*.db"),
    *("desktop.ini", "picasa.ini", "~$*"),
    # macOS, as it writes to foreign disks and into archives
    *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder", "icon\r"),
    # Unix and programs
    *("lost+found", "aquota.user", "aquota.group", "__pycache__"),
)
"""Patterns, in lower case, of what systems and programs leave in folders of images.

Names with a leading dot go without saying: ``.git``, ``.ipynb_checkpoints``, ``.Trashes``, ``.@__thumb``, ``._scan.png``...
"""

AS_WRITTEN = frozenset({"Thumbs", "thumbnails", "_vti_cnf", "CVS", "node_modules"})
"""Folders of programs by their whole names in the case that these write: a class may be called ``thumbs`` or ``cvs``."""


@dataclass(frozen=True)
class Listing:
    """What is in a folder, in natural order.

    Attributes:
        folders: the folders directly inside it; of a whole walk, all of them.
        files: whatever is no folder, pipes and broken links among them. Their names are valid text.
        left_behind: folders of a system that were not entered, but for hidden ones.
        circular: links to a folder that they stand in, directly or not: following one would never end.
    """

    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    left_behind: tuple[Path, ...] = ()
    circular: tuple[Path, ...] = ()


def is_left_behind(name: str) -> bool:
    """Whether a file or folder of this name is a system's or a program's: hidden, or in one of the two lists above."""
    lower = name.lower()
    return name.startswith(".") or name in AS_WRITTEN or any(fnmatchcase(lower, pattern) for pattern in LEFT_BEHIND)


def look_into(folder: Path) -> Listing:
    """What is directly inside a folder. Links count as what they lead to.

    Raises:
        UsageError: the folder cannot be read, or a name in it is not valid UTF-8, so that no table or report could name it.
    """
    here = os.path.realpath(folder)
    folders, files, left_behind, circular = [], [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path, is_folder = folder / entry.name, _is_folder(entry)
                if is_left_behind(entry.name):
                    if is_folder and not entry.name.startswith("."):
                        left_behind.append(path)
                elif not is_folder:
                    files.append(path)
                elif entry.is_symlink() and Path(here).is_relative_to(os.path.realpath(path)):
                    circular.append(path)
                else:
                    folders.append(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"The folder {folder} cannot be read ({reason}): make it readable, or move it away.") from None
    for path in (*folders, *files):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise UsageError(_why_no_name(path)) from None
    found = (sorted(kind, key=lambda path: natural_key(path.name)) for kind in (folders, files, left_behind, circular))
    return Listing(*map(tuple, found))


def _why_no_name(path: Path) -> str:
    """Of a path that cannot be written as text."""
    try:
        name = os.fsencode(path).decode()
    except ValueError:
        return f"The name {str(path)!a} is not valid UTF-8; rename it."
    return f"The name {name} cannot be read: {told_otherwise()}."


def told_otherwise() -> str:
    """What to do where this Python was told to read names of files in another encoding than UTF-8, as ``PYTHONUTF8=0`` and
    ``LC_ALL=C`` together do; empty where it was not."""
    encoding = sys.getfilesystemencoding().upper()
    return (
        ""
        if encoding == "UTF-8"
        else f"this Python was told to take names of files for {encoding}, so set PYTHONUTF8=1"
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def walk(folder: Path) -> Listing:
    """What is in a folder, however deep. A folder that several links lead to is entered once, by its own name if it has one.

    Raises:
        UsageError: see :func:`look_into`.
    """
    levels = list(_levels(folder))

    def joined(kind: str) -> tuple[Path, ...]:
        found = [path for level in levels for path in getattr(level, kind)]
        return tuple(sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix())))

    return Listing(joined("folders"), joined("files"), joined("left_behind"), joined("circular"))


def _levels(top: Path) -> Iterator[Listing]:
    """Folders first, then what links lead to, each once."""
    own, linked = [top], list[Path]()
    seen: set[str] = set()
    while own or linked:
        folder = own.pop() if own else linked.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        level = look_into(folder)
        yield level
        for inner in level.folders:
            (linked if inner.is_symlink() else own).append(inner)


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Sorting key under which numbers inside names count as numbers and case does not matter."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], text


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def not_a_file(path: Path) -> str | None:
    """What a path leads to where that is no file, such as ``a named pipe``: opening one may wait for ever.

    None for a file, and where nothing is there. Ask before opening what a user named.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no file")


def why_no_file(path: Path) -> str:
    """Of a path that is no file: ``does not exist``, or ``is a named pipe, not a file``."""
    kind = not_a_file(path)
    return f"is {kind}, not a file" if kind else "does not exist"
