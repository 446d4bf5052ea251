"""Heat maps as small pictures, side by side: the image, the student's map on it, and the teacher's or the control's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
class Mapped:
    """An image with its maps.

    Attributes:
        name: the image's id.
        pictures: the image (with its marked region outlined, where there is one), the student's map, another network's.
        truth: the true class; for multi-label, whether the label explained is truly there.
        said: the class explained with the student's probability.
        wrong: whether the student is wrong about it.
        others: heading and probability of the same class, of the teacher or else of the control.
        agreement: correlation of the two maps; None where there is one map only.
        lesion: whether a marked region is outlined.
    """

    name: str
    pictures: list[Picture]
    truth: str
    said: str
    wrong: bool
    others: list[tuple[str, str]]
    agreement: str | None
    lesion: bool


@dataclass(frozen=True)
class MapGallery:
    """The images on show.

    Attributes:
        items: at most :data:`MAX_SHOWN`.
        total: how many images have maps.
        other: the role whose map stands beside the student's, or None.
    """

    items: list[Mapped]
    total: int
    other: str | None

    @property
    def lesions(self) -> bool:
        """Whether any image has its marked region outlined."""
        return any(item.lesion for item in self.items)


def map_gallery(record: Record) -> MapGallery | None:
    """Those first whose maps agree least with the teacher's, or else the control's; without either wrong answers first.

    A flat map agrees with none and has no correlation; it comes last. None where the run keeps no maps.
    """
    arrays, predictions = heat_maps(record), record.predictions
    if not arrays or predictions is None or "student" not in predictions.probabilities:
        return None
    rows, classes = arrays["index"], arrays["classes"]
    probabilities = predictions.probabilities["student"][rows]
    own = np.arange(len(rows)), classes
    truth = record.task.one_hot(predictions.targets[rows])
    wrong = record.task.one_hot(record.task.decide(probabilities))[own] != truth[own]
    other = next((role for role in ("teacher", "control") if f"map_{role}" in arrays), None)
    if other is None:
        agreement = None
        order = np.lexsort((-probabilities[own], ~wrong))
    else:
        agreement = correlations(arrays["map_student"], arrays[f"map_{other}"])
        order = np.argsort(agreement, kind="stable")
    items = [
        _mapped(record, predictions, arrays, int(place), other, bool(wrong[place]), agreement)
        for place in order[:MAX_SHOWN]
    ]
    return MapGallery(items, len(rows), other)


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
    other: str | None,
    wrong: bool,
    agreement: np.ndarray | None,
) -> Mapped:
    row, explained, classes = int(arrays["index"][place]), int(arrays["classes"][place]), record.task.classes
    pixels = as_pixels(arrays["images"][place])
    mask = arrays["masks"][place] if "masks" in arrays else np.zeros(pixels.shape[:2], dtype=bool)
    roles = ["student", *([other] if other else [])]
    heats = {role: _mapped_on(pixels, arrays[f"map_{role}"][place].astype(np.float64)) for role in roles}
    shown = {"Image": outlined(pixels, mask) if mask.any() else pixels} | {
        title(role): heat for role, heat in heats.items()
    }
    truth = record.task.one_hot(predictions.targets[row : row + 1])[0].astype(bool)
    if record.task.exclusive:
        true_text = classes[int(truth.argmax())]
    else:
        true_text = f"{classes[explained]}: {'present' if truth[explained] else 'absent'}"
    said = {
        role: f"{classes[explained]} {fixed(predictions.probabilities[role][row, explained], 2)}"
        for role in ("student", "teacher", "control")
        if role in predictions.probabilities
    }
    asked = next((role for role in ("teacher", "control") if role in said), None)
    return Mapped(
        name=str(predictions.ids[row]),
        pictures=[Picture(heading, *encoded(drawn, _LARGEST)) for heading, drawn in shown.items()],
        truth=true_text,
        said=said["student"],
        wrong=wrong,
        others=[(title(asked), said[asked])] if asked else [],
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
