"""SHA-256 digests beside what is written, by which it is known again when it is opened.

A folder of the cache appears whole, and holds ``digests.json``: each file's digest and length. A run folder grows, and holds
``digests.jsonl``: a line is added, and on the disk, before a file takes its name, so that a kill between the two leaves the
old file known as well. A file is whole where any line for its name has its digest; a line without one says that the file was
removed. Where neither stands (folders of before),
nothing is known, and nothing is said; meta.json and manifest.json note that digests are kept, so that a lost list is missed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal

from stillroom.errors import UsageError
from stillroom.files.reading import read_json
from stillroom.progress import remark

LEDGER = "digests.jsonl"
"""In a run folder: one line per file that was written."""

LIST = "digests.json"
"""In a folder of the cache: what every other file in it is known by."""

META = "meta.json"
"""In a folder of the cache: what it holds."""

KEPT = "digests"
"""In meta.json and a run's manifest.json, where true: digests are kept here, so that their absence is damage."""

State = Literal["whole", "damaged", "no digest", "missing", "unreadable"]
"""How a file stands: as it was written; otherwise; written before digests were kept, or by others; gone; not to be opened."""

_UNKNOWN: State = "no digest"
_DAMAGED: State = "damaged"
_KNOWN: dict[tuple[Path, int, int, int, int], str] = {}
_SETTLED_S = 2.0
"""A file that was changed less than this ago may change again without its time telling: clocks of disks are coarse."""

_SIGNED = re.compile(r'(\{.+), "check": "([0-9a-f]{8})"\}')
_BEYOND = re.compile(rb'"check": "[^"]{8}"\}.')


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex, read in pieces; of a file that was not touched since, only once in a process."""
    found = path.stat()
    key = (path.absolute(), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    if (known := _KNOWN.get(key)) is not None:
        return known
    settled = time.time() - max(found.st_mtime, found.st_ctime) > _SETTLED_S
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if settled:
        _KNOWN[key] = digest
    return digest


# -- lines ----------------------------------------------------------------------------------------------------------
def signed(entry: dict[str, Any]) -> str:
    """A line of JSON that ends in a check of itself, the first 32 bits of its SHA-256. NaN is refused."""
    text = json.dumps(entry, allow_nan=False)
    return f'{text[:-1]}, "check": "{_check(text)}"}}'


@dataclass(frozen=True)
class Lines:
    """Lines of JSON as they were read.

    Attributes:
        entries: the good ones, in order, without their checks.
        damaged: numbers of the others, from 1. A last line that a kill cut short is none.
    """

    entries: list[dict[str, Any]]
    damaged: list[int]


def read_lines(path: Path, *, checked: bool | None = None) -> Lines:
    """The lines that :func:`signed` made; an absent file has none.

    Args:
        path: the file.
        checked: whether a line without a check is damaged. Default: where a ledger stands above the file, for before there
            were ledgers no line had one.
    """
    if not path.is_file():
        return Lines([], [])
    checked = ledger_above(path) is not None if checked is None else checked
    entries, damaged = [], []
    content = path.read_bytes()
    *lines, tail = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        entry = _entry(line, checked)
        if entry is None:
            damaged.append(number)
        else:
            entries.append(entry)
    if tail and (entry := _entry(tail, checked)) is not None:
        entries.append(entry)
    elif _BEYOND.search(tail):  # more than a line: its end was damaged, not cut
        damaged.append(len(lines) + 1)
    return Lines(entries, damaged)


def _entry(line: bytes, checked: bool) -> dict[str, Any] | None:
    text = line.decode(errors="replace")
    if found := _SIGNED.fullmatch(text):
        text = found[1] + "}"
        if _check(text) != found[2]:
            return None
    elif checked:
        return None
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _check(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


# -- folders that appear whole --------------------------------------------------------------------------------------
def seal(folder: Path) -> None:
    """Write the folder's ``digests.json``, of every file in it. Call it last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    known = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in files
    }
    (folder / LIST).write_text(signed(known) + "\n", encoding="utf-8")


def sealed_states(folder: Path) -> dict[str, State]:
    """How every file of a sealed folder stands, by name; all have no digest where it was never sealed.

    The list itself is missing where meta.json knows of one.
    """
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if LIST not in here:
        lost: dict[str, State] = {LIST: "missing"} if keeps_digests(folder / META) else {}
        return dict.fromkeys(sorted(here), _UNKNOWN) | lost
    lines = read_lines(folder / LIST, checked=True)
    if lines.damaged or len(lines.entries) != 1:
        return dict.fromkeys(sorted(here), _UNKNOWN) | {LIST: _DAMAGED}
    known = {name: line["sha256"] for name, line in lines.entries[0].items()}
    states: dict[str, State] = {LIST: "whole"}
    for name in sorted(here - {LIST} | known.keys()):
        if name not in here:
            states[name] = "missing"
        else:
            states[name] = "whole" if sha256_of(folder / name) == known.get(name) else "damaged"
    return states


def keeps_digests(note: Path) -> bool:
    """Whether a meta.json or manifest.json says that digests are kept beside it. One that cannot be read says nothing."""
    try:
        return read_json(note).get(KEPT) is True
    except (UsageError, FileNotFoundError):
        return False


def damage_in(folder: Path) -> str | None:
    """The name of a file of a sealed folder that is damaged or missing; None where there is none, or nothing is known."""
    if not folder.is_dir():
        return None
    return next((name for name, state in sealed_states(folder).items() if state in ("damaged", "missing")), None)


