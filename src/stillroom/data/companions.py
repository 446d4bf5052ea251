"""Masks that stand beside images: no pictures of patients, and known as masks by folder and name together.

A name alone says little: a class may be called ``mask``. A file is a mask where its name or its folder says so and the image
that it belongs to is there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, product
from pathlib import Path

_MASK = r"masks?|msks?|masken?|masques?"
_MASK_WORDS = rf"{_MASK}|seg|segs|segmentations?|labels?|label[ _-]?maps?|annotations?|annot|gts?|ground[ _-]?truths?"
# Masks to some, drawings, crops or whole images to others.
_DOUBTFUL_WORDS = r"rois?|lesions?|overlays?|superpixels?|contours?|annotated|bounding[ _-]?box(?:es)?"
_IMAGE_WORDS = r"images?|imgs?|orig|originals?|pictures?|pics?|photos?|scans?|frames?|raw|rgb|jpe?gs?|jpe?g[ _-]?images"
_WHICH = r"(?:[0-9]+)?(?:[ _.-](?:[0-9]+|left|right))*"  # of several
_AFTER = re.compile(rf"(.+)(?:[ _.-]|(?<=[0-9)]))({_MASK_WORDS}){_WHICH}", re.IGNORECASE)
_BEFORE = re.compile(rf"({_MASK_WORDS})[ _.-](.+)", re.IGNORECASE)
_BARE = re.compile(rf"({_MASK_WORDS})[ _.-]?([0-9]*)", re.IGNORECASE)
_ANY_WORD = re.compile(_MASK_WORDS, re.IGNORECASE)
_ANY_MASK = re.compile(_MASK, re.IGNORECASE)
_DOUBTFUL = re.compile(rf"(?:(.+)[ _.-])?(?:{_DOUBTFUL_WORDS}){_WHICH}", re.IGNORECASE)
_DOUBTFUL_BEFORE = re.compile(rf"(?:{_DOUBTFUL_WORDS})[ _.-](.+)", re.IGNORECASE)
_ANY_DOUBTFUL = re.compile(_DOUBTFUL_WORDS, re.IGNORECASE)
_NUMBERED = re.compile(r"(.+)[ _.-][0-9]+")
_IMAGE_AFTER = re.compile(rf"(.+)[ _.-](?:{_IMAGE_WORDS})", re.IGNORECASE)
_IMAGE_BEFORE = re.compile(rf"(?:{_IMAGE_WORDS})[ _.-](.+)", re.IGNORECASE)
_IMAGE_NUMBER = re.compile(rf"(?:{_IMAGE_WORDS})([0-9]+)", re.IGNORECASE)
_IMAGE_FOLDER = re.compile(_IMAGE_WORDS, re.IGNORECASE)
_MASK_FOLDER = re.compile(rf"(?:.*[^a-z])?(?:{_MASK_WORDS}|segmentation ?(?:class|object))(?:[^a-z].*)?", re.IGNORECASE)
_MASK_CLASS = re.compile(
    rf"(?:(?:lesion|lung|infection|tumou?r|manual|binary|expert|roi)[ _-]?)*(?:{_MASK_WORDS})"
    r"(?:[ _-]?(?:images?|pngs?|binary|masks?|[0-9]+))*",
    re.IGNORECASE,
)

_SIDE = re.compile(r"left|right|l|r", re.IGNORECASE)
_ENDING = re.compile(r"\.(png|jpe?g|bmp|tiff?|webp|gif)$", re.IGNORECASE)

_MANY = 0.25  # of a folder's images

_Place = tuple[Path | str, ...]


@dataclass(frozen=True)
class Companions:
    """What was found of masks among images.

    Attributes:
        masks: of each image that has any, its masks in the order of the files.
        lone: files that are masks as others of the source are, without an image to belong to.
        unclear: files that are named like masks or lie in folders named so, where no image goes with any: taken for images.
        doubtful: files called after another image, ``7_roi`` and ``overlays/7`` of ``7``, that may be masks, drawings or
            crops of it: taken for images.
    """

    masks: Mapping[Path, tuple[Path, ...]]
    lone: tuple[Path, ...]
    unclear: tuple[Path, ...]
    doubtful: tuple[Path, ...] = ()

    @property
    def files(self) -> frozenset[Path]:
        """The masks."""
        return frozenset(mask for masks in self.masks.values() for mask in masks)


def is_image_folder(name: str) -> bool:
    """Whether a folder's name says that images are inside and nothing else: ``images``, ``img``..."""
    return _IMAGE_FOLDER.fullmatch(name) is not None


