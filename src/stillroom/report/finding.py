"""One line of the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "neutral", "bad"]


@dataclass(frozen=True)
class Finding:
    """What was found, and the evidence for it.

    Attributes:
        tone: whether it speaks for the network, against it, or neither.
        headline: a sentence.
        evidence: the figures behind it, in sentences.
        of_student: True where it tells of the student alone, which need not be what the run hands over.
    """

    tone: Tone
    headline: str
    evidence: str
    of_student: bool = False
