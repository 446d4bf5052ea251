"""Images that are named one by one or by a folder, without labels: a picture is a file, or a frame of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stillroom.data.dicom.opening import count_frames
from stillroom.data.listing import PICTURE_EXTENSIONS


@dataclass(frozen=True)
class Picture:
    """An image in a file.

    Attributes:
        path: the file.
        frame: which of a DICOM file's frames, from 0.
        frames: how many there are.
    """

    path: Path
    frame: int = 0
    frames: int = 1

    @property
    def number(self) -> int | None:
        """Which frame, from 1; None where there is but one."""
        return self.frame + 1 if self.frames > 1 else None

    @property
    def end(self) -> str:
        """What tells the frames of a file apart in their names: ``#1``, or nothing."""
        return f"#{self.number}" if self.number else ""

    def __str__(self) -> str:
        return f"{self.path}{self.end}"


def pictures_in(paths: Iterable[Path]) -> list[Picture]:
    """All images of these files, in order: of a DICOM file of several frames each frame is one."""
    found = []
    for path in paths:
        frames = 1 if path.suffix.lower() in PICTURE_EXTENSIONS else count_frames(path)
        found += [Picture(path, frame, frames) for frame in range(frames)]
    return found
