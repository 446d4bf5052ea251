"""The student's worst mistakes as small pictures: what was true, what it said, what the teacher said."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from stillroom.report.numbers import count, fixed
from stillroom.report.record import Predictions, Record

SIDE = 160
MAX_PICTURES = 24


@dataclass(frozen=True)
class Mistake:
    """One picture.

    Attributes:
        picture: the image as a data URI.
        name: the image's id.
        truth: its true class; for multi-label, whether the label below is truly there.
        said: what the student said, with its probability of that.
        teacher: what the teacher said, in brackets its probability of what the student said; empty without one.
        small: True where the picture has fewer pixels than it is shown with.
        left_out: in words, how many more were answered wrongly of the same patient, or of unknown patients, picture.
    """

    picture: str
    name: str
    truth: str
    said: str
    teacher: str
    small: bool
    left_out: str


def mistakes(record: Record) -> list[Mistake]:
    """The gallery of a run, the surest wrong answer first; empty without one."""
    if record.predictions is None or "student" not in record.predictions.probabilities:
        return []
    if "images" not in record.gallery:
        return []
    predictions, rows = record.predictions, record.gallery["index"]
    sure = record.task.surely_wrong(predictions.probabilities["student"][rows], predictions.targets[rows])
    more = record.gallery.get("left_out", np.zeros(len(rows), np.int64))
    return [
        _mistake(record, predictions, record.gallery["images"][place], int(rows[place]), int(more[place]))
        for place in np.argsort(-sure, kind="stable")[:MAX_PICTURES]
    ]


def _mistake(record: Record, predictions: Predictions, image: np.ndarray, row: int, more: int) -> Mistake:
    classes = record.task.classes
    student = predictions.probabilities["student"][row]
    teacher = predictions.probabilities.get("teacher")
    truth = record.task.one_hot(predictions.targets[row : row + 1])[0].astype(bool)
    if record.task.exclusive:
        worst = int(record.task.decide(student[None])[0])
        true_text = classes[int(truth.argmax())]
    else:
        worst = int(np.abs(student - truth).argmax())
        true_text = f"{classes[worst]}: {'present' if truth[worst] else 'absent'}"
    said = f"{classes[worst]} {fixed(student[worst], 2)}"
    teacher_text = "" if teacher is None else f"{classes[worst]} {fixed(teacher[row, worst], 2)}"
    if teacher is not None and record.task.exclusive and (choice := int(teacher[row].argmax())) != worst:
        other = f" ({teacher_text})" if len(classes) > 2 else ""
        teacher_text = f"{classes[choice]} {fixed(teacher[row, choice], 2)}{other}"
    picture, small = encoded(as_pixels(image))
    left_out = _left_out(more, predictions.patients[row])
    return Mistake(picture, str(predictions.ids[row]), true_text, said, teacher_text, small, left_out)


def _left_out(more: int, patient: str) -> str:
    of = "this patient" if patient else "nearly the same picture"
    return f"{count(more)} more of {of}, left out" if more else ""


def as_pixels(image: np.ndarray) -> np.ndarray:
    """``[C, H, W]`` to ``[H, W]`` of a grey image, or ``[H, W, 3]``."""
    return np.ascontiguousarray(image[:3].transpose(1, 2, 0) if len(image) >= 3 else image[0])


def encoded(pixels: np.ndarray, largest: int = 2 * SIDE) -> tuple[str, bool]:
    """``[H, W]`` or ``[H, W, 3]`` uint8 as a data URI, and whether it has fewer pixels than it is shown with.

    Small ones are exact, as PNG; larger ones are reduced to ``largest`` pixels a side, as JPEG.
    """
    from PIL import Image

    drawn = Image.fromarray(pixels)
    small = max(drawn.size) <= SIDE // 2
    buffer = io.BytesIO()
    if small:
        drawn.save(buffer, "PNG", optimize=True)
    else:
        drawn.thumbnail((largest, largest))
        drawn.save(buffer, "JPEG", quality=85)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}", small
