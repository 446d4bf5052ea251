"""Errors meant for people: each message says what was wrong, where, and what to do about it."""


class StillroomError(Exception):
    """Base of every error that Stillroom raises on purpose. The command line prints it as one line, no traceback."""

    exit_code = 1


class UsageError(StillroomError):
    """What was asked for cannot be done as asked: a setting, a path, a file or a data set is wrong. Exit code 2."""

    exit_code = 2


class NotInstalled(UsageError, ImportError):
    """What was asked for needs packages that the plain install leaves out; the message names the extra that brings them."""


class RunError(StillroomError):
    """The request was fine but the run failed: a full disk, an export that does not match, a diverged loss. Exit code 1."""

    exit_code = 1


class PartlyDone(StillroomError):
    """Some of what was asked for could not be done, such as an image that cannot be read; the rest was. Exit code 3."""

    exit_code = 3


class StorageError(RunError):
    """Something could not be written. What is written already is whole: with room made, the run can go on."""


def nearest(name: str, known: list[str] | tuple[str, ...], count: int = 3) -> str:
    """A hint such as ``Did you mean resnet18, resnet34?`` for a mistyped name; empty when nothing is close."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=count, cutoff=0.6)
    return f" Did you mean {', '.join(close)}?" if close else ""
