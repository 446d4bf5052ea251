"""What the model says of one image, in values and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.evaluation.operating_points import surely

FOREIGN = "not this kind of image"
"""What is answered of an image that the model was not made for."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        path: the file, or None for an array.
        decision: names of the classes decided for: one, or with multi-label any number. Empty on an error.
        probabilities: calibrated probability of every class, in the classes' order. Empty on an error.
        possible: names of the classes that cannot be ruled out at the coverage that the model promises: more than one where
            it is unsure. With multi-label, the labels that may be present. None where the model was given no such rule.
        unsure: with multi-label, the labels that may be present or absent.
        foreign: whether the image is unlike those that the model was made for; None where the model has no such rule.
            Where True, neither the decision nor the probabilities should be used.
        foreign_score: how unlike, in spreads above the median of the validation images.
        flagged: by operating point, such as ``malignant at sensitivity 0.95``, whether the probability reaches its threshold.
            Empty where the model has none, and of a foreign image, whose probabilities should not be used.
        promised: by the same names, the sensitivity (or specificity) that is surely reached: what the name says, or less
            where there were too few validation images.
        note: what was done to the image that one should know: a handful of pixels brighter than white is shown as white,
            or DICOM is shown otherwise than the training images were.
        error: why the image could not be read; None where all went well.
        frame: which frame of a DICOM file of several, from 1; None where the file is one image.
    """

    path: Path | None
    decision: tuple[str, ...] = ()
    probabilities: dict[str, float] = field(default_factory=dict)
    possible: tuple[str, ...] | None = None
    unsure: tuple[str, ...] = ()
    foreign: bool | None = None
    foreign_score: float | None = None
    flagged: dict[str, bool] = field(default_factory=dict)
    promised: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    error: str | None = None
    frame: int | None = None

    @property
    def name(self) -> str:
        """The file, and of several frames which; empty for an array."""
        return "" if self.path is None else f"{self.path}#{self.frame}" if self.frame else str(self.path)

    @property
    def answer(self) -> str | None:
        """The answer in words: one class, several of them, or a refusal. None on an error."""
        if self.error is not None:
            return None
        if self.foreign:
            return FOREIGN
        sure = [name for name in self.decision if name not in self.unsure]
        if self.possible is None:
            sure = list(self.decision)
        elif not self.unsure and len(self.possible) > 1 and len(self.decision) == 1:
            several = len(self.possible) == len(self.probabilities) > 2
            return f"any of the {len(self.possible)} classes" if several else " or ".join(self.possible)
        words = [*sure, *(f"perhaps {name}" for name in self.unsure)]
        return ", ".join(words) or "no finding"

    @property
    def flags(self) -> str:
        """What the image is flagged for, in words; empty for nothing.

        Such as ``flagged at a threshold for sensitivity 0.95: effusion, mass``; where less is surely reached, it says so:
        ``flagged at a threshold for sensitivity 0.95 (surely reached: 0.90): effusion``.
        """
        reached: dict[str, list[str]] = {}
        for name, on in self.flagged.items():
            of, _, wanted = name.rpartition(" at ")
            if on:
                reached.setdefault(f"{wanted}{self._less(name, wanted)}", []).append(of)
        return "; ".join(
            f"flagged at a threshold for {wanted}: {', '.join(names)}" for wanted, names in reached.items()
        )

    def _less(self, point: str, wanted: str) -> str:
        """What a point surely reaches, where that is less than its name says."""
        share = self.promised.get(point)
        short = share is not None and share < float(wanted.rpartition(" ")[2]) - 1e-9
        return f" (surely reached: {surely(share)})" if short and share is not None else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "path": None if self.path is None else str(self.path),
            "frame": self.frame,
            "answer": self.answer,
            "decision": list(self.decision),
            "probabilities": self.probabilities,
            "possible": None if self.possible is None else list(self.possible),
            "unsure": list(self.unsure),
            "foreign": self.foreign,
            "foreign_score": self.foreign_score,
            "flagged": self.flagged,
            "promised": self.promised,
            "note": self.note,
            "error": self.error,
        }
