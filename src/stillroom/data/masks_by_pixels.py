"""Images that look like masks among images that do not: nearly every pixel has one of a few values, and edges are sharp.

What a file's name or folder does not tell, its pixels may. Pixels alone accuse no image, since a picture may be so: it must
stand beside another of its number, or nearly all of its class must look so and another class must not.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath

import numpy as np

from stillroom.data.store import Store
from stillroom.data.table import Finding, Table

_NEAR = 6  # of 255: what JPEG and resizing leave of one value
_APART = 24  # between two values
_CALM = 4  # what pixels of a place without an edge differ by
_FLAT = 0.7  # of an image are such places
_TOLD = 0.99  # of these have one of the few values
_VALUES = 3  # background, a part, and a part in that, as disc and cup of a fundus
_EDGE = (
    8  # pixels at edges for each calm one off the commonest value: masks have 1 to 8, brain slices on black far more
)
_PERHAPS = 0.5  # of a thumbnail
_SIDE = 96  # wide enough to tell; of larger images every second or third pixel is looked at
_CHUNK = 512
_MOST, _NONE = 0.6, 0.02  # of a class: lesions may be too small to tell
_FEW = 0.1
_PAIRS = 3
_SHOWN = 3


def find_masks_by_pixels(table: Table, store: Store) -> tuple[np.ndarray, list[Finding]]:
    """The rows that are probably masks, ascending, and what is to be said of them.

    Args:
        table: the rows with their classes and names.
        store: the same rows, decoded.
    """
    flat = few_valued(store)
    if not flat.any():
        return np.zeros(0, np.int64), []
    truth = table.task.one_hot(table.targets).astype(bool)
    shares = np.array([flat[own].mean() if own.any() else 0.0 for own in truth.T])
    found = []
    whole = np.flatnonzero(
        (shares >= _MOST) & (truth.sum(axis=0) >= _PAIRS) & table.task.exclusive & (shares <= _NONE).any()
    )
    of_class = flat & truth[:, whole].any(axis=1)
    if len(whole):
        names = ", ".join(table.task.classes[place] for place in whole)
        text = (
            f"The images of {names} look like masks, not pictures, and those of other classes do not: nearly all pixels of"
            f" each have one of few values ({_some(table, np.flatnonzero(of_class))}). If they are masks, they go beside"
            f" their images as x_mask.png or masks/x.png, or are left out by --drop-class {table.task.classes[whole[0]]}."
        )
        found.append(Finding("warning", "class_of_masks", text))
    partner = _partners(table, flat)
    paired = np.array(sorted(row for row in partner if not of_class[row]), np.int64)
    if len(paired):
        counts = truth[paired].sum(axis=0)
        where = ", ".join(f"{name} {n:,}" for name, n in zip(table.task.classes, counts, strict=True) if n)
        first = int(paired[0])
        look = "image looks like a mask" if len(paired) == 1 else "images look like masks"
        text = (
            f"{len(paired):,} {look}, not pictures, beside pictures of their names or numbers, such as {table.ids[first]}"
            f" beside {table.ids[partner[first]]}; by class: {where or 'none has a label'}. Others with small marked regions"
            " may be among the images. If they are masks, call them x_mask.png, put them into a folder masks or, in a table,"
            " into the column mask."
        )
        found.append(Finding("warning", "images_like_masks", text))
    return np.union1d(np.flatnonzero(of_class), paired), found


def few_valued(store: Store) -> np.ndarray:
    """``[N]`` bool: nearly all pixels have one of two or three values well apart, with sharp edges between.

    Thumbnails tell first which images may be so, and of these alone pixels are read. A mask whose lesion is only a few pixels
    wide at the store's size is not told.
    """
    found = np.zeros(len(store), bool)
    step = max(1, store.size // _SIDE)
    for start in range(0, len(store), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(store)))
        thumbnails = np.asarray(store.thumbnails[rows])
        near = _near_values(_histograms(thumbnails, np.ones(thumbnails.shape, bool)))
        rows = rows[near.sum(axis=0) >= _PERHAPS * thumbnails[0].size]
        if len(rows):
            pixels = store.pixels[store.rows[rows], :, ::step, ::step].max(axis=1)
            found[rows] = _flat_and_sharp(
                pixels if store.white == 255 else (pixels * (255 / store.white)).astype(np.uint8)
            )
    return found


def _flat_and_sharp(images: np.ndarray) -> np.ndarray:
    """``[n]`` bool of ``[n, S, S]`` uint8."""
    inner = images[:, 1:-1, 1:-1]
    calm = _widest(images) <= _CALM
    near = _near_values(_histograms(inner, calm))
    all_calm, area = calm.sum(axis=(1, 2)), inner[0].size
    told = near.sum(axis=0) >= _TOLD * all_calm
    sharp = area - all_calm <= _EDGE * near[1:].sum(axis=0)
    return np.asarray((all_calm >= _FLAT * area) & told & sharp & near[1:].any(axis=0))


def _widest(images: np.ndarray) -> np.ndarray:
    """``[n, S - 2, S - 2]``: the largest difference among each pixel and its eight neighbours."""

    def over(function: np.ufunc) -> np.ndarray:
        down = function(function(images[:, :-2], images[:, 1:-1]), images[:, 2:])
        return np.asarray(function(function(down[..., :-2], down[..., 1:-1]), down[..., 2:]))

    return over(np.maximum) - over(np.minimum)


def _histograms(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """``[n, 256]`` counts of the chosen pixels of each image."""
    places = images.astype(np.int32) + 256 * np.arange(len(images), dtype=np.int32)[:, None, None]
    return np.bincount(places[chosen], minlength=256 * len(images)).reshape(-1, 256)


def _near_values(counts: np.ndarray) -> np.ndarray:
    """``[3, n]`` how many pixels of each histogram lie near its commonest value, its next that is well apart, and a third."""
    rows, values = np.arange(len(counts))[:, None], np.arange(256)
    found = []
    for _ in range(_VALUES):
        sums = np.pad(counts, ((0, 0), (_NEAR + 1, _NEAR))).cumsum(axis=1)
        near = sums[:, 2 * _NEAR + 1 :] - sums[:, : -2 * _NEAR - 1]
        best = near.argmax(axis=1)[:, None]
        found.append(near[rows, best][:, 0])
        counts = np.where(np.abs(values - best) > _APART, counts, 0)
    return np.stack(found)


def _partners(table: Table, flat: np.ndarray) -> dict[int, int]:
    """For each row that looks like a mask one of its class and number that does not; none where sets of two such are common.

    Numbers alone may meet by chance: fewer than three such pairs must have one name.
    """
    groups: dict[tuple[bytes, str], list[int]] = defaultdict(list)
    stems = [PurePosixPath(name).stem.casefold() for name in table.ids.tolist()]
    for row, stem in enumerate(stems):
        groups[table.targets[row].tobytes(), _number(stem)].append(row)
    found: dict[int, int] = {}
    kinds = Counter[str]()
    for rows in groups.values():
        masks, pictures = [row for row in rows if flat[row]], [row for row in rows if not flat[row]]
        kinds["mixed"] += bool(masks and pictures)
        kinds["masks"] += len(masks) > 1 and not pictures
        found |= dict.fromkeys(masks, pictures[0]) if pictures else {}
    if kinds["masks"] > _FEW * kinds["mixed"]:
        return {}
    by_name = {mask: picture for mask, picture in found.items() if stems[mask] == stems[picture]}
    return found if len(found) >= _PAIRS else by_name


def _number(stem: str) -> str:
    """What a mask and its image share of their names: the numbers, or all of a name that has none."""
    return "-".join(re.findall(r"[0-9]+", stem)) or stem


def _some(table: Table, rows: np.ndarray) -> str:
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    return ", ".join(table.ids[rows[:_SHOWN]].tolist()) + more
