"""What an audit can find, and how it is told to people: one remark per kind of trouble, none where all is well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stillroom.data.contrast import squeezed
from stillroom.data.shortcuts import Shortcut
from stillroom.data.store import Store
from stillroom.data.table import Change, Finding, Table
from stillroom.shown import counted

_FEW = 0.05  # of the images
_DARK = 15  # 12 bits in 16
_UNJUDGED = "Only copies that are equal pixel for pixel can be found so, and no borders."
_LUCK = 0.01


@dataclass(frozen=True)
class Pair:
    """Two images that show the same picture. ``first`` and ``second`` are table ids; labels as text."""

    first: str
    second: str
    first_split: str
    second_split: str
    first_label: str
    second_label: str
    kind: Literal["exact", "near", "moved"]
    similarity: float


@dataclass(frozen=True)
class SharedPatient:
    """A patient with images in more than one split: how many in each."""

    patient: str
    splits: dict[str, int]
    images: int


@dataclass(frozen=True)
class ClassCount:
    """A class (or label) and its number of images in one split."""

    split: str
    name: str
    images: int


def on_synthetic(table: Table) -> list[Finding]:
    text = "These images are synthetic phantoms: no figure on them says anything about patients."
    return [Finding("note", "synthetic", text)] if table.synthetic else []


def on_leaks(leaked: dict[str, dict[str, int]], pairs: tuple[Pair, ...], splits: np.ndarray) -> list[Finding]:
    if not pairs:
        return []
    text = f"{counted(len(pairs), 'pair')} of identical or near-identical images stand in different splits"
    if moved := sum(pair.kind == "moved" for pair in pairs):
        text += f" ({moved:,} turned, mirrored or cropped)"
    if seen := leaked.get("test", {}).get("images"):
        text += (
            f": {seen:,} of the {int((splits == 'test').sum()):,} test images are found again outside the test"
            f" ({leaked['test']['exact']:,} pixel for pixel), which flatters every figure on it"
        )
    return [Finding("warning", "duplicates_across_splits", f"{text}. Leave them out with --drop-leaks.")]


def on_conflicts(conflicts: tuple[Pair, ...]) -> list[Finding]:
    if not conflicts:
        return []
    one = conflicts[0]
    text = (
        f"{counted(len(conflicts), 'pair')} of identical or near-identical images carry different labels, such as"
        f" {one.first} ({one.first_label or 'no label'}) and {one.second} ({one.second_label or 'no label'})."
    )
    return [Finding("warning", "label_conflicts", text)]


def on_patients(table: Table, shared: tuple[SharedPatient, ...]) -> list[Finding]:
    if table.patients is None:
        text = "No patient ids: the split cannot be checked for patients on two sides."
        return [Finding("note", "patients_unknown", text)]
    found = []
    if shared:
        text = (
            f"{counted(len(shared), 'patient')} ({_names([one.patient for one in shared])}) stand on more than one side"
            " of the split, which flatters the figures."
        )
        found.append(Finding("warning", "patients_on_two_sides", text))
    if unknown := int((table.patients == "").sum()):
        text = f"{counted(unknown, 'image')} have no patient id and are taken for patients of their own."
        found.append(Finding("note", "patients_partly_unknown", text))
    return found


def on_broken(table: Table, broken: tuple[dict[str, str], ...]) -> list[Finding]:
    """Images that could not be used, but for files that do not exist where the source has said so."""
    told = any(finding.code == "files_missing" for finding in table.findings)
    rest = [one for one in broken if not (told and one["reason"].endswith("the file does not exist"))]
    if not rest:
        return []
    first, more = rest[0], " more" if len(rest) < len(broken) else ""
    text = (
        f"{len(rest):,}{more} of {len(broken) + len(table):,} images could not be used and are left out, the first:"
        f" {first['path']} ({first['reason']})."
    )
    return [Finding("warning", "quarantined", text)]


def on_classes(missing: tuple[ClassCount, ...], small: tuple[ClassCount, ...]) -> list[Finding]:
    found = []
    if missing:
        where = _names([f"{cell.name} in {cell.split}" for cell in missing])
        text = f"Classes without an image: {where}. They cannot be learned or judged there."
        found.append(Finding("warning", "missing_classes", text))
    if small:
        where = _names([f"{cell.name} in {cell.split} ({cell.images})" for cell in small])
        text = f"Classes with very few images: {where}. Figures on them are little more than chance."
        found.append(Finding("warning", "small_classes", text))
    return found


def on_pixels(table: Table, store: Store, sizes: dict[str, Any]) -> list[Finding]:
    found = []
    if len(depths := np.unique(store.bit_depths)) > 1 and table.white is None:  # which says what white is in both
        deep = int((store.bit_depths == depths.max()).sum())
        text = f"{deep:,} of {len(store):,} images have 16 bits, the others 8: check that white means the same in both."
        found.append(Finding("warning", "mixed_bit_depths", text))
    found += [*_on_white(table, store), *_on_masks(table, store)]
    if sizes["non_square"]:
        how = "padded with black" if store.fit == "pad" else "stretched"
        text = f"{counted(sizes['non_square'], 'image')} are not square and are {how} to {store.size}x{store.size}."
        found.append(Finding("note", "non_square", text))
    if sizes["enlarged"]:
        text = f"{counted(sizes['enlarged'], 'image')} are smaller than {store.size}x{store.size} and are enlarged."
        found.append(Finding("note", "enlarged", text))
    return found


def _on_white(table: Table, store: Store) -> list[Finding]:
    """Few pixels that are brighter than all others, few such images, and images that use next to none of the range."""
    found = []
    if len(bright := np.flatnonzero(store.facts.clipped)):
        pixels, images = int(store.facts.clipped.sum()), counted(len(bright), "image")
        text = (
            f"{counted(pixels, 'pixel')} of {images} ({_names(table.ids[bright].tolist())}) {_are(pixels)} brighter than"
            f" {store.white:g}, which holds all others, and {_are(pixels)} shown as white. Mend them if they are dead pixels"
            " or marks; a mark of one class is a shortcut."
        )
        found.append(Finding("warning", "hot_pixels", text))
    whites, used = store.facts.whites, squeezed(store)
    high, low = np.flatnonzero(whites == store.white), whites[whites < store.white].max(initial=0)
    few = 0 < len(high) <= max(1, _FEW * len(store)) and 2 * len(high) < len(store)
    told = few and low > 255 and low * _DARK <= store.white
    if told:
        images, others = counted(len(high), "image"), len(store) - len(high)
        text = (
            f"White is {store.white:g} for {images} alone ({_names(table.ids[high].tolist())}): the other {others:,} hold"
            f" nothing above {low} and are shown in the lowest {low / store.white:.0%} of the range. Check that values mean"
            f" the same in all.{f' {_UNJUDGED}' if used else ''}"
        )
        found.append(Finding("warning", "white_of_few", text))
    if used and not told:
        span = (used[1] - used[0]) / store.white
        text = (
            f"The images show next to no contrast: nearly all of what they show lies between about {used[0]:.0f} and"
            f" {used[1]:.0f}, {span:.1%} of the range from black (0) to white ({store.white:g}). {_causes(store)} {_UNJUDGED}"
        )
        found.append(Finding("warning", "low_contrast", text))
    return found


def _causes(store: Store) -> str:
    if store.white == 255:
        return "Save them in the whole range from 0 to 255."
    return (
        "A mark or frame that is brighter than the images, an offset as of CT, or a TIFF in which 0 is white and that does"
        " not declare its greatest value (MaxSampleValue) leaves them no more: cut marks out, and save the images with"
        " what they show spread from 0 to white."
    )


def _on_masks(table: Table, store: Store) -> list[Finding]:
    found = []
    if len(scaled := np.flatnonzero(store.facts.scaled_masks)):
        text = (
            f"{counted(len(scaled), 'mask')} ({_names(table.ids[scaled].tolist())}) {_are(len(scaled))} of another"
            f" size than the image, in the same proportion, and {_are(len(scaled))} resized to it."
        )
        found.append(Finding("note", "scaled_masks", text))
    for flat, what in ((1, "all black: nothing is marked"), (2, "wholly white: the whole image is marked")):
        if len(rows := np.flatnonzero(store.facts.flat_masks == flat)):
            text = (
                f"{counted(len(rows), 'mask')} of {int(store.has_mask.sum()):,}"
                f" ({_names(table.ids[rows].tolist())}) {_are(len(rows))} {what}."
            )
            found.append(Finding("note", "flat_masks", text))
    return found


def on_blank(table: Table, store: Store) -> list[Finding]:
    """Images without content, and whether one class has far more of them than chance would give it."""
    blank = store.facts.blank
    if not blank.any():
        return []
    if blank.all():
        text = (
            f"All {counted(len(store), 'image')} are blank: the pixels of each are alike, to within 2. There is nothing to"
            " learn from them. See whether they were exported as they should be."
        )
        return [Finding("warning", "all_blank", text)]
    from scipy.stats import hypergeom

    truth, names = table.task.one_hot(table.targets).astype(bool), table.task.classes
    counts, number = truth[blank].sum(axis=0), int(blank.sum())
    where = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True) if count)
    text = (
        f"{counted(number, 'image')} {_are(number)} blank, all pixels alike to within 2 counts"
        f" ({_names(table.ids[blank].tolist())}); by class: {where or 'none has a label'}. Leave them out."
    )
    # The chance of so many in the class if the blank ones were drawn from all (Fisher's exact test, one-sided).
    luck = hypergeom.sf(counts - 1, len(table), truth.sum(axis=0), number)
    if luck.min() * len(names) < _LUCK:
        text += f" Most are {names[int(luck.argmin())]}: a network can tell that class by them."
    return [Finding("warning", "blank_images", text)]


def on_shortcuts(shortcuts: tuple[Shortcut, ...]) -> list[Finding]:
    return [
        Finding(
            "warning",
            "shortcut",
            f"The images' {one.property} tells classes apart: {one.inside:.0%} of {one.name} and {one.outside:.0%} of the"
            f" others {one.what}. A network can learn that in the place of what they show.",
        )
        for one in shortcuts
    ]


def on_changes(table: Table) -> list[Finding]:
    found = []
    if dropped := [change for change in table.changes if change.new is None]:
        where = ", ".join(f"{change.old} ({_left_out(change)})" for change in dropped)
        found.append(Finding("note", "dropped_classes", f"Classes left out by --drop-class: {where}."))
    if joined := [change for change in table.changes if change.new is not None]:
        where = ", ".join(f"{change.old} as {change.new} ({counted(change.images, 'image')})" for change in joined)
        found.append(Finding("note", "merged_classes", f"Classes that count as others by --merge: {where}."))
    return found


def _left_out(change: Change) -> str:
    images = counted(change.images, "image")
    rest = change.images - change.left_out
    return f"{images}, of which {rest:,} with other labels are kept" if rest else images


def on_repeats(within: dict[str, dict[str, int]], dropped: int) -> list[Finding]:
    found = []
    if dropped:
        text = f"{counted(dropped, 'image')} were left out of training and validation as leaks (--drop-leaks)."
        found.append(Finding("note", "dropped_leaks", text))
    repeats = {split: sum(kinds.values()) for split, kinds in within.items() if sum(kinds.values())}
    if repeats:
        where = ", ".join(f"{split} {number:,}" for split, number in repeats.items())
        text = f"Pairs of identical or near-identical images within a split: {where}. Such images count twice."
        found.append(Finding("note", "duplicates_within_splits", text))
    return found


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _names(names: list[str], shown: int = 5) -> str:
    text = ", ".join(names[:shown])
    return f"{text} and {len(names) - shown:,} more" if len(names) > shown else text
