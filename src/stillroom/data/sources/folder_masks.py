"""Masks that a folder source refuses or doubts: folders in the place of a class, and files without their image."""

from __future__ import annotations

import shlex
from pathlib import Path

from stillroom.data.companions import (
    Companions,
    is_image_class,
    is_mask_folder,
    named_after,
    named_like_masks_of,
    pairing,
)
from stillroom.data.table import Finding
from stillroom.errors import UsageError
from stillroom.files.walk import look_into
from stillroom.settings.sections import DataSettings

_HALF = 0.5


def refuse_mask_classes(
    root: Path, pairs: list[tuple[str, Path]], images_of: dict[Path, list[Path]], settings: DataSettings
) -> None:
    """Refuse a folder of masks in the place of a class: ``train/img`` and ``train/mask`` are no two classes.

    A class may well be called ``mask``. It is one where the settings name it, where the other folders' names speak of masks
    too (``no_mask``), and where fewer than half of its files are named as an image of theirs is, unless these are called
    ``images`` or the like, or folders inside it are called as the classes are.

    Args:
        root: the source.
        pairs: split and class folder.
        images_of: image files by class folder.
        settings: ``classes``, ``drop_class`` and ``merge`` name classes.

    Raises:
        UsageError: names the folders, and where masks go.
    """
    named = {*settings.classes, *settings.drop_class, *settings.merges}
    for split, folder in pairs:
        if folder.name in named or not is_mask_folder(folder.name):
            continue
        others = {
            other: images_of[other]
            for side, other in pairs
            if side == split and "mask" not in other.name.lower() and not is_mask_folder(other.name)
        }
        if not any(named_like_masks_of(folder.name, other.name) for other in others):
            continue
        plain = all(is_image_class(other.name) for other in others)
        mirrored = {other.name for other in others} & {inner.name for inner in look_into(folder).folders}
        if not plain and not mirrored and pairing(folder, images_of[folder], others) < _HALF:
            continue
        names = dict.fromkeys(other.name for _, other in pairs)
        raise UsageError(_refusal(root, folder, list(others), list(names)))


def doubt_mask_classes(
    pairs: list[tuple[str, Path]], images_of: dict[Path, list[Path]], settings: DataSettings
) -> list[Finding]:
    """A warning of each class that is called after another and has its files' names: ``benign_annotated`` of ``benign``."""
    named = {*settings.classes, *settings.drop_class, *settings.merges}
    doubts = {}
    for split, folder in pairs:
        for side, other in pairs:
            if side != split or other == folder or folder.name in named or not named_after(folder.name, other.name):
                continue
            if pairing(folder, images_of[folder], {other: images_of[other]}) >= _HALF:
                doubts[folder.name] = other.name
    return [
        Finding(
            "warning",
            "class_named_after",
            f"The files of {name} are called as those of {other} are, and {name} is taken for a class: if it holds masks or "
            f"drawings of the same images, pass --drop-class {name}.",
        )
        for name, other in doubts.items()
    ]


def _refusal(root: Path, masks: Path, images: list[Path], classes: list[str]) -> str:
    names = " and ".join(path.relative_to(root).as_posix() for path in (*images[:3], masks))
    inner = [path.name for path in look_into(images[0]).folders] if len(images) == 1 else []
    if inner and is_image_class(images[0].name):
        advice = (
            f"If the folders inside {images[0].name} are the classes, pass {images[0]}, or put the masks where they are"
        )
    else:
        advice = "Masks go into the class of their image"
    return (
        f"{names} in {root} are images and their masks, not classes. {advice}: CLASS/images/scan.png with "
        f"CLASS/masks/scan.png, or CLASS/scan.png with CLASS/scan_mask.png. If {masks.name} is a class, pass "
        f"--classes {shlex.join(classes)}."
    )


def refuse_lone_masks(found: Companions) -> None:
    """Refuse a mask without its image, which would pass for one.

    Raises:
        UsageError: names the first.
    """
    if not found.lone:
        return
    first = found.lone[0]
    more = f" ({len(found.lone) - 1:,} more are like it)" if len(found.lone) > 1 else ""
    raise UsageError(
        f"{first} is named like a mask, or lies in a folder of masks, but there is no image that it belongs to{more}: "
        "call it as its image is called, letter for letter and zero for zero (7_mask.png beside 7.png, masks/007.png for "
        "images/007.png), add the image, remove the mask, or rename it if it is an image."
    )