def is_image_class(name: str) -> bool:
    """The same of a folder in the place of a class, where ``photo`` and ``scan`` may be one: ``images``, ``img``..."""
    return re.fullmatch(r"images?|imgs?|originals?", name, re.IGNORECASE) is not None


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name speaks of masks at all: ``masks``, ``Lung mask``, ``GT``, ``no_mask``..."""
    return _MASK_FOLDER.fullmatch(name) is not None


def find_masks(files: Mapping[Path, Sequence[Path]]) -> Companions:
    """Which image files are masks of which others.

    - Beside the image: ``scan_mask.png``, ``scan-seg.tif``, ``scan_mask_1.png`` or ``mask_scan.png`` of ``scan.png``,
      ``mask1.png`` of ``scan1.png`` or ``1.png``, ``mask.png`` of the one image in its folder.
    - In a folder of its own beside the images or beside their folder, at any depth: ``masks/scan.png`` of ``scan.png`` or of
      ``images/scan.png``, with or without a mark in its name as above, or a number for one of several. Where each
      image has a folder (``7/images/scan.png``), all that is in ``7/masks`` is its. ``masks/left/scan.png`` is one of two.

    Args:
        files: image files in natural order, by the folder inside which masks are looked for: each is below it.
    """
    search = _Search(files)
    masks: dict[Path, list[Path]] = defaultdict(list)
    ways: set[str] = set()
    unpaired: list[tuple[Path, str]] = []
    for file, way in search.suspects.items():
        owners = search.owners_of(file)
        if owners:
            ways.add(way)
        else:
            unpaired.append((file, way))
        for owner in owners:
            masks[owner].append(file)
    kept = {file for file, way in unpaired if way in ways} | search.surely_masks([file for file, _ in unpaired])
    return Companions(
        {owner: tuple(found) for owner, found in masks.items()},
        tuple(file for file, _ in unpaired if file in kept),
        tuple(file for file, _ in unpaired if file not in kept),
        tuple(filter(search.is_doubtful, search.place_of)),
    )


def pairing(folder: Path, files: Sequence[Path], others: Mapping[Path, Sequence[Path]]) -> float:
    """The share of a folder's image files that are named as an image of the other folders is, in [0, 1]."""
    known = set()
    for top, inside in others.items():
        for file in inside:
            place = _place(file.parent, top)[1:]
            for name in _names_of_image(file.stem):
                known |= {(place, name), ((top.name, *place), name)}  # the latter of masks/CLASS/scan.png
    paired = 0
    for file in files:
        place = _place(file.parent, folder)[1:]
        paired += any((place, name) in known for name in _names_of_owner(file.stem, in_folder=True))
    return paired / max(len(files), 1)


def named_like_masks_of(name: str, sibling: str) -> bool:
    """Whether a class folder is named as one of masks (``masks``, ``Lung mask``) or of a sibling's (``benign_masks``)."""
    if _MASK_CLASS.fullmatch(name):
        return "msk" not in name.lower() or is_image_class(sibling)  # which may be bones and muscles
    after, before = _AFTER.fullmatch(name), _BEFORE.fullmatch(name)
    return sibling.casefold() in {match.casefold() for match in (after and after[1], before and before[2]) if match}


