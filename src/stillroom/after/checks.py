"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["well", "note", "wrong"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        part: what it belongs to, for people: "installation", "cache", "weights" or the run's folder.
        state: ``well``; ``note`` where nothing is broken but one should know; ``wrong``.
        text: what was found, a sentence.
        advice: what to do; empty where there is nothing to do.
    """

    part: str
    state: State
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values, ready for JSON."""
        return asdict(self)


def in_a_line(error: BaseException) -> str:
    """An exception's kind and text."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
