"""What tells classes apart and has little to do with what the images show: size, kind, depth, colour, borders, brightness.

A network learns whatever predicts the label. Where one class was exported by another device or program than the rest, that is
easier to learn than a disease, and every figure on such a set praises it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from stillroom.data.contrast import squeezed
from stillroom.data.store import Store
from stillroom.data.table import Table

DISTANCE = 0.3
"""Shares of images that a class and the others must differ by (Kolmogorov's distance) before a shortcut is spoken of.

In 880 ear, 5,856 chest and 780 breast images nothing comes near it; brain slices gathered from the web, sick ones from other
sites than healthy ones, have .45 in shape and .42 in size (benchmarks/thresholds.py)."""

BORDER_DISTANCE = 0.5
"""The same of borders, which have to do with what the images show."""

BRIGHTNESS_DISTANCE = 0.9
"""The same of brightness, which diseases change too, but seldom of nearly every image, as a negative does: an area under the
curve of about .98. Of real sets nothing comes near it (.45 at most, in the web's brain slices)."""

_FEW = 0.05  # of the images
_CHUNK = 4096
_LUCK = 1e-4  # what chance may reach in all tests of a data set together
_KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"} | {
    f".{kind.lower()}": kind for kind in ("PNG", "BMP", "WebP", "GIF")
}
_NEAR = 8  # of 255: what JPEG makes of black and white borders


@dataclass(frozen=True)
class Shortcut:
    """A property of files that goes with a class.

    Attributes:
        property: such as ``width``.
        what: how the two sides are told apart, such as ``are wider than 512 pixels``.
        name: the class (or label).
        inside: share of the class's images of which ``what`` is true.
        outside: share of the other images.
    """

    property: str
    what: str
    name: str
    inside: float
    outside: float


def find_shortcuts(table: Table, store: Store) -> tuple[Shortcut, ...]:
    """The strongest shortcut of each property, strongest first.

    For each property and class the distribution in the class is compared with that outside by the statistic of Kolmogorov and
    Smirnov, whose probability under chance is at most ``2 exp(-2 d**2 n m / (n + m))`` (asymptotic, and less where values
    tie). Images of one patient and class count as one, since a patient's images share a device.

    Args:
        table: the rows with their classes and patients.
        store: the same rows, decoded.
    """
    units = _units(table)
    truth = table.task.one_hot(table.targets)[units].astype(bool)
    properties = [one for one in _properties(table, store, units) if (one.values != one.values[0]).any()]
    found: dict[str, tuple[float, bool, Shortcut]] = {}
    for one in properties:
        for name, chosen in zip(table.task.classes, truth.T, strict=True):
            inside, outside, limit = _compared(one.values, chosen)
            distance = abs(inside - outside)
            harmonic = chosen.sum() * (~chosen).sum() / len(chosen)
            luck = 2 * np.exp(-2 * distance**2 * harmonic) * len(properties) * truth.shape[1]
            if distance >= one.least and luck <= _LUCK:
                shortcut = Shortcut(one.name, one.words.format(limit=limit), name, inside, outside)
                rank = (distance, inside > outside, shortcut)
                found[one.name] = max(found.get(one.name, rank), rank, key=lambda entry: entry[:2])
    borders = [distance for name, (distance, *_) in found.items() if name.endswith("border")]
    if "brightness" in found and max(borders, default=0.0) >= found["brightness"][0]:
        del found["brightness"]  # which a border changes as well
    return tuple(shortcut for *_, shortcut in sorted(found.values(), key=lambda entry: -entry[0]))


@dataclass(frozen=True)
class _Property:
    """``values`` ``[n]`` of the images, and ``words`` for those whose value is above ``limit``."""

    name: str
    words: str
    values: np.ndarray
    least: float = DISTANCE


def _properties(table: Table, store: Store, rows: np.ndarray) -> list[_Property]:
    height, width = store.original_sizes[rows].T
    facts, thumbnails = store.facts.take(rows), np.asarray(store.thumbnails[rows])
    # Images that use next to none of the range are all black or white border.
    dark = ((facts.whites > 255) & (15 * facts.whites <= store.white)).mean() > _FEW
    blind = dark or squeezed(store) is not None
    borders = {} if blind else {"black": _border(thumbnails), "white": _border(255 - thumbnails)}
    kinds = np.array([_KINDS.get(PurePosixPath(str(name)).suffix.lower(), "") for name in table.ids[rows]])
    return [
        _Property("size", "are wider than {limit} pixels", width),
        _Property("size", "are higher than {limit} pixels", height),
        _Property("shape", "are more than {limit:.3g} times as wide as high", width / height),
        _Property("depth", "hold values above {limit}", facts.whites),
        _Property("colour", "are in colour", facts.colour),
        *(_Property("file kind", f"are {kind} files", kinds == kind) for kind in np.unique(kinds) if kind),
        *(
            _Property(f"{shade} border", f"have a {shade} border of more than {{limit:.0%}}", shares, BORDER_DISTANCE)
            for shade, shares in borders.items()
        ),
        *([] if dark else _brightness(table, thumbnails, rows)),
    ]


def _brightness(table: Table, thumbnails: np.ndarray, rows: np.ndarray) -> list[_Property]:
    """The mean of each image, and whether it is opposed to the mean image of the commonest class, as a negative of it is."""
    truth = table.task.one_hot(table.targets)[rows].astype(bool)
    most = int(truth.sum(axis=0).argmax())
    usual = thumbnails[truth[:, most]].mean(axis=0, dtype=np.float64) if truth[:, most].any() else np.zeros((1, 1))
    parts = [thumbnails[start : start + _CHUNK] for start in range(0, len(thumbnails), _CHUNK)]
    means = np.concatenate([np.round(part.mean(axis=(1, 2))) for part in parts])
    along = np.concatenate([(part * (usual - usual.mean())).sum(axis=(1, 2)) for part in parts])
    opposed = f"are dark where {table.task.classes[most]} is bright, as negatives of it would be"
    return [
        _Property("brightness", "are brighter than {limit:.0f} of 255", means, BRIGHTNESS_DISTANCE),
        _Property("brightness", opposed.replace("{", "{{").replace("}", "}}"), along < 0, BRIGHTNESS_DISTANCE),
    ]


def _units(table: Table) -> np.ndarray:
    """One row of every patient and class; without patients every row."""
    if table.patients is None:
        return np.arange(len(table))
    own = np.where(table.patients == "", [f"\0{row}" for row in range(len(table))], table.patients)
    keys = [(name, target.tobytes()) for name, target in zip(own, table.targets, strict=True)]
    return np.array(sorted({key: row for row, key in reversed(list(enumerate(keys)))}.values()), dtype=np.int64)


def _compared(values: np.ndarray, chosen: np.ndarray) -> tuple[float, float, float]:
    """Shares of the chosen and of the others that lie above the value that parts them best, and that value."""
    levels, place = np.unique(values, return_inverse=True)
    if chosen.all() or not chosen.any():
        return 0.0, 0.0, float(levels[-1])
    inside, outside = (
        1 - np.bincount(place[part], minlength=len(levels)).cumsum() / part.sum() for part in (chosen, ~chosen)
    )
    best = int(np.abs(inside - outside).argmax())
    return float(inside[best]), float(outside[best]), levels[best]


def _border(thumbnails: np.ndarray) -> np.ndarray:
    """``[N]`` share of each image's area outside of the smallest upright rectangle that holds all that is not black.

    Whole hundredths, rounded down, so that "more than" what is shown of one is true and less than all.
    """
    shown = thumbnails > _NEAR
    areas = np.ones(len(thumbnails))
    for axis in (1, 2):
        lines: np.ndarray = np.any(shown, axis=axis)
        first, last = lines.argmax(axis=1), lines[:, ::-1].argmax(axis=1)
        areas *= np.where(lines.any(axis=1), (lines.shape[1] - first - last) / lines.shape[1], 0)
    return np.floor(100 * (1 - areas) + 1e-9) / 100
