"""One line of the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "neutral", "bad"]


@dataclass(frozen=True)
class Finding:
    """What was found, and the evidence for it."""

    tone: Tone
    headline: str
    evidence: str
