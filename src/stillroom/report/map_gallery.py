"""Heat maps as small pictures, side by side: the image, on it the map of the network explained, and another's beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.evaluation.roles import CONTROL, STUDENT, TEACHER, noun
from stillroom.explanation.overlay import overlay
from stillroom.report.gallery import SIDE, as_pixels, encoded
from stillroom.report.numbers import MISSING, fixed
from stillroom.report.record import Predictions, Record, heat_maps, title

MAX_SHOWN = 12
_LARGEST = 240  # pixels a side: three pictures stand where another gallery has one
_INSIDE, _OUTSIDE = (0, 229, 255), (0, 0, 0)  # a bright line with a dark one around it shows on any grey


@dataclass(frozen=True)
class Picture:
    """One picture of an image.

    Attributes:
        heading: what it shows, in a word or two.
        source: it, as a data URI.
        small: True where it has fewer pixels than it is shown with.
    """

    heading: str
    source: str
    small: bool


@dataclass(frozen=True)
class Answer:
    """What a network itself says of an image.

    Attributes:
        heading: the network.
        named: the number of its class; for multi-label, of the label explained.
        said: that class with its probability; for multi-label, the decision on it too.
        wrong: whether that is wrong.
    """

    heading: str
    named: int
    said: str
    wrong: bool


@dataclass(frozen=True)
class Mapped:
    """An image with its maps.

    Attributes:
        name: the image's id.
        pictures: the image, its marked region outlined where there is one; the map of the network explained; another's.
        truth: the true class; for multi-label, whether the label explained is truly there.
        answers: that network's first, then those of the others.
        explained: the class that the maps speak for, where it is not what every answer names; else empty.
        agreement: correlation of the two maps; None where there is one map only.
        lesion: whether a marked region is outlined.
    """

    name: str
    pictures: list[Picture]
    truth: str
    answers: list[Answer]
    explained: str
    agreement: str | None
    lesion: bool


@dataclass(frozen=True)
class MapGallery:
    """The images on show.

    Attributes:
        items: at most :data:`MAX_SHOWN`.
        total: how many images have maps.
        other: the network whose map stands beside that of the network explained, as in "the teacher", or None.
    """

    items: list[Mapped]
    total: int
    other: str | None

    @property
    def lesions(self) -> bool:
        """Whether any image has its marked region outlined."""
        return any(item.lesion for item in self.items)


def map_gallery(record: Record) -> MapGallery | None:
    """Those first whose map, of the network explained, agrees least with another's; without another wrong answers first.

    The other is the student, where it is not the one explained, else the teacher or the control. A flat map agrees with none
    and has no correlation; it comes last. None where the run keeps no maps.
    """
    arrays, predictions, first = heat_maps(record), record.predictions, record.explained
    if not arrays or predictions is None or first not in predictions.probabilities:
        return None
    rows, classes = arrays["index"], arrays["classes"]
    beside = [role for role in (STUDENT, TEACHER, CONTROL) if role != first]
    other = next((role for role in beside if f"map_{role}" in arrays), None)
    asked = [role for role in beside if role in predictions.probabilities]
    answering = [first, *([other] if other in asked else asked[:1])]
    answers = [
        [_answer(record, predictions, role, int(row), int(explained)) for role in answering]
        for row, explained in zip(rows, classes, strict=True)
    ]
    if other is None:
        agreement = None
        right = [not given[0].wrong for given in answers]
        order = np.lexsort((-predictions.probabilities[first][rows, classes], right))
    else:
        agreement = correlations(arrays[f"map_{first}"], arrays[f"map_{other}"])
        order = np.argsort(agreement, kind="stable")
    pictured = [first, *([other] if other else [])]
    items = [
        _mapped(record, predictions, arrays, place, pictured, answers[place], agreement)
        for place in map(int, order[:MAX_SHOWN])
    ]
    return MapGallery(items, len(rows), noun(other) if other else None)


def _answer(record: Record, predictions: Predictions, role: str, row: int, explained: int) -> Answer:
    """What a network says of the image of a row; of several labels, what it says of the one explained."""
    task, probabilities = record.task, predictions.probabilities[role][row]
    decided = task.one_hot(task.decide(probabilities[None]))[0]
    truth = task.one_hot(predictions.targets[row : row + 1])[0]
    named = int(decided.argmax()) if task.exclusive else explained
    said = f"{task.classes[named]} {fixed(probabilities[named], 2)}"
    if not task.exclusive:
        said += f": {'present' if decided[named] else 'absent'}"
    return Answer(title(role), named, said, bool(decided[named] != truth[named]))


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation over pixels of two maps per image, ``[n, S, S]`` each, to ``[n]``; NaN where either is flat."""
    found = np.full(len(first), np.nan)
    for place, pair in enumerate(zip(first, second, strict=True)):
        one, two = (heat.astype(np.float64) for heat in pair)
        if np.ptp(one) > 0 and np.ptp(two) > 0:
            found[place] = np.corrcoef(one.ravel(), two.ravel())[0, 1]
    return found


def _mapped(
    record: Record,
    predictions: Predictions,
    arrays: dict[str, np.ndarray],
    place: int,
    pictured: list[str],
    answers: list[Answer],
    agreement: np.ndarray | None,
) -> Mapped:
    row, explained, classes = int(arrays["index"][place]), int(arrays["classes"][place]), record.task.classes
    pixels = as_pixels(arrays["images"][place])
    mask = arrays["masks"][place] if "masks" in arrays else np.zeros(pixels.shape[:2], dtype=bool)
    heats = {role: _mapped_on(pixels, arrays[f"map_{role}"][place].astype(np.float64)) for role in pictured}
    shown = {"Image": outlined(pixels, mask) if mask.any() else pixels} | {
        title(role): heat for role, heat in heats.items()
    }
    truth = record.task.one_hot(predictions.targets[row : row + 1])[0].astype(bool)
    if record.task.exclusive:
        true_text = classes[int(truth.argmax())]
    else:
        true_text = f"{classes[explained]}: {'present' if truth[explained] else 'absent'}"
    return Mapped(
        name=str(predictions.ids[row]),
        pictures=[Picture(heading, *encoded(drawn, _LARGEST)) for heading, drawn in shown.items()],
        truth=true_text,
        answers=answers,
        explained="" if all(answer.named == explained for answer in answers) else classes[explained],
        agreement=None if agreement is None else _agreement(agreement[place]),
        lesion=bool(mask.any()),
    )


def _agreement(value: float) -> str:
    return f"{MISSING} (a map is flat)" if np.isnan(value) else fixed(float(value), 2)


def _mapped_on(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The overlay, of an image that is small enlarged first, so that its lines are fine."""
    from scipy.ndimage import zoom

    factor = -(-SIDE // max(heat.shape))
    smooth = np.clip(zoom(heat, factor, order=1, mode="nearest", grid_mode=True), 0, 1)
    return np.asarray(overlay(_enlarged(pixels, factor), smooth))


def _enlarged(array: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel of ``[H, W, ...]`` as a square of ``factor`` by ``factor``."""
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def outlined(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image in colour with the border of ``[H, W]`` bool ``mask`` drawn on it, enlarged where it is small."""
    from scipy.ndimage import binary_dilation, binary_erosion

    factor = -(-SIDE // max(mask.shape))
    pixels, mask = _enlarged(pixels, factor), _enlarged(mask, factor)
    drawn = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels.copy()
    width = max(1, round(max(mask.shape) / SIDE))
    drawn[binary_dilation(mask, iterations=width) & ~mask] = _OUTSIDE
    drawn[mask & ~binary_erosion(mask, iterations=width)] = _INSIDE
    return drawn
