"""A folder of images: one sub-folder per class, with or without train, val and test folders above them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stillroom.data.companions import find_masks, is_mask_folder
from stillroom.data.files import FileReader
from stillroom.data.listing import IMAGE_EXTENSIONS, endings_in, images_among
from stillroom.data.sources.conventions import check_training_classes, exclusive_task, one_spelling, parse_split
from stillroom.data.sources.dicom_rows import frames_of
from stillroom.data.sources.folder_masks import doubt_mask_classes, refuse_lone_masks, refuse_mask_classes
from stillroom.data.sources.folder_notes import (
    count_passed_over,
    notes_on_files,
    notes_on_masks,
    notes_on_masks_of_frames,
    some,
)
from stillroom.data.sources.relabelling import relabel
from stillroom.data.table import Table
from stillroom.errors import UsageError
from stillroom.files.walk import Listing, look_into, walk
from stillroom.settings.sections import DataSettings

_LAYOUT = "Lay it out as FOLDER/<class>/*.png, or as FOLDER/train/<class>/*.png with val and test beside train."


def read_folder(path: Path, settings: DataSettings, *, training: bool = True) -> Table:
    """The table of a folder, ``ROOT/<class>/**`` or ``ROOT/{train,val,test}/<class>/**``.

    Any of the three splits may be missing; ``training``, ``valid``, ``validation``, ``dev`` and ``testing``
    are understood, in any case. Classes are in natural order unless the settings name them. Masks that stand beside images
    are theirs (:func:`~stillroom.data.companions.find_masks`); several are united. What systems leave behind and files that
    are no images by their ending are passed over, and a link to a folder is that folder, unless it leads to one that it
    stands in. The table's findings say what was taken for masks and what was passed over.

    Args:
        path: the root. Ids are POSIX paths below it.
        settings: ``classes``, ``positive``, ``drop_class``, ``merge`` and ``task`` are used.
        training: see :func:`stillroom.data.load.open_source`.

    Raises:
        UsageError: nothing to learn from, or an unclear layout: says what, and how to lay it out.
    """
    root = Path(path)
    if not root.is_dir():
        raise UsageError(f"{root} {'is not a folder' if root.exists() else 'does not exist'}.")
    if settings.task == "multilabel":
        raise UsageError(
            "A folder gives each image one class; for several labels per image pass a CSV table with columns "
            f"{settings.path_column} and {settings.label_column}, the labels joined by ';'."
        )
    upper, pairs = _class_folders(root)
    inside = {folder: walk(folder) for _, folder in pairs}
    images_of = {folder: images_among(listing.files) for folder, listing in inside.items()}
    _refuse_empty(root, inside, images_of)
    refuse_mask_classes(root, pairs, images_of, settings)
    _refuse_hidden_level(root, list(inside), settings.classes)

    found = find_masks(images_of)
    refuse_lone_masks(found)
    masks_of_others = found.files
    rows = [
        (split, folder.name, image)
        for split, folder in pairs
        for image in images_of[folder]
        if image not in masks_of_others
    ]
    where = f"The folder {root}"
    spelled, findings = one_spelling([[label] for _, label, _ in rows], settings)
    wanted = relabel(spelled, settings, where, training=training)
    kept, names = [rows[place] for place in wanted.kept], [name for (name,) in wanted.labels]
    passed_over = count_passed_over(upper, inside)
    task = exclusive_task(names, settings, where, training=training)
    frames = frames_of([image for _, _, image in kept], settings, training=training)
    kept, names = [kept[file] for file in frames.of], [names[file] for file in frames.of]
    paths = tuple(image for _, _, image in kept)
    masks = tuple(found.masks.get(path, ()) if not end else () for path, end in zip(paths, frames.ends, strict=True))
    has_masks = any(masks)
    table = Table(
        name=root.resolve().name,
        source=f"image folder {root.resolve().name}",
        task=task,
        ids=np.array([path.relative_to(root).as_posix() + end for path, end in zip(paths, frames.ends, strict=True)]),
        targets=task.parse(names),
        splits=np.array([split for split, _, _ in kept], dtype="<U5"),
        rows=np.arange(len(kept)),
        reader=FileReader(paths, masks if has_masks else (), frames.numbers, frames.display),
        patients=frames.patients,
        has_masks=has_masks,
        changes=wanted.changes,
        findings=(
            *findings,
            *doubt_mask_classes(pairs, images_of, settings),
            *notes_on_masks(root, found),
            *notes_on_masks_of_frames(root, [path for path, end in zip(paths, frames.ends, strict=True) if end], found),
            *notes_on_files(root, [*upper, *inside.values()], passed_over),
            *frames.findings,
        ),
        passed_over=passed_over,
        white=frames.white,
        shown=frames.shown,
        window=frames.window,
    )
    if training:
        check_training_classes(task, table.targets, table.splits, where)
    return table


def _class_folders(root: Path) -> tuple[list[Listing], list[tuple[str, Path]]]:
    """What lies above the classes, and pairs of split (``""`` for none) and class folder, in order; the layout is checked."""
    top = look_into(root)
    by_split = {folder: parse_split(folder.name) for folder in top.folders}
    _refuse_loose_images(root, top)
    if not any(by_split.values()):
        if not top.folders:
            raise UsageError(f"The folder {root} holds no class folders and no images{_instead([top])}. {_LAYOUT}")
        _refuse_linked_twice(root, top)
        return [top], [("", folder) for folder in top.folders]
    others = [folder.name for folder, split in by_split.items() if split is None]
    if others:
        raise UsageError(
            f"The folder {root} holds split folders and others beside them ({some(others)}); "
            f"move the others away or into the splits. {_LAYOUT}"
        )
    used: dict[str | None, Path] = {}
    for folder, split in by_split.items():
        if split in used:
            raise UsageError(
                f"The folders {used[split].name} and {folder.name} in {root} both mean {split}; merge them."
            )
        used[split] = folder
    below = {folder: look_into(folder) for folder in by_split}
    for folder, level in below.items():
        _refuse_loose_images(folder, level)
        _refuse_linked_twice(folder, level)
    pairs = [(str(by_split[folder]), name) for folder, level in below.items() for name in level.folders]
    if not pairs:
        raise UsageError(f"The split folders in {root} hold no class folders. {_LAYOUT}")
    return [top, *below.values()], pairs


def _refuse_loose_images(folder: Path, level: Listing) -> None:
    loose = [path.name for path in images_among(level.files)]
    if loose:
        raise UsageError(f"Images lie directly in {folder} ({some(loose)}), so their class is unknown. {_LAYOUT}")


def _refuse_linked_twice(folder: Path, level: Listing) -> None:
    """Two classes that are one folder, by a link: every image would have both labels."""
    first: dict[Path, Path] = {}
    for path in level.folders:
        other = first.setdefault(path.resolve(), path)
        if other != path:
            raise UsageError(
                f"The classes {other.name} and {path.name} in {folder} are one folder, by a link: remove the link, or name "
                "the folder inside a class of its own."
            )


def _refuse_empty(root: Path, inside: dict[Path, Listing], images_of: dict[Path, list[Path]]) -> None:
    empty = [folder for folder, images in images_of.items() if not images]
    names = [folder.relative_to(root).as_posix() for folder in empty]
    instead = _instead([inside[folder] for folder in empty])
    if len(empty) == len(images_of):
        raise UsageError(
            f"The folder {root} holds no images: its class folders ({some(names)}) have no file ending in "
            f"{', '.join(IMAGE_EXTENSIONS)}{instead}."
        )
    if empty:
        raise UsageError(
            f"Class folders without any image in {root}: {some(names)}{instead}. Fill them or remove them."
        )


def _instead(levels: list[Listing]) -> str:
    """What lies there in the place of images."""
    found = endings_in([path for level in levels for path in level.files])
    return f" (there are {some(found)} files, which are not read)" if found else ""


def _refuse_hidden_level(root: Path, class_folders: list[Path], classes: tuple[str, ...]) -> None:
    """Splits below the classes, or one folder too many above all: both would be read as something else."""
    for folder in class_folders:
        inner = look_into(folder).folders
        splits = [name.name for name in inner if parse_split(name.name)]
        if splits:
            raise UsageError(
                f"{folder} holds the split folders {some(splits)}, below where a class should be. {_LAYOUT}"
            )
        masked = any(is_mask_folder(path.name) for path in inner)
        if inner and not masked and len(class_folders) == 1 and folder.name not in classes:
            raise UsageError(
                f"The folder {root} has only one class, {folder.name!r}. If the folders inside it "
                f"({some([path.name for path in inner])}) are the classes, pass {folder}."
            )
