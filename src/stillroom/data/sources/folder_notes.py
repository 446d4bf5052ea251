"""What the reader of a folder tells its user: which files were taken for masks, and which were passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillroom.data.companions import Companions, is_mask_folder
from stillroom.data.listing import BESIDE, ending_of, passed_over_among
from stillroom.data.table import Finding
from stillroom.files.walk import Listing
from stillroom.shown import counted

_ENDINGS, _CLASSES = 5, 5
"""Shown of each; all stand in audit.json."""


def notes_on_masks(root: Path, found: Companions) -> list[Finding]:
    """How many files were taken for masks and from where, and which were not though they are named so."""
    notes = []
    files = sorted(found.files)
    folders = Counter(file.parent for file in files if any(is_mask_folder(part) for part in _folders(root, file)))
    named = [file for file in files if file.parent not in folders]
    where = [f"{number:,} in {folder.relative_to(root).as_posix()}" for folder, number in sorted(folders.items())]
    if named:
        where.append(f"{len(named):,} by name, such as {named[0].relative_to(root).as_posix()}")
    if where:
        text = (
            f"{counted(len(files), 'file is', 'files are')} taken for masks of {counted(len(found.masks), 'image')}:"
            f" {some(where)}."
        )
        notes.append(Finding("note", "masks_taken", text))
    if found.unclear:
        names = [file.relative_to(root).as_posix() for file in found.unclear]
        text = (
            f"{counted(len(names), 'file is', 'files are')} named like masks, or in folders named so and taken for images:"
            f" no image goes with {some(names, 3)}. If they are masks, name them as their images."
        )
        notes.append(Finding("warning", "named_like_masks", text))
    if found.doubtful:
        names = [file.relative_to(root).as_posix() for file in found.doubtful]
        text = (
            f"{counted(len(names), 'file is', 'files are')} called after another image, as masks, drawings or crops may be,"
            f" and taken for images: {some(names, 3)}. If they are masks, call them _mask or put them into masks."
        )
        notes.append(Finding("warning", "called_after_images", text))
    return notes


def notes_on_masks_of_frames(root: Path, several: Sequence[Path], found: Companions) -> list[Finding]:
    """Masks of files that hold several frames, of which nothing says whose they are."""
    files = [file.relative_to(root).as_posix() for file in dict.fromkeys(several) if file in found.masks]
    if not files:
        return []
    text = (
        f"{counted(len(files), 'file')} of several frames ({some(files, 3)}) have a mask, which is of one image: it"
        " is not used."
    )
    return [Finding("warning", "masks_of_frames", text)]


def count_passed_over(upper: Sequence[Listing], inside: Mapping[Path, Listing]) -> dict[str, Counter[str]]:
    """Files that are not read, by ending and class folder.

    Args:
        upper: what lies above the classes.
        inside: what lies in each class folder.
    """
    counts: dict[str, Counter[str]] = {}
    above = [("beside the class folders", level.files) for level in upper]
    for name, files in (*above, *((folder.name, level.files) for folder, level in inside.items())):
        for ending in map(ending_of, passed_over_among(files)):
            counts.setdefault(ending, Counter())[name] += 1
    return counts


def notes_on_files(root: Path, levels: Sequence[Listing], counts: Mapping[str, Counter[str]]) -> list[Finding]:
    """Files passed over by ending and class, folders of systems, and links that lead in a circle.

    Args:
        root: the source.
        levels: what lies above the classes and in them.
        counts: :func:`count_passed_over` of these.
    """
    odd = {ending: names for ending, names in counts.items() if ending not in BESIDE}
    usual = {ending: names for ending, names in counts.items() if ending in BESIDE}
    notes = []
    if odd:
        text = f"Passed over, for such files are not read: {_by_class(odd)}. Save images as PNG, TIFF or JPEG."
        notes.append(Finding("warning", "files_passed_over", text))
    if usual:
        notes.append(Finding("note", "other_files", f"Passed over as no images: {_by_class(usual)}."))
    if left := Counter(path.name for level in levels for path in level.left_behind):
        text = (
            f"Folders of a system or program were not entered: {some([f'{name} ({n:,})' for name, n in left.items()])}."
        )
        notes.append(Finding("note", "system_folders", text))
    if circular := [path.relative_to(root).as_posix() for level in levels for path in level.circular]:
        text = f"Links to a folder that they stand in were not followed: {some(circular)}."
        notes.append(Finding("note", "circular_links", text))
    return notes


def some(names: Sequence[str], count: int = 5) -> str:
    """The first few names, and how many more there are."""
    text = ", ".join(names[:count])
    return text + (f" and {len(names) - count} more" if len(names) > count else "")


def _by_class(counts: Mapping[str, Counter[str]]) -> str:
    """``60 .heic (malignant 60), 9 .dcm (benign 9)``, the commonest first; what is cut is counted, and the whole named."""
    ranked = sorted(counts.items(), key=lambda item: -item[1].total())
    words = [
        f"{names.total():,} {ending or counted(names.total(), 'file', 'files').split()[1] + ' without an ending'}"
        f" ({_largest(names)})"
        for ending, names in ranked[:_ENDINGS]
    ]
    if len(ranked) > _ENDINGS:
        rest = sum(names.total() for _, names in ranked[_ENDINGS:])
        every = sum(names.total() for names in counts.values())
        words[-1] += (
            f" and {rest:,} of {counted(len(ranked) - _ENDINGS, 'more ending')}: {every:,} in all (--json names each)"
        )
    return ", ".join(words)


def _largest(names: Counter[str]) -> str:
    text = ", ".join(f"{name} {number:,}" for name, number in names.most_common(_CLASSES))
    rest = sum(number for _, number in names.most_common()[_CLASSES:])
    return text + (f" and {rest:,} in {len(names) - _CLASSES} more" if rest else "")


def _folders(root: Path, file: Path) -> tuple[str, ...]:
    """Names of the folders between the root and the file, but for the class's, which may be called anything."""
    return file.relative_to(root).parts[1:-1]
