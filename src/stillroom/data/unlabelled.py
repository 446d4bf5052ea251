"""A folder of images without labels, to learn a teacher's answers on. What validation or test show again is left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.data.contrast import squeezed
from stillroom.data.dicom.grey import Display
from stillroom.data.duplicates import find_pairs
from stillroom.data.files import FileReader
from stillroom.data.listing import list_pictures
from stillroom.data.pictures import pictures_in
from stillroom.data.store import Quarantined, Store, at_side, build_store
from stillroom.data.table import Table
from stillroom.errors import UsageError
from stillroom.settings.windows import parse_window


@dataclass(frozen=True)
class Unlabelled:
    """Images without labels, and which of the folder's were left out.

    Attributes:
        store: the images that are learnt from.
        ids: ``[U]`` str, their paths below the folder.
        quarantined: files that could not be read.
        held_out: names of the images that are also in the validation or test split.
        origin: all of the folder's images.
        notes: which files were taken for masks of images, or passed over.
    """

    store: Store
    ids: np.ndarray
    quarantined: tuple[Quarantined, ...]
    held_out: tuple[str, ...]
    origin: Table
    notes: tuple[str, ...] = ()

    def store_at(self, size: int, *, show_progress: bool = True) -> Store:
        """The same images, row for row, at another side. See :func:`~stillroom.data.store.at_side`."""
        return at_side(self.origin, self.store, size, white=self.store.white, progress=show_progress)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "images": len(self.store),
            "unreadable": {row.id: row.reason for row in self.quarantined},
            "notes": list(self.notes),
            "left_out_because_held_out": list(self.held_out),
            "fingerprint": self.store.fingerprint,
        }


def list_unlabelled(folder: Path) -> list[Path]:
    """The folder's images, however deep, without masks of others. Raises UsageError where there is none."""
    return _pictures(folder)[0]


def _pictures(folder: Path) -> tuple[list[Path], list[str]]:
    if not folder.is_dir():
        raise UsageError(f"unlabelled: there is no folder {folder}.")
    paths, notes = list_pictures(folder)
    if not paths:
        raise UsageError(f"unlabelled: {folder} holds no image.")
    return paths, notes


def load_unlabelled(
    folder: Path,
    table: Table,
    store: Store,
    *,
    window: str = "",
    cache: Path | None = None,
    show_progress: bool = True,
) -> Unlabelled:
    """Decode the images of ``folder`` as the labelled ones were, whose white is theirs: what is brighter cannot be read.

    Folders inside it are searched, but their names are not read as classes. Masks of images are left out; so are
    equal and near-identical images of the validation and test splits, since teaching on them would spoil the figures.

    Args:
        folder: where the images are.
        table: the labelled images, with their splits.
        store: their pixels.
        window: see :class:`~stillroom.settings.sections.DataSettings`.
        cache: root of the cache; default the user's.
        show_progress: show how far decoding has come.

    Raises:
        UsageError: there is no image, fewer than half can be read, or none is left.
    """
    paths, notes = _pictures(folder)
    pictures = pictures_in(paths)
    count = len(pictures)
    origin = Table(
        name=folder.name,
        source=f"images without labels in {folder.name}",
        task=table.task,
        ids=np.array([one.path.relative_to(folder).as_posix() + one.end for one in pictures]),
        targets=np.zeros((count, *table.targets.shape[1:]), dtype=table.targets.dtype),
        splits=np.full(count, "train"),
        rows=np.arange(count),
        reader=FileReader(
            tuple(one.path for one in pictures),
            frames=tuple(one.frame for one in pictures),
            display=Display(parse_window(window), int(store.white)),
        ),
    )
    found, rows, quarantined = build_store(
        origin, size=store.size, fit=store.fit, white=store.white, cache=cache, progress=show_progress
    )
    held_out = np.flatnonzero(table.splits != "train")
    pairs = find_pairs(
        np.concatenate([store.digests[held_out], found.digests]),
        np.concatenate([np.asarray(store.thumbnails)[held_out], np.asarray(found.thumbnails)]),
        near=squeezed(store) is None,
    )
    crossing = (pairs.first < len(held_out)) & (pairs.second >= len(held_out))
    again = pairs.second[crossing] - len(held_out)
    again = np.flatnonzero(np.isin(found.digests, found.digests[again]))  # of many equal files not every pair is listed
    kept = np.setdiff1d(np.arange(len(found)), again)
    if not len(kept):
        raise UsageError(f"unlabelled: every image of {folder} is also in the validation or test split.")
    left_out = tuple(str(name) for name in rows.ids[again])
    return Unlabelled(found.take(kept), rows.ids[kept], tuple(quarantined), left_out, origin, tuple(notes))
