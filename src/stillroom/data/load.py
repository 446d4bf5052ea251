"""From a source's name to images that are decoded, split and audited: the first leg of every job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stillroom.data.audit import Audit, audit_data
from stillroom.data.dicom.recognising import is_dicom_file, is_directory
from stillroom.data.duplicates import DuplicatePairs, duplicate_groups, find_duplicates
from stillroom.data.splits import assign_splits, require_training_images, take_fold
from stillroom.data.store import Quarantined, Store, at_side, build_store
from stillroom.data.table import SPLITS, Table
from stillroom.data.unlabelled import Unlabelled
from stillroom.errors import UsageError, nearest
from stillroom.extras import need
from stillroom.files.cache import fingerprint
from stillroom.files.walk import not_a_file
from stillroom.settings.sections import DataSettings

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Dataset:
    """A data set ready for use: ``table`` and ``store`` row for row, every row with a split, and what the audit found.

    ``unlabelled`` holds more images to learn from, where the run was given some. ``origin`` are all rows of the source,
    those that cannot be read or were left out too.
    """

    table: Table
    store: Store
    audit: Audit
    origin: Table
    unlabelled: Unlabelled | None = None

    def store_at(self, size: int, *, cache: Path | None = None, show_progress: bool = True) -> Store:
        """The same images, row for row, at another side. See :func:`~stillroom.data.store.at_side`."""
        return at_side(self.origin, self.store, size, cache=cache, progress=show_progress)

    @property
    def fingerprint(self) -> str:
        """Changes with any image, label, split or patient: a run that began with another one cannot go on."""
        also = [] if self.unlabelled is None else [self.unlabelled.store.fingerprint]
        return fingerprint(self.labelled_fingerprint, *also)

    @property
    def labelled_fingerprint(self) -> str:
        """The same without the images that have no labels."""
        table = self.table
        patients = None if table.patients is None else table.patients.tolist()
        labels = (list(table.task.classes), table.targets.tolist())
        return fingerprint(self.store.fingerprint, table.ids.tolist(), labels, table.splits.tolist(), patients)


def open_source(source: str | Path, settings: DataSettings, *, seed: int = 0, training: bool = True) -> Table:
    """The rows of a source, without reading any pixels.

    Args:
        source: a MedMNIST name, a folder of class folders, a .csv, .tsv or .parquet table, or ``phantoms[:count]``.
        settings: what to read.
        seed: draws the phantoms.
        training: refuse labels that a network cannot be trained on, such as a class without an image. For a model
            that exists already, pass False and its classes in the settings.

    Raises:
        UsageError: there is no such source, or its labels cannot be used; the message says which and what to do.
    """
    from stillroom.data.sources.folder import read_folder
    from stillroom.data.sources.manifest import read_manifest
    from stillroom.data.sources.medmnist import medmnist_flags, read_medmnist
    from stillroom.data.sources.phantoms import read_phantoms
    from stillroom.data.sources.relabelling import relabel_table

    text, path = str(source), Path(source).expanduser()
    if settings.groups and path.suffix.lower() not in TABLE_SUFFIXES:
        raise UsageError(
            f"--groups names columns of a table, and {text} is none: give a table ({', '.join(TABLE_SUFFIXES)}) with a row "
            "per image, or leave --groups out."
        )
    if is_named_set(text):
        changes = settings.merge or settings.drop_class or settings.positive
        read_as = replace(settings, classes=(), positive="") if changes else settings
        table = read_medmnist(text, read_as) if text in medmnist_flags() else read_phantoms(text, read_as, seed)
        return relabel_table(table, settings, training=training) if changes else table
    if path.is_dir():
        return read_folder(path, settings, training=training)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_manifest(path, settings, training=training)
    if path.is_file() and (is_directory(path) or is_dicom_file(path)):
        raise UsageError(
            f"{path} is DICOM, which tells no labels: give a table beside the files with a column `path` or "
            "`SOPInstanceUID` and one of labels, or a folder with one folder of files per class."
        )
    if path.is_file():
        raise UsageError(f"{path} is a file of another kind: give a folder, or a table ({', '.join(TABLE_SUFFIXES)}).")
    if kind := not_a_file(path):
        raise UsageError(f"{path} is {kind}: give a folder, or a table ({', '.join(TABLE_SUFFIXES)}).")
    known = [*medmnist_flags(), "phantoms"]
    raise UsageError(
        f"There is no folder or file {text!r}, and no data set of that name.{nearest(text, known)} "
        f"Data sets: {', '.join(known)}."
    )


def is_named_set(source: str) -> bool:
    """Whether a source is the name of a data set; otherwise it is a path."""
    from stillroom.data.sources.medmnist import medmnist_flags

    return source.partition(":")[0] == "phantoms" or source in medmnist_flags()


def load_data(
    source: str | Path,
    settings: DataSettings | None = None,
    *,
    seed: int = 0,
    cache: Path | None = None,
    show_progress: bool = True,
) -> Dataset:
    """Read, decode, split and audit a data set.

    Args:
        source: see :func:`open_source`.
        settings: what to read and how to make it square.
        seed: fixes the splits that Stillroom makes, and the phantoms.
        cache: root of the cache; default the user's.
        show_progress: show bars.

    Raises:
        UsageError: the source cannot be used as it is.
        RunError: the disk is full.
    """
    need("scipy", "Looking for copies in a data set")
    settings = settings or DataSettings()
    if seed < 0:
        raise UsageError(f"seed must be at least 0, got {seed}.")
    table = open_source(source, settings, seed=seed)
    return prepare(table, settings, seed=seed, cache=cache, show_progress=show_progress)


def prepare(
    table: Table,
    settings: DataSettings,
    *,
    seed: int = 0,
    fold: tuple[int, int] | None = None,
    cache: Path | None = None,
    show_progress: bool = True,
) -> Dataset:
    """Decode, split and audit the rows that :func:`open_source` found: the part of :func:`load_data` that takes time.

    ``fold`` is a number from 1 and how many there are: that fold is the test split, whatever the source gives.
    """
    origin = table
    store, table, quarantined = build_store(
        table, size=settings.size, fit=settings.fit, cache=cache, progress=show_progress
    )
    _require_usable(origin, table, quarantined, ("train", "") if fold is None else ("", *SPLITS))
    pairs = find_duplicates(store)
    groups = duplicate_groups(pairs, len(table)) if settings.group_duplicates else None
    if fold is None:
        fractions = {"val_fraction": settings.val_fraction, "test_fraction": settings.test_fraction}
        table = assign_splits(table, **fractions, seed=seed, groups=groups)
    else:
        table = take_fold(table, *fold, val_fraction=settings.val_fraction, seed=seed, groups=groups)
    if settings.drop_leaks:
        return Dataset(*_without_leaks(table, store, quarantined, pairs), origin)
    return Dataset(table, store, audit_data(table, store, quarantined, pairs), origin)


def _require_usable(origin: Table, table: Table, quarantined: list[Quarantined], training: tuple[str, ...]) -> None:
    """Refuse a class whose images in the splits to train on were all set aside, with how many and why the first was.

    Raises:
        UsageError: names the class.
    """
    had, left = (of.task.one_hot(of.targets[np.isin(of.splits, training)]).sum(axis=0) for of in (origin, table))
    reasons = {one.id: one.reason for one in quarantined}
    for k in np.flatnonzero((had > 0) & (left == 0)):
        members = origin.ids[(origin.task.one_hot(origin.targets)[:, k] > 0) & np.isin(origin.splits, training)]
        first = next((f"; the first, {name}: {reasons[name]}" for name in members.tolist() if name in reasons), "")
        raise UsageError(
            f"{table.name} has no training image of {table.task.classes[k]!r} that can be used: {int(had[k]):,} were set "
            f"aside{first}. Mend the files, or leave the class out."
        )


def _without_leaks(
    table: Table, store: Store, quarantined: list[Quarantined], pairs: DuplicatePairs
) -> tuple[Table, Store, Audit]:
    """Drop training and validation rows that are found again in the test split, and training's found in validation."""
    order = np.array([SPLITS.index(split) for split in table.splits])
    first, second = order[pairs.first], order[pairs.second]
    leaking = np.where(first < second, pairs.first, pairs.second)[first != second]
    kept = np.setdiff1d(np.arange(len(table)), leaking)
    remaining, store = table.take(kept), store.take(kept)
    dropped = len(table) - len(kept)
    empty = [split for split in SPLITS if not len(remaining.indices(split))]
    if empty:
        raise UsageError(
            f"Without the {dropped} leaking images {table.name} has no {empty[0]} image left: it is a copy of another "
            "split. Take that split out of the source, so that Stillroom cuts a new one, or do without --drop-leaks."
        )
    require_training_images(remaining)
    return remaining, store, audit_data(remaining, store, quarantined, pairs.take(kept, len(table)), dropped=dropped)
