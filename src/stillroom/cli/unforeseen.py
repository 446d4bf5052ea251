"""What nobody foresaw: one line for people, and the traceback in a file that the line names."""

from __future__ import annotations

import shlex
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

LOG = "errors.log"
"""Where tracebacks are written down: in the run folder that was named, else in the cache, else among temporary files."""
_READS_ALONE = ("serve",)
"""Verbs that write nothing into a run."""

_MOST = 300
"""Characters of an error's own text on the line; all of it stands in the log."""


def unforeseen(error: Exception, arguments: Sequence[str]) -> str:
    """The line that is shown for an exception that is none of ours; the traceback is written down. Never raises.

    Args:
        error: what ended the command.
        arguments: the command line's, which may name a run folder.
    """
    file = _write_down(error, arguments)
    where = f"The traceback stands in {file}." if file else "The traceback could be written nowhere."
    reason = _reason(error)
    reason = reason if reason.endswith("...") else reason.rstrip(".") + "."
    if isinstance(error, OSError | MemoryError):
        return f"{reason} {where}"
    return f"Something went wrong that Stillroom has no words for: {reason} {where} Please report it with that file."


def _reason(error: Exception) -> str:
    with suppress(Exception):  # an exception's own text may fail
        if isinstance(error, MemoryError):
            return "The memory is full. Lower --batch-size or --size, or close other programs"
        if isinstance(error, OSError) and error.strerror:
            return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
        text = " ".join(str(error).split())
        text = text if len(text) <= _MOST else f"{text[:_MOST]} ..."
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return type(error).__name__


def _write_down(error: Exception, arguments: Sequence[str]) -> Path | None:
    """Append the traceback to the first log that takes it."""
    with suppress(Exception):
        from importlib import metadata  # takes a while to load, and is wanted once in a blue moon

        head = f"{datetime.now(UTC).isoformat(timespec='seconds')} stillroom {metadata.version('stillroom')}"
        text = f"{head}: {shlex.join(arguments)}\n{''.join(traceback.format_exception(error))}\n"
        for folder in (*_run_folders(arguments), _cache(), Path(tempfile.gettempdir())):
            with suppress(Exception):
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / LOG).open("a", encoding="utf-8", errors="backslashreplace") as log:
                    log.write(text)
                return folder / LOG
    return None


def _run_folders(arguments: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    if arguments[:1] and arguments[0] in _READS_ALONE:
        return found
    for argument in arguments:
        with suppress(OSError, ValueError):  # a name that is too long, or holds what no name may hold
            folder = Path(argument.partition("=")[2] if argument.startswith("--") else argument)
            if (folder / "manifest.json").is_file() and (folder / "settings.yaml").is_file():
                found.append(folder)
    return found


def _cache() -> Path:
    from stillroom.files.cache import cache_root

    try:
        return cache_root()
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir())
