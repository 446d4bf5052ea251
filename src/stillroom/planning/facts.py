"""What the plan's rules are told of the images and the machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.settings.sections import DataSettings
from stillroom.settings.whole import Settings

if TYPE_CHECKING:
    from stillroom.data.table import Table

SAMPLED = 200
"""Images whose true size is looked at."""


@dataclass(frozen=True)
class Facts:
    """The images, their labels, and what computes.

    Attributes:
        kind: of the task: ``binary``, ``multiclass``, ``ordinal`` or ``multilabel``.
        images: all of them, test images too.
        training: training images, with or without a label that may be used.
        labelled: training images whose labels may be used.
        unlabelled: more images to learn from, without labels.
        validation: validation images.
        test: test images.
        classes: labelled training images per class.
        patients: how many; None where the source does not say.
        side: median over images of the shorter side, in pixels, as they come.
        smallest, largest: the shortest and the longest side seen, in pixels.
        colour: whether any image has colour.
        resolution: side of the MedMNIST file to read; None for other sources.
        weights: names of networks whose pretrained weights are at hand.
        student_weights: the same for a student, whose weights may lie elsewhere.
        weights_from: where they were looked for, in words.
        device: ``cpu``, ``cuda`` or ``mps``.
        machine: what computes, in words.
    """

    kind: str
    images: int
    training: int
    labelled: int
    unlabelled: int
    validation: int
    test: int
    classes: dict[str, int]
    patients: int | None
    side: int
    smallest: int
    largest: int
    colour: bool
    resolution: int | None
    weights: tuple[str, ...]
    student_weights: tuple[str, ...]
    weights_from: str
    device: str
    machine: str

    @property
    def imbalance(self) -> float:
        """Images of the commonest class for one of the rarest."""
        return max(self.classes.values()) / max(min(self.classes.values()), 1)

    def to_dict(self) -> dict[str, Any]:
        """For plan.yaml and people."""
        plain = asdict(self) | {
            "imbalance": round(self.imbalance, 2),
            "sizes": f"shorter side {self.side} px in the median, sides from {self.smallest} to {self.largest} px",
            "weights": list(self.weights),
        }
        return {name: value for name, value in plain.items() if name not in _TOLD_OTHERWISE}


_TOLD_OTHERWISE = ("side", "smallest", "largest", "student_weights")


def look(settings: Settings, names: tuple[str, ...]) -> Facts:
    """Look at a source without decoding it: labels and splits of all images, the sizes of up to 200.

    Args:
        settings: the source, how to read it, and the share of labels; splits are cut by patient with its seed, but do not
            yet know of near-identical images.
        names: networks whose weights are looked for.

    Raises:
        UsageError: the source, a split, the weights' folder or the device cannot be used.
    """
    from stillroom.data.answers import read_answers
    from stillroom.data.load import open_source
    from stillroom.data.slices import stratified_slices
    from stillroom.data.splits import assign_splits
    from stillroom.data.unlabelled import list_unlabelled
    from stillroom.models.device import pick_device
    from stillroom.models.efficiency import machine
    from stillroom.planning.stock import weights_at_hand

    resolution = _resolution(settings.source, settings.data)
    data, training, seed = replace(settings.data, resolution=resolution), settings.training, settings.seed  # type: ignore[arg-type]
    table = open_source(settings.source, data, seed=seed)
    trained_as, chosen = settings.recipe.adapt(table.task), settings.teacher
    if settings.recipe.has_teacher and chosen.teacher_answers:
        read_answers(chosen.teacher_answers, trained_as, kind=chosen.answers_kind, of=chosen.answers_of)
    split = assign_splits(table, val_fraction=data.val_fraction, test_fraction=data.test_fraction, seed=seed)
    rows, task = split.indices("train"), split.task
    shown = task.one_hot(split.targets)
    (labelled,) = stratified_slices(shown[rows], rows, 1, training.label_fraction, (seed, 0))
    sides, colour = _sizes(table)
    weights, weights_from = weights_at_hand(names, settings.teacher.weights)
    folder = settings.student.student_weights
    return Facts(
        kind=task.kind,
        images=len(split),
        training=len(rows),
        labelled=len(labelled),
        unlabelled=len(list_unlabelled(training.unlabelled)) if training.unlabelled else 0,
        validation=len(split.indices("val")),
        test=len(split.indices("test")),
        classes=dict(zip(task.classes, shown[labelled].sum(axis=0, dtype=int).tolist(), strict=True)),
        patients=None if table.patients is None else len({patient for patient in table.patients if patient}),
        side=round(float(np.median(sides.min(axis=1)))),
        smallest=int(sides.min()),
        largest=int(sides.max()),
        colour=colour,
        resolution=resolution,
        weights=weights,
        student_weights=weights_at_hand(names, folder)[0] if folder else weights,
        weights_from=weights_from,
        device=pick_device(settings.device).type,
        machine=machine()["cpu"],
    )


def _resolution(source: str, data: DataSettings) -> int | None:
    """Of a MedMNIST set the largest file at hand, or the one that was asked for."""
    from stillroom.data.sources.medmnist import at_hand, medmnist_flags

    if data.resolution is not None or source not in medmnist_flags():
        return data.resolution
    found = at_hand(source, data)
    return max(found) if found else None


def _sizes(table: Table) -> tuple[np.ndarray, bool]:
    """``[n, 2]`` height and width of a sample of the readable images, and whether any has colour."""
    from stillroom.data.geometry import drop_equal_channels
    from stillroom.data.table import UnreadableImage
    from stillroom.errors import UsageError

    sides, colour = [], False
    for row in np.sort(np.random.default_rng(0).permutation(len(table))[:SAMPLED]):
        try:
            image = drop_equal_channels(table.reader.read(int(table.rows[row])))
        except UnreadableImage:
            continue  # the audit names it
        if image.size:
            sides.append(image.shape[:2])
            colour = colour or image.ndim == 3
    if not sides:
        raise UsageError(f"None of {len(table)} images of {table.name} can be read: see `stillroom audit`.")
    return np.array(sides), colour