# -- folders that grow ----------------------------------------------------------------------------------------------
def begin_ledger(folder: Path) -> None:
    """Make the folder one whose files are known by their digests from now on. The folder must be there."""
    with (folder / LEDGER).open("ab") as file:
        os.fsync(file.fileno())


def ledger_above(path: Path) -> Path | None:
    """The ledger that the file belongs to: that of the nearest folder above which has one."""
    return next((ledger for folder in path.absolute().parents if (ledger := folder / LEDGER).is_file()), None)


def mend_ledger(folder: Path) -> None:
    """Take away the half of a line that a kill may have left at the ledger's end. Call it where nobody else writes.

    What the line told of never took its name. An end that is longer than a line was damaged otherwise, and stays.
    """
    ledger = folder / LEDGER
    if not ledger.is_file():
        return
    with ledger.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        tail = content[end:]
        if tail and _entry(tail, True) is None and not _BEYOND.search(tail):
            file.truncate(end)
            os.fsync(file.fileno())


def record(path: Path, content: Path | None = None) -> None:
    """Note in the ledger above, if there is one, what ``path`` holds from now on; on the disk when this returns.

    Args:
        path: the file's name to come. A hidden file is temporary, and not noted.
        content: a file with its content. Default: ``path``.
    """
    ledger = ledger_above(path)
    if ledger is None or path.name.startswith(".") or path.name == LEDGER:
        return
    content = content or path
    _add(ledger, path, sha256_of(content), content.stat().st_size)


def remove(path: Path) -> None:
    """Take away a file that its run no longer stands for, and note it in the ledger above, so that it is not missed.

    Where there is no such file nothing is done.
    """
    if not path.is_file():
        return
    if (ledger := ledger_above(path)) is not None:
        _add(ledger, path, None, 0)
    path.unlink()


def _add(ledger: Path, path: Path, sha256: str | None, size: int) -> None:
    name = path.absolute().relative_to(ledger.parent).as_posix()
    line = signed({"file": name, "sha256": sha256, "bytes": size}).encode()
    with ledger.open("ab+") as file:  # not cut to whole lines first: another process may be adding one
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        whole = file.read(1) in (b"", b"\n")
        file.write((b"" if whole else b"\n") + line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def names_in(ledger: Path) -> set[str]:
    """The files that a ledger names, but for those that were removed since; none where it is gone."""
    last = {str(line.get("file")): line.get("sha256") for line in read_lines(ledger, checked=True).entries}
    return {name for name, sha256 in last.items() if sha256 is not None}


def state_of(path: Path) -> State:
    """How a file of a run folder stands, by the ledger above it."""
    return _judged(path)[0]


def _judged(path: Path) -> tuple[State, Path | None, list[int]]:
    """The state, the ledger, and which of its lines are damaged."""
    ledger = ledger_above(path)
    if not path.is_file():
        return "missing", ledger, []
    if ledger is None:
        return "no digest", None, []
    name = path.absolute().relative_to(ledger.parent).as_posix()
    lines = read_lines(ledger, checked=True)
    known = {line["sha256"] for line in lines.entries if line.get("file") == name}
    if known and sha256_of(path) in known:
        return "whole", ledger, lines.damaged
    # A line that is damaged itself may have been this file's.
    return "damaged" if known and not lines.damaged else "no digest", ledger, lines.damaged


def require_whole(path: Path, remedy: str | Callable[[], str] = "put back a copy of it, or make the run again") -> None:
    """Check a file of a run folder by its digest before it is read. One without a digest, or that is not there, passes.

    Args:
        path: the file.
        remedy: what to do where it is damaged, without the full stop; or what says so, asked only then.

    Raises:
        UsageError: it is not as it was written.
    """
    state, ledger, damaged = _judged(path)
    if state == "damaged":
        todo = remedy if isinstance(remedy, str) else remedy()
        raise UsageError(f"{path} was changed or damaged after it was written: {todo}.")
    if damaged:
        remark(f"{ledger} is damaged in line {damaged[0]}: a file that is named there cannot be checked by it.")


def say_if_changed(path: Path) -> None:
    """Say in a line that a file which people may edit, such as settings.yaml, is not as it was written."""
    if state_of(path) == "damaged":
        remark(f"{path} was changed after it was written: it is read as it stands now.")


def stands(path: Path) -> bool:
    """Whether a file that can be made again is there and whole. One that is damaged counts as absent, which is said."""
    state = state_of(path)
    if state == "damaged":
        remark(f"{path} was changed or damaged after it was written: it is made again.")
    return state in ("whole", "no digest")


def ledger_states(folder: Path) -> Iterator[tuple[str, State]]:
    """How every file below a folder with a ledger stands, by name, and those that are gone; hidden files are passed over.

    Of ``digests.jsonl`` and other files of signed lines, the lines are checked.
    """
    here = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    ledger = folder / LEDGER
    for name in sorted(here | names_in(ledger)):
        path = folder / name
        lines = path.suffix == ".jsonl" and name in here
        try:
            state = _state_of_lines(path, has_ledger=ledger.is_file()) if lines else state_of(path)
        except OSError:  # no right to read it, or a disk that fails
            state = "unreadable"
        yield name, state


def _state_of_lines(path: Path, *, has_ledger: bool) -> State:
    if read_lines(path).damaged:
        return "damaged"
    return "whole" if has_ledger else "no digest"
