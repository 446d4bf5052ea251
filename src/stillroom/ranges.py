"""What a number that somebody gives may be. Each raises :class:`UsageError` with the setting's name and the value."""

from __future__ import annotations

import math
from typing import Any

from stillroom.errors import UsageError

LARGEST_SIDE = 4096
"""Of a square image, in pixels; more is refused before memory is asked for."""
MOST_OFTEN = 10_000
"""How many views, trainings or layers anything may have."""
MOST = 2**31 - 1
"""The largest whole number where nothing smaller is said."""


def at_least(name: str, value: int, least: int, most: int = MOST) -> None:
    """A whole number, ``least <= value <= most``; neither a text nor yes or no."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UsageError(f"{name} must be a whole number, got {value!r}.")
    if value < least:
        raise UsageError(f"{name} must be at least {least}, got {_in_short(value)}.")
    if value > most:
        raise UsageError(f"{name} must be at most {most}, got {_in_short(value)}.")


def between(name: str, value: float, upper: float = 1.0) -> None:
    """``0 < value < upper``."""
    numeric(name, value)
    if not 0 < value < upper:
        raise UsageError(f"{name} must lie between 0 and {upper:g}, got {value}.")


def positive(name: str, value: float) -> None:
    """``0 < value < infinity``."""
    numeric(name, value)
    if not 0 < value < math.inf:
        raise UsageError(f"{name} must be above 0 and finite, got {value}.")


def not_negative(name: str, value: float) -> None:
    """``0 <= value < infinity``."""
    numeric(name, value)
    if not 0 <= value < math.inf:
        raise UsageError(f"{name} must be at least 0 and finite, got {value}.")


def share(name: str, value: float) -> None:
    """``0 <= value <= 1``."""
    numeric(name, value)
    if not 0 <= value <= 1:
        raise UsageError(f"{name} lies between 0 and 1, got {value}.")


def positive_share(name: str, value: float) -> None:
    """``0 < value <= 1``."""
    numeric(name, value)
    if not 0 < value <= 1:
        raise UsageError(f"{name} must be above 0 and at most 1, got {value}.")


def numeric(name: str, value: object) -> None:
    """Neither a text nor yes or no."""
    if isinstance(value, bool) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise UsageError(f"{name} must be a number, got {value!r}.")
    try:
        float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise UsageError(f"{name} must be a number that can be computed with, got {_in_short(value)}.") from None


def _in_short(value: Any) -> str:
    """Its digits, if they can be read: Python refuses to write thousands of them."""
    return str(value) if abs(value) < 10**30 else "a number of more than 30 digits"
