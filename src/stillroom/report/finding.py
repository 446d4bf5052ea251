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
        aside: True where it tells of a network that is not handed over, and so neither for nor against what is.
    """

    tone: Tone
    headline: str
    evidence: str
    aside: bool = False
