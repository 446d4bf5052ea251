"""A line of JSON on standard error for each request: what was asked of which route and how it ended.

No line holds a file's name, an address, a header, a word of a request or of an answer, nor the text of an exception, which
may quote any of them.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime


def write(event: str, **values: object) -> None:
    """One line: when, what, and the values that are not None."""
    told: dict[str, object] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
    told |= {key: value for key, value in values.items() if value is not None}
    with suppress(OSError, ValueError):  # nobody reads any more: the requests matter more
        sys.stderr.write(json.dumps(told) + "\n")
        sys.stderr.flush()


def write_failure(error: BaseException, **values: object) -> None:
    """An exception that is none of ours: its kind and where it was raised, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    write("failure", error=type(error).__name__, at=[f"{frame.filename}:{frame.lineno}" for frame in frames], **values)


class _Handler(logging.Handler):
    """What uvicorn and asyncio have to say. Their texts are fixed sentences; of exceptions no text is passed on."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            write_failure(error, by=record.name)
        else:
            write("server", by=record.name, level=record.levelname.lower(), text=str(record.msg).strip())


_TOLD = ("python_multipart", "pydicom")
"""Whose complaints are about requests: whoever asks is told them as refusals."""


class _NameAlone(logging.Handler):
    """What any other library has to say, whose text may quote a request: which one it was."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] not in _TOLD:
            write("server", by=record.name, level=record.levelname.lower())


def redirect() -> None:
    """From now on warnings and errors of libraries become lines of this log."""
    logging.getLogger().handlers = [_NameAlone(logging.WARNING)]
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], False
        logger.setLevel(logging.WARNING)
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addHandler(_Handler())
