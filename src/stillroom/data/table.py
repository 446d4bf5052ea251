"""The table: one row is one image, with its label(s), patient, split and the way to read its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from stillroom.task import Task

SPLITS = ("train", "val", "test")


class UnreadableImage(Exception):
    """Raised by an :class:`ImageReader` for an image that cannot be decoded; ``str(error)`` is the reason, in plain words."""


class ImageReader(Protocol):
    """Where a source's pixels come from. Rows are addressed by the reader's own index, not the table's."""

    def read(self, index: int) -> np.ndarray:
        """``[H, W]`` (grey) or ``[H, W, 3]`` (RGB), uint8 or uint16. Raises :class:`UnreadableImage`."""
        ...

    def read_mask(self, index: int) -> np.ndarray | None:
        """Mask ``[H, W]`` of bool at the image's own size or another scale of it; None where the row has none."""
        ...

    def made_of(self, index: int) -> tuple[Path | str, ...] | str:
        """What the image and its mask are read from, without reading it.

        Files are known by the digest of their bytes (:mod:`stillroom.data.contents`); texts among them say what else the
        pixels depend on. Where there are none, a text that changes with anything that changes a pixel: the digest of an
        array file and a row, or what draws the image.
        """
        ...


@dataclass(frozen=True)
class Change:
    """What was done to a class of the source.

    Attributes:
        old: its name.
        new: what its images count as; None where it was dropped.
        images: how many had it.
        left_out: how many of them are no longer in the table.
    """

    old: str
    new: str | None
    images: int
    left_out: int = 0


@dataclass(frozen=True)
class Finding:
    """One remark: ``level`` tells how bad it is, ``code`` is stable for programs, ``text`` one or two sentences."""

    level: Literal["warning", "note"]
    code: str
    text: str


@dataclass(frozen=True)
class GroupColumn:
    """A column of the source by which images are parted into subgroups.

    Attributes:
        name: as the source writes it.
        cells: ``[N]`` str, tidied; ``""`` where nothing is known.
        edges: of bands, as given; empty where none were.
    """

    name: str
    cells: np.ndarray
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of one data set. Immutable: stages return a new table.

    Attributes:
        name: short name, e.g. ``pneumoniamnist`` or the folder's name.
        source: one line for people, e.g. ``MedMNIST v2 PneumoniaMNIST, 28 px``.
        task: what the labels mean.
        ids: ``[N]`` str, unique: a path relative to the source's root, or ``train/17`` in an array file.
        targets: ``[N]`` int64 class indices, or ``[N, L]`` uint8 of 0/1 for multi-label.
        splits: ``[N]`` str, each one of :data:`SPLITS`, or ``""`` where the source gives none.
        rows: ``[N]`` int64, the reader's index of each row.
        reader: reads pixels and masks.
        patients: ``[N]`` str patient (group) ids; ``""`` where unknown for a row. None when the source has none at all.
        patient_column: the column of a table that gave them; ``""`` for other sources.
        groups: columns by which subgroups are judged, where the user named some.
        synthetic: True for phantoms: every page that shows them must say so.
        has_masks: whether the reader may return a mask for some row.
        changes: the source's classes that were joined to others or dropped.
        findings: what its user should know of how the source was read; part of the audit.
        passed_over: how many files of the source are not read, by ending and class folder; part of the audit.
        white: what white is in images of more than 8 bits, where the source knows: of DICOM, which is shown in the whole
            range. None leaves it to the images.
        shown: how grey DICOM images among them are shown: any of ``asked`` (the window of the settings), ``table``,
            ``window`` (the file's own) and ``range``. Empty where there are none.
        window: the one window that all of its DICOM images name, as :func:`~stillroom.settings.windows.parse_window` takes
            it; empty where they do not.
    """

    name: str
    source: str
    task: Task
    ids: np.ndarray
    targets: np.ndarray
    splits: np.ndarray
    rows: np.ndarray
    reader: ImageReader
    patients: np.ndarray | None = None
    patient_column: str = ""
    groups: tuple[GroupColumn, ...] = ()
    synthetic: bool = False
    has_masks: bool = False
    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    passed_over: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    white: int | None = None
    shown: tuple[str, ...] = ()
    window: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: np.ndarray) -> Table:
        """The same table with only these rows, in this order."""
        return replace(
            self,
            ids=self.ids[indices],
            targets=self.targets[indices],
            splits=self.splits[indices],
            rows=self.rows[indices],
            patients=None if self.patients is None else self.patients[indices],
            groups=tuple(replace(column, cells=column.cells[indices]) for column in self.groups),
        )

    def indices(self, split: str) -> np.ndarray:
        """Positions of the rows of one split, ascending."""
        return np.flatnonzero(self.splits == split)