def named_after(name: str, sibling: str) -> bool:
    """Whether a class folder is named as one of drawings or crops (``overlays``) or of a sibling's (``benign_annotated``)."""
    if _ANY_DOUBTFUL.fullmatch(name):
        return True
    after, before = _DOUBTFUL.fullmatch(name), _DOUBTFUL_BEFORE.fullmatch(name)
    return sibling.casefold() in {match[1].casefold() for match in (after, before) if match and match[1]}


class _Search:
    """Images by where they are, and the files that may be masks."""

    def __init__(self, files: Mapping[Path, Sequence[Path]]) -> None:
        self.suspects: dict[Path, str] = {}  # and why: the word in the name, or that of a folder
        self.place_of: dict[Path, _Place] = {}
        self.owners: dict[Path, list[Path]] = {}
        self.by_folder: dict[Path, list[Path]] = defaultdict(list)
        self.by_name: dict[tuple[_Place, str], list[Path]] = defaultdict(list)
        self.by_place: dict[_Place, list[Path]] = defaultdict(list)
        for top, inside in files.items():
            for file in inside:
                self._sort_in(file, top)

    def _sort_in(self, file: Path, top: Path) -> None:
        folder, stem = file.parent, file.stem
        self.by_folder[folder].append(file)
        self.place_of[file] = place = _place(folder, top)
        if _speaks_of_masks(folder, top):
            self.suspects[file] = "folder"
            return
        if not _ANY_WORD.search(stem):  # of most files that is all there is to ask
            pass
        elif match := _AFTER.fullmatch(stem):
            self.suspects[file] = match[2].lower()
        elif (match := _BEFORE.fullmatch(stem)) or (match := _BARE.fullmatch(stem)):
            self.suspects[file] = match[1].lower()
        for name in _names_of_image(stem):
            self.by_name[place, name].append(file)
        self.by_place[place].append(file)

    def owners_of(self, mask: Path) -> list[Path]:
        """The images that a file is the mask of: one, or several in one folder that differ in their ending alone."""
        if mask not in self.owners:  # a chain x, x_gt, x_gt_gt... asks for each again and again
            self.owners[mask] = self._owners_by_name(mask) or self._owner_by_place(mask)
        return self.owners[mask]

    def _owners_by_name(self, mask: Path) -> list[Path]:
        in_folder, place = self.suspects[mask] == "folder", self.place_of[mask]
        named: list[list[Path]] = []
        places = [place, _without_side(place)] if in_folder else [place]  # masks/left/7 of 7, which has no side
        for place, name in product(dict.fromkeys(places), _names_of_owner(mask.stem, in_folder=in_folder)):
            found = self.by_name.get((place, name), [])
            # A mark in the name points at the file beside it.
            found = [file for file in found if file != mask and (in_folder or file.parent == mask.parent)]
            named += [[file for file in found if file.stem == name], found]
        plain = ([file for file in found if file not in self.suspects] for found in named)
        marked = ([file for file in found if file in self.suspects and not self.owners_of(file)] for found in named)
        owners = next(filter(None, chain(plain, marked)), [])
        return owners if len({owner.parent for owner in owners}) == 1 else []

    def _owner_by_place(self, mask: Path) -> list[Path]:
        """The only image where a mask is, with whatever name: in ``7/images`` of ``7/masks``, or beside ``mask.png``."""
        place = self.place_of[mask]
        if self.suspects[mask] == "folder":
            alone = self.by_place.get(place, []) if len(place) > 1 else []
            return list(alone) if len(alone) == 1 and is_image_folder(alone[0].parent.name) else []
        bare = _BARE.fullmatch(mask.stem)
        if not bare or (bare[2] and mask.parent == place[0]):
            return []
        others = [file for file in self.by_folder[mask.parent] if file not in self.suspects]
        return others if len(others) == 1 else []

    def surely_masks(self, unpaired: Sequence[Path]) -> set[Path]:
        """Those of the files without an image that are masks all the same: by their folder, or by many of their kind in one.

        A single ``face_mask.png`` may well be an image.
        """
        suspects, found = set(unpaired), set[Path]()
        alike: dict[Path, list[Path]] = defaultdict(list)
        for file in unpaired:
            if self.suspects[file] == "folder":
                found |= {file} if self._beside_images(file) else set()
            elif not suspects.issuperset(self.by_folder[file.parent]):
                bare, is_mask = _BARE.fullmatch(file.stem), _ANY_MASK.fullmatch(self.suspects[file])
                if bare and (is_mask or not bare[2]) and file.parent != self.place_of[file][0]:
                    found.add(file)
                elif is_mask:
                    alike[file.parent].append(file)
        for folder, files in alike.items():
            if len(files) >= _MANY * len(self.by_folder[folder]):
                found.update(files)
        return found

    def _beside_images(self, mask: Path) -> bool:
        """Whether a file lies in a folder called ``masks`` and no more, beside one called ``images``."""
        top = self.place_of[mask][0]
        return any(
            _ANY_WORD.fullmatch(folder.name) and folder.parent in self.above_images
            for folder in mask.parents
            if folder.is_relative_to(top) and folder != top
        )

    @cached_property
    def above_images(self) -> frozenset[Path]:
        """Folders with one inside that is called ``images`` and holds some."""
        folders = {file.parent for files in self.by_name.values() for file in files}
        return frozenset(
            folder.parent for inner in folders for folder in (inner, *inner.parents) if is_image_class(folder.name)
        )

    def is_doubtful(self, file: Path) -> bool:
        """Whether a file is called after another as one that may be its mask: by ``roi``, ``overlay``..."""
        if file in self.suspects:
            return False
        place, plain = self.place_of[file], _without_doubtful(self.place_of[file])
        match = _DOUBTFUL.fullmatch(file.stem) if _ANY_DOUBTFUL.search(file.stem) else None
        names = [match[1]] if match and match[1] else []
        if plain != place:
            names.append(file.stem)
        elif match and not names and file.parent != place[0]:
            return any(other != file and other not in self.suspects for other in self.by_folder[file.parent])
        return any(other != file for name in names for other in self.by_name.get((plain, name), []))


