"""Synthetic chest films, drawn when they are read: a data set that needs no download, with exact lesion masks.

The films serve to try Stillroom, to test it and to show it. They say nothing about any patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.data.sources import phantom_drawing as drawing
from stillroom.data.sources.phantom_brushes import SIDE
from stillroom.data.table import Table
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings
from stillroom.task import MultiClass

VERSION = 2
"""Goes up with every change of a pixel, so that stored arrays and teacher outputs are made again."""

CLASSES = ("normal", "nodule", "consolidation", "effusion")
BLOCK = (15, 8, 6, 4)
"""Patients of each class among 33 that follow each other: about 45, 24, 18 and 12 %."""
FILMS = (0.6, 0.25, 0.15)
"""How often a patient has one, two or three films."""

DEFAULT_COUNT = 1200


@dataclass(frozen=True)
class PhantomReader:
    """Draws phantoms. Every image is a pure function of the seed and its index; nothing is kept.

    Attributes:
        seed: seed of the whole data set.
        patients: ``[N]`` int64, the patient of each image.
        films: ``[N]`` int64, the image's number among its patient's.
        labels: ``[N]`` int64, indices into :data:`CLASSES`.
    """

    seed: int
    patients: np.ndarray
    films: np.ndarray
    labels: np.ndarray

    def read(self, index: int) -> np.ndarray:
        """``[128, 128]`` uint8."""
        return self.draw(index)[0]

    def read_mask(self, index: int) -> np.ndarray | None:
        """``[128, 128]`` bool, None for a normal film."""
        return self.draw(index)[1]

    def made_of(self, index: int) -> str:
        """All that the drawing depends on."""
        return f"phantom version {VERSION} seed {self.seed} index {index} size {SIDE}"

    def draw(self, index: int, with_lesion: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """The film and its lesion mask; ``with_lesion=False`` draws the same film of the same patient in health."""
        patient = int(self.patients[index])
        of_patient = np.random.default_rng([self.seed, 1, patient])
        anatomy = drawing.sample_anatomy(of_patient)
        of_film = np.random.default_rng([self.seed, 2, patient, int(self.films[index])])
        visible = of_film.beta(3, 1.2)
        lesion = drawing.sample_lesion(of_patient, anatomy, CLASSES[self.labels[index]], visible)
        film = drawing.place_film(of_film)
        body, air = drawing.draw_body(anatomy, film)
        body += drawing.draw_distractors(np.random.default_rng(anatomy.seed + 1), anatomy, film)
        body += drawing.draw_devices(of_film, film)
        shadow, mask = np.zeros_like(body), None
        if lesion is not None and with_lesion:
            shadow, mask = drawing.draw_lesion(lesion, anatomy, film, air)
        image = drawing.expose(of_film, body, shadow)
        drawing.label_film(of_film, image)
        return image, mask


def read_phantoms(source: str, settings: DataSettings, seed: int = 0) -> Table:
    """The table of ``phantoms`` (1200 images) or ``phantoms:N``, unsplit, one to three images to a patient.

    A longer table begins with the shorter one. Raises :class:`UsageError` for a number that is none and for settings
    that do not fit four exclusive classes.
    """
    count = _count(source)
    if settings.task == "multilabel":
        raise UsageError("The phantoms have one class each: task must be auto, multiclass or ordinal, not multilabel.")
    classes = settings.classes or CLASSES
    if sorted(classes) != sorted(CLASSES):
        raise UsageError(f"The phantoms' classes are {', '.join(CLASSES)}; classes asks for {', '.join(classes)}.")

    patients, films, labels = _roster(count, seed)
    task = MultiClass(tuple(classes), ordinal=settings.task == "ordinal")
    return Table(
        name="phantoms",
        source=f"{count} synthetic chest films drawn by Stillroom, seed {seed}, {SIDE} px",
        task=task,
        ids=np.array([f"P{patient + 1:04d}/{film}" for patient, film in zip(patients, films, strict=True)]),
        targets=task.parse([CLASSES[label] for label in labels]),
        splits=np.full(count, "", dtype="U5"),
        rows=np.arange(count, dtype=np.int64),
        reader=PhantomReader(seed, patients, films, labels),
        patients=np.array([f"P{patient + 1:04d}" for patient in patients]),
        synthetic=True,
        has_masks=True,
    )


def _count(source: str) -> int:
    """Number of images asked for."""
    name, _, number = source.partition(":")
    if name != "phantoms":
        raise UsageError(f"{source!r} is not phantoms. Write phantoms or phantoms:{DEFAULT_COUNT}.")
    if source == "phantoms":
        return DEFAULT_COUNT
    if not number.isascii() or not number.isdigit() or int(number) < 1:
        raise UsageError(f"{number!r} is not a number of phantoms. Write e.g. phantoms:{DEFAULT_COUNT}.")
    return int(number)


def _roster(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patient, film number and class of each image: patients have one to three films and one class.

    Classes are dealt in shuffled blocks of patients, so that a small set has the same shares as a large one.
    """
    deck = np.repeat(np.arange(len(CLASSES)), BLOCK)
    patients: list[int] = []
    films: list[int] = []
    labels: list[int] = []
    block = 0
    while len(patients) < count:
        rng = np.random.default_rng([seed, 0, block])
        for place, (label, shots) in enumerate(
            zip(rng.permutation(deck), rng.choice((1, 2, 3), len(deck), p=FILMS), strict=True)
        ):
            patients += [block * len(deck) + place] * int(shots)
            films += range(int(shots))
            labels += [int(label)] * int(shots)
        block += 1
    return tuple(np.array(column[:count], dtype=np.int64) for column in (patients, films, labels))  # type: ignore[return-value]
