"""What may make figures on a data set untrue: leaks between splits, contradicting labels, broken files, tiny classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stillroom.data.duplicates import DuplicatePairs
from stillroom.data.findings import (
    ClassCount,
    Pair,
    SharedPatient,
    on_blank,
    on_broken,
    on_changes,
    on_classes,
    on_conflicts,
    on_leaks,
    on_patients,
    on_pixels,
    on_repeats,
    on_shortcuts,
    on_synthetic,
)
from stillroom.data.masks_by_pixels import find_masks_by_pixels
from stillroom.data.shortcuts import Shortcut, find_shortcuts
from stillroom.data.store import Quarantined, Store
from stillroom.data.table import SPLITS, Finding, Table
from stillroom.shown import counted

LISTED = 1000
"""Entries of each list that :meth:`Audit.to_dict` writes; ``totals`` tells how many there are."""

SMALL = {"train": 20, "val": 10, "test": 10}
"""A class with fewer images than this in a split is too small to learn from or to judge by."""

_UNASSIGNED = "unassigned"


@dataclass(frozen=True)
class Clipped:
    """An image with a handful of pixels that are brighter than the set's white, and are shown as white."""

    path: str
    pixels: int


@dataclass(frozen=True)
class Audit:
    """Everything the audit found. Lists are complete here, and cut at :data:`LISTED` in the JSON form.

    Attributes:
        name, source, synthetic: as in the table.
        images: usable images, without those quarantined.
        masks: images that have a mask.
        patients: number of patients, None where the source names none.
        dropped: images left out before this audit because the test split has them too.
        cross_split_duplicates: the same picture in two splits, be it turned, mirrored or cropped; pairs that touch the
            test split come first.
        leaked: per split, the images that another split has too: ``{"test": {"exact": 68, "images": 82}}`` means that
            82 images are found again, 68 of them pixel for pixel.
        within_split_duplicates: pairs per split, ``{"train": {"exact": 1, "near": 775, "moved": 3}}``.
        label_conflicts: the same picture under two labels, in whatever split; without those turned, mirrored or cropped.
        patients_on_two_sides: patients with images in more than one split.
        quarantined: ``{"path", "reason"}`` of images that could not be read.
        class_counts: images per split and class (for multi-label: with that label).
        small_classes: classes below :data:`SMALL` in a split, but not empty.
        missing_classes: classes without an image in a split.
        image_sizes: native ``min``, ``median`` and ``max`` as ``[height, width]``, side by side and not of one image;
            ``non_square`` and ``enlarged`` count images.
        bit_depth: of the store: 8, or 16 where any image has more than 8.
        channels: 1 where every image is grey, else 3.
        totals: full lengths of the lists that the JSON form may cut.
        warnings: what people should know, worst first.
        blank: names of images whose pixels are all alike.
        clipped: images with a handful of pixels brighter than white, and how many.
        shortcuts: properties of the files that go with a class.
        like_masks: names of images that look like masks by their pixels.
        passed_over: files that are not read, by ending (``""`` for none) and class folder.
    """

    name: str
    source: str
    synthetic: bool
    images: int
    masks: int
    patients: int | None
    dropped: int
    cross_split_duplicates: tuple[Pair, ...]
    leaked: dict[str, dict[str, int]]
    within_split_duplicates: dict[str, dict[str, int]]
    label_conflicts: tuple[Pair, ...]
    patients_on_two_sides: tuple[SharedPatient, ...]
    quarantined: tuple[dict[str, str], ...]
    class_counts: dict[str, dict[str, int]]
    small_classes: tuple[ClassCount, ...]
    missing_classes: tuple[ClassCount, ...]
    image_sizes: dict[str, Any]
    bit_depth: int
    channels: int
    totals: dict[str, int]
    warnings: tuple[Finding, ...]
    blank: tuple[str, ...] = ()
    clipped: tuple[Clipped, ...] = ()
    shortcuts: tuple[Shortcut, ...] = ()
    like_masks: tuple[str, ...] = ()
    passed_over: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as in audit.json."""
        content = asdict(self)
        return {key: list(value[:LISTED]) if isinstance(value, tuple) else value for key, value in content.items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Audit:
        """The inverse of :meth:`to_dict`, but for what that cut. An older audit lacks what is found today."""
        content = {"blank": [], "clipped": [], "shortcuts": [], "like_masks": []} | content
        entries: dict[str, Any] = {
            "cross_split_duplicates": Pair,
            "label_conflicts": Pair,
            "patients_on_two_sides": SharedPatient,
            "quarantined": dict,
            "small_classes": ClassCount,
            "missing_classes": ClassCount,
            "warnings": Finding,
            "clipped": Clipped,
            "shortcuts": Shortcut,
        }
        lists = {key: tuple(entry(**item) for item in content[key]) for key, entry in entries.items()}
        return cls(**(content | lists | {key: tuple(content[key]) for key in ("blank", "like_masks")}))


def audit_data(
    table: Table, store: Store, quarantined: list[Quarantined], pairs: DuplicatePairs, *, dropped: int = 0
) -> Audit:
    """Audit a table whose rows have their final splits.

    Args:
        table: the rows.
        store: the same rows, decoded.
        quarantined: images of the source that could not be read.
        pairs: duplicates among the rows.
        dropped: rows already left out as leaks, for the record.
    """
    splits = np.array([split or _UNASSIGNED for split in table.splits])
    across = splits[pairs.first] != splits[pairs.second]
    # A crop may lack what the whole picture is named after.
    contradicting = _rows_differ(table.targets[pairs.first], table.targets[pairs.second]) & (pairs.kinds != "moved")
    leaked = _leaked(pairs, across, splits)
    within = _within(pairs, across, splits)
    cross, conflicts = (_listed(table, splits, pairs, chosen) for chosen in (across, contradicting))
    shared = _patients_on_two_sides(table, splits)
    counts = _class_counts(table, splits)
    cells = [ClassCount(split, name, n) for split, names in counts.items() for name, n in names.items()]
    missing = tuple(cell for cell in cells if cell.images == 0)
    small = tuple(cell for cell in cells if 0 < cell.images < SMALL.get(cell.split, 0))
    sizes = _image_sizes(store)
    shortcuts = find_shortcuts(table, store)
    like_masks, on_like_masks = find_masks_by_pixels(table, store)
    broken = tuple({"path": item.id, "reason": item.reason} for item in quarantined)

    found = [
        *on_synthetic(table),
        *table.findings,
        *on_leaks(leaked, cross, splits),
        *on_conflicts(conflicts),
        *on_patients(table, shared),
        *on_broken(table, broken),
        *on_classes(missing, small),
        *on_like_masks,
        *on_blank(table, store),
        *on_shortcuts(shortcuts),
        *on_pixels(table, store, sizes),
        *on_changes(table),
        *on_repeats(within, dropped),
    ]
    return Audit(
        name=table.name,
        source=table.source,
        synthetic=table.synthetic,
        images=len(table),
        masks=int(store.has_mask.sum()),
        patients=None if table.patients is None else len(set(table.patients) - {""}),
        dropped=dropped,
        cross_split_duplicates=cross,
        leaked=leaked,
        within_split_duplicates=within,
        label_conflicts=conflicts,
        patients_on_two_sides=shared,
        quarantined=broken,
        class_counts=counts,
        small_classes=small,
        missing_classes=missing,
        image_sizes=sizes,
        bit_depth=8 * store.pixels.dtype.itemsize,
        channels=store.pixels.shape[1],
        totals={
            "cross_split_duplicates": len(cross),
            "label_conflicts": len(conflicts),
            "patients_on_two_sides": len(shared),
            "quarantined": len(broken),
            "blank": int(store.facts.blank.sum()),
            "clipped": int((store.facts.clipped > 0).sum()),
            "like_masks": len(like_masks),
        },
        warnings=tuple(sorted(found, key=lambda finding: finding.level != "warning")),
        blank=tuple(table.ids[store.facts.blank].tolist()),
        clipped=tuple(
            Clipped(str(table.ids[row]), int(store.facts.clipped[row])) for row in np.flatnonzero(store.facts.clipped)
        ),
        shortcuts=shortcuts,
        like_masks=tuple(table.ids[like_masks].tolist()),
        passed_over={ending: dict(names) for ending, names in table.passed_over.items()},
    )


def audit_lines(audit: Audit) -> list[str]:
    """The audit as text for a terminal, at most about 25 lines."""
    sizes, classes = audit.image_sizes, len(next(iter(audit.class_counts.values()), {}))
    low, high = ("x".join(str(side) for side in reversed(sizes[key])) for key in ("min", "max"))
    pixels = f"{low} pixels" if low == high else f"{low} to {high} pixels"
    colour = "colour" if audit.channels == 3 else "grey"
    lines = [
        f"{audit.name}: {counted(audit.images, 'image')}, {counted(classes, 'class', 'classes')} ({audit.source})",
        f"  {pixels}, {colour}, {audit.bit_depth} bit"
        + (f"; masks: {audit.masks}" if audit.masks else "")
        + (f"; patients: {audit.patients}" if audit.patients is not None else ""),
    ]
    for split, counts in audit.class_counts.items():
        shown = ", ".join(f"{name} {number}" for name, number in list(counts.items())[:8])
        lines.append(f"  {split}: {shown}" + (f" and {len(counts) - 8} more" if len(counts) > 8 else ""))
    if not any(finding.level == "warning" for finding in audit.warnings):
        lines.append("Nothing to warn of.")
    lines += [f"{finding.level.capitalize()}: {finding.text}" for finding in audit.warnings]
    for pair in audit.cross_split_duplicates[:5]:
        lines.append(f"  {pair.kind}: {pair.first} ({pair.first_split}) = {pair.second} ({pair.second_split})")
    if len(audit.cross_split_duplicates) > 5:
        lines.append(f"  and {audit.totals['cross_split_duplicates'] - 5:,} pairs more")
    return lines


# -- looking ------------------------------------------------------------------------------------------------------
def _rows_differ(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    differ = first != second
    return differ if differ.ndim == 1 else differ.any(axis=1)


def _listed(table: Table, splits: np.ndarray, pairs: DuplicatePairs, chosen: np.ndarray) -> tuple[Pair, ...]:
    """The chosen pairs: those on the test split first, then exact ones, then the most similar."""
    rows = np.flatnonzero(chosen)
    test = (splits[pairs.first[rows]] == "test") | (splits[pairs.second[rows]] == "test")
    rows = rows[np.lexsort((-pairs.similarity[rows], ~pairs.exact[rows], ~test))]
    first, second = pairs.first[rows], pairs.second[rows]
    labels = [table.task.names(table.targets[side]) for side in (first, second)]
    return tuple(
        Pair(
            first=str(table.ids[a]),
            second=str(table.ids[b]),
            first_split=str(splits[a]),
            second_split=str(splits[b]),
            first_label=label_a,
            second_label=label_b,
            kind=kind,
            similarity=round(float(pairs.similarity[row]), 4),
        )
        for row, kind, a, b, label_a, label_b in zip(
            rows, pairs.kinds[rows].tolist(), first, second, *labels, strict=True
        )
    )


def _leaked(pairs: DuplicatePairs, across: np.ndarray, splits: np.ndarray) -> dict[str, dict[str, int]]:
    counts = {}
    for split in _present(splits):
        seen = {}
        for key, chosen in (("exact", across & pairs.exact), ("images", across)):
            rows = np.concatenate([pairs.first[chosen], pairs.second[chosen]])
            seen[key] = len(np.unique(rows[splits[rows] == split]))
        counts[split] = seen
    return counts


def _within(pairs: DuplicatePairs, across: np.ndarray, splits: np.ndarray) -> dict[str, dict[str, int]]:
    inside = {split: ~across & (splits[pairs.first] == split) for split in _present(splits)}
    return {
        split: {kind: int((chosen & (pairs.kinds == kind)).sum()) for kind in ("exact", "near", "moved")}
        for split, chosen in inside.items()
    }


def _patients_on_two_sides(table: Table, splits: np.ndarray) -> tuple[SharedPatient, ...]:
    if table.patients is None:
        return ()
    seen: dict[str, Counter[str]] = {}
    for patient, split in zip(table.patients, splits, strict=True):
        if patient:
            seen.setdefault(str(patient), Counter())[str(split)] += 1
    return tuple(
        SharedPatient(patient, dict(counts), counts.total()) for patient, counts in seen.items() if len(counts) > 1
    )


def _class_counts(table: Table, splits: np.ndarray) -> dict[str, dict[str, int]]:
    truth = table.task.one_hot(table.targets)
    return {
        split: dict(zip(table.task.classes, truth[splits == split].sum(axis=0).tolist(), strict=True))
        for split in _present(splits)
    }


def _image_sizes(store: Store) -> dict[str, Any]:
    sizes = store.original_sizes
    return {
        "min": sizes.min(axis=0).tolist(),
        "median": np.median(sizes, axis=0).astype(int).tolist(),
        "max": sizes.max(axis=0).tolist(),
        "non_square": int((sizes[:, 0] != sizes[:, 1]).sum()),
        "enlarged": int((sizes.max(axis=1) < store.size).sum()),
    }


def _present(splits: np.ndarray) -> list[str]:
    """The splits that have images, in the usual order."""
    return [split for split in (*SPLITS, _UNASSIGNED) if (splits == split).any()]
