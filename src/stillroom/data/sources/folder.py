"""A folder of images: one sub-folder per class, with or without train, val and test folders above them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from stillroom.data.files import (
    IMAGE_EXTENSIONS,
    FileReader,
    is_image_name,
    is_visible,
    list_images,
    natural_key,
)
from stillroom.data.sources.conventions import check_training_classes, exclusive_task, one_spelling, parse_split
from stillroom.data.sources.relabelling import relabel
from stillroom.data.table import Table
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

_LAYOUT = "Lay it out as FOLDER/<class>/*.png, or as FOLDER/train/<class>/*.png with val and test beside train."
_MASK_STEM = re.compile(r"(.+)_mask(?:_[0-9]+)?", re.IGNORECASE)


def read_folder(path: Path, settings: DataSettings, *, training: bool = True) -> Table:
    """The table of a folder, ``ROOT/<class>/**`` or ``ROOT/{train,val,test}/<class>/**``.

    Any of the three splits may be missing; ``training``, ``valid``, ``validation``, ``dev`` and ``testing``
    are understood, in any case. Classes are in natural order unless the settings name them. A file
    ``<stem>_mask.<ext>`` or ``<stem>_mask_1.<ext>`` beside the image ``<stem>.<ext>`` is its lesion mask;
    several are united. Hidden files and files that are no images by their ending are passed over.

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
    images, splits, labels = [], [], []
    for split, class_folder in _class_folders(root, settings.classes):
        files = list_images(class_folder)
        images += files
        splits += [split] * len(files)
        labels += [class_folder.name] * len(files)

    masks_of = _pair_masks(images)
    mask_files = {mask for masks in masks_of.values() for mask in masks}
    where = f"The folder {root}"
    pictures = [i for i, image in enumerate(images) if image not in mask_files]
    spelled, findings = one_spelling([[labels[i]] for i in pictures], settings)
    wanted = relabel(spelled, settings, where, training=training)
    kept, names = [pictures[place] for place in wanted.kept], [name for (name,) in wanted.labels]
    paths = tuple(images[i] for i in kept)
    masks = tuple(tuple(masks_of.get(path, ())) for path in paths)
    has_masks = any(masks)

    task = exclusive_task(names, settings, where, training=training)
    table = Table(
        name=root.resolve().name,
        source=f"image folder {root.resolve().name}",
        task=task,
        ids=np.array([path.relative_to(root).as_posix() for path in paths]),
        targets=task.parse(names),
        splits=np.array([splits[i] for i in kept], dtype="<U5"),
        rows=np.arange(len(kept)),
        reader=FileReader(paths, masks if has_masks else ()),
        has_masks=has_masks,
        changes=wanted.changes,
        findings=findings,
    )
    if training:
        check_training_classes(task, table.targets, table.splits, where)
    return table


def _class_folders(root: Path, classes: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Pairs of split (``""`` for none) and class folder, in order; the layout is checked on the way."""
    folders = _folders(root)
    by_split = {folder: parse_split(folder.name) for folder in folders}
    if not any(by_split.values()):
        _refuse_loose_images(root)
        if not folders:
            raise UsageError(f"The folder {root} holds no class folders and no images. {_LAYOUT}")
        pairs = [("", folder) for folder in folders]
    else:
        others = [folder.name for folder, split in by_split.items() if split is None]
        if others:
            raise UsageError(
                f"The folder {root} holds split folders and others beside them ({_some(others)}); "
                f"move the others away or into the splits. {_LAYOUT}"
            )
        used: dict[str | None, Path] = {}
        for folder, split in by_split.items():
            if split in used:
                raise UsageError(
                    f"The folders {used[split].name} and {folder.name} in {root} both mean {split}; merge them."
                )
            used[split] = folder
        for folder in (root, *folders):
            _refuse_loose_images(folder)
        pairs = [(str(split), name) for folder, split in by_split.items() for name in _folders(folder)]
        if not pairs:
            raise UsageError(f"The split folders in {root} hold no class folders. {_LAYOUT}")
    _refuse_empty(root, [folder for _, folder in pairs])
    _refuse_hidden_level(root, [folder for _, folder in pairs], classes)
    return pairs


def _pair_masks(images: list[Path]) -> dict[Path, list[Path]]:
    """Masks of each image that has any. A mask without its image would pass for one, so it is refused."""
    by_stem: dict[Path, list[Path]] = {}
    for image in images:
        by_stem.setdefault(image.with_suffix(""), []).append(image)
    masks: dict[Path, list[Path]] = {}
    for image in images:
        match = _MASK_STEM.fullmatch(image.stem)
        if match is None:
            continue
        owners = by_stem.get(image.with_name(match[1]))
        if owners is None:
            raise UsageError(
                f"{image} is named like a lesion mask, but there is no image {match[1]} beside it; "
                "add the image, remove the mask, or rename the file if it is an image."
            )
        for owner in owners:
            masks.setdefault(owner, []).append(image)
    return masks


def _folders(folder: Path) -> list[Path]:
    found = (entry for entry in folder.iterdir() if is_visible(entry.name) and entry.is_dir())
    return sorted(found, key=lambda entry: natural_key(entry.name))


def _refuse_loose_images(folder: Path) -> None:
    loose = sorted(entry.name for entry in folder.iterdir() if is_image_name(entry.name) and entry.is_file())
    if loose:
        raise UsageError(f"Images lie directly in {folder} ({_some(loose)}), so their class is unknown. {_LAYOUT}")


def _refuse_empty(root: Path, folders: list[Path]) -> None:
    empty = [folder.relative_to(root).as_posix() for folder in folders if not list_images(folder)]
    if len(empty) == len(folders):
        raise UsageError(
            f"The folder {root} holds no images: its class folders ({_some(empty)}) have no file ending in "
            f"{', '.join(IMAGE_EXTENSIONS)}."
        )
    if empty:
        raise UsageError(f"Class folders without any image in {root}: {_some(empty)}. Fill them or remove them.")


def _refuse_hidden_level(root: Path, class_folders: list[Path], classes: tuple[str, ...]) -> None:
    """Splits below the classes, or one folder too many above all: both would be read as something else."""
    for folder in class_folders:
        inner = _folders(folder)
        splits = [name.name for name in inner if parse_split(name.name)]
        if splits:
            raise UsageError(
                f"{folder} holds the split folders {_some(splits)}, below where a class should be. {_LAYOUT}"
            )
        if inner and len(class_folders) == 1 and folder.name not in classes:
            raise UsageError(
                f"The folder {root} has only one class, {folder.name!r}. If the folders inside it "
                f"({_some(inner)}) are the classes, pass {folder}."
            )


def _some(names: list[str] | list[Path], count: int = 5) -> str:
    """The first few names, and how many more there are."""
    text = ", ".join(name.name if isinstance(name, Path) else name for name in names[:count])
    return text + (f" and {len(names) - count} more" if len(names) > count else "")
