"""What a number that somebody gives may be. Each raises :class:`UsageError` with the setting's name and the value."""

from __future__ import annotations

import math

from stillroom.errors import UsageError


def at_least(name: str, value: int, least: int) -> None:
    """``value >= least``."""
    if value < least:
        raise UsageError(f"{name} must be at least {least}, got {value}.")


def between(name: str, value: float, upper: float = 1.0) -> None:
    """``0 < value < upper``."""
    if not 0 < value < upper:
        raise UsageError(f"{name} must lie between 0 and {upper:g}, got {value}.")


def positive(name: str, value: float) -> None:
    """``0 < value < infinity``."""
    if not 0 < value < math.inf:
        raise UsageError(f"{name} must be above 0 and finite, got {value}.")


def not_negative(name: str, value: float) -> None:
    """``0 <= value < infinity``."""
    if not 0 <= value < math.inf:
        raise UsageError(f"{name} must be at least 0 and finite, got {value}.")


def share(name: str, value: float) -> None:
    """``0 <= value <= 1``."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name} lies between 0 and 1, got {value}.")


def positive_share(name: str, value: float) -> None:
    """``0 < value <= 1``."""
    if not 0 < value <= 1:
        raise UsageError(f"{name} must be above 0 and at most 1, got {value}.")