@lru_cache(maxsize=4096)
def _place(folder: Path, top: Path) -> _Place:
    """Where files of a folder are, parts that say images or masks left out, so that the two meet."""
    parts = folder.relative_to(top).parts
    return (top, *(part for part in parts if not is_mask_folder(part) and not is_image_folder(part)))


@lru_cache(maxsize=4096)
def _without_side(place: _Place) -> _Place:
    return (place[0], *(part for part in place[1:] if not _SIDE.fullmatch(str(part))))


@lru_cache(maxsize=4096)
def _without_doubtful(place: _Place) -> _Place:
    return (place[0], *(part for part in place[1:] if not _ANY_DOUBTFUL.fullmatch(str(part))))


@lru_cache(maxsize=4096)
def _speaks_of_masks(folder: Path, top: Path) -> bool:
    return any(is_mask_folder(part) for part in folder.relative_to(top).parts)


def _names_of_image(stem: str) -> Iterator[str]:
    """The names by which masks may call an image."""
    yield stem
    for pattern in (_IMAGE_AFTER, _IMAGE_BEFORE, _IMAGE_NUMBER):
        if match := pattern.fullmatch(stem):
            yield match[1]


def _names_of_owner(stem: str, *, in_folder: bool) -> Iterator[str]:
    """The names that a mask's image may have, likeliest first."""
    if in_folder:
        yield stem
    inner = stem
    while match := _AFTER.fullmatch(inner):
        yield (inner := match[1])
        if _ENDING.search(inner):  # 7.png.mask.png
            yield _ENDING.sub("", inner)
    if (match := _BEFORE.fullmatch(stem)) or ((match := _BARE.fullmatch(stem)) and match[2]):
        yield match[2]
    if in_folder and (match := _NUMBERED.fullmatch(stem)):
        yield match[1]
