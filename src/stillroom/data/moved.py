"""Copies that were turned, mirrored or cropped: which pictures of a set are parts of others, at whatever angle.

Proposed by what no turn changes (:mod:`~stillroom.data.disks`): each picture's disk, and those of 54 squares cut out of it,
are looked up among all whole pictures, in the directions that tell this set's pictures apart best next to what a small
shift changes. Judged by laying one picture on the other (:mod:`~stillroom.data.fitting`): they must agree in what this set's
pictures do not have in common, so that two chest films of two people, which agree in all else, are not taken for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from stillroom.data.disks import (
    SIDE,
    WHOLE,
    Disk,
    amplitude,
    crops,
    harmonics,
    invariants,
    turned,
)
from stillroom.data.fitting import agreement, coarsely, finely, first_fit, laid, passed

SAME = 0.975
"""Least partial correlation of a moved copy. What copies and strangers reach stands in docs/evidence.md, section Copies."""

_LEAST_DETAIL = 1.0  # grey levels: an empty frame resembles any other
_DIMENSIONS = 12
_NEIGHBOURS = 6
_KEPT = 8  # candidates of each picture
_ALIKE = 0.55  # least correlation of disks
_PLAUSIBLE = 0.8  # least correlation after the coarse fit
_SHIFTS = ((-0.6, 0.6, 0.965), (0.6, 0.5, 0.965), (-0.5, -0.6, 0.965), (0.6, -0.6, 0.965), (0.0, 0.0, 0.93))
"""Down and right in pixels of a thumbnail, and share of the side: what a copy that lies between two squares is moved by."""
_COMMON = 4  # pictures of what all share: the mean, and the main ways to differ from it
_LARGEST_DIFFERENCE = 40.0  # mean absolute, in grey levels of 255
_CHUNK = 1024
_SAMPLE = 2000
_REMEMBERED = 2000


def find_moved(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of ``[N, 32, 32]`` uint8 thumbnails of which one shows the other, or a part of it, turned or mirrored.

    A part has about .7 of each side or more. Near copies that were not moved are found too. Each picture is held against no
    more than a few others, looked up in a k-d tree, so that time grows little faster than their number. What was found in
    the last sets of up to 2,000 pictures is remembered: folds and repeats of one process ask again and again.

    Returns:
        Pairs ``[P, 2]``, the smaller row first, and their partial correlation ``[P]``, at least :data:`SAME`.
    """
    if len(thumbnails) <= _REMEMBERED:
        return _remembered(np.ascontiguousarray(thumbnails).tobytes(), len(thumbnails))
    return _find(thumbnails)


@lru_cache(maxsize=16)
def _remembered(pixels: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    return _find(np.frombuffer(pixels, np.uint8).reshape(count, SIDE, SIDE))


def _find(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nothing = np.zeros((0, 2), np.int64), np.zeros(0)
    detailed = np.flatnonzero(amplitude(harmonics(thumbnails, WHOLE)) >= _LEAST_DETAIL)
    if len(detailed) < 2:
        return nothing
    pictures = thumbnails[detailed]
    pairs, fits = _proposed(pictures)
    if not len(pairs):
        return nothing
    common = _common(pictures)
    similarity = np.concatenate([_judged(pictures, pairs[part], fits[part], common) for part in _chunks(len(pairs))])
    same = similarity >= SAME
    found, similarity = np.sort(detailed[pairs[same]], axis=1), similarity[same]
    order = np.lexsort((-similarity, found[:, 1], found[:, 0]))
    found, similarity = found[order], similarity[order]
    first = np.concatenate([np.ones(1, bool), (np.diff(found, axis=0) != 0).any(axis=1)])[: len(found)]
    return found[first], similarity[first]


def _proposed(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidates ``[P, 2]``, the picture that may hold the other first, and how to lay it on the other ``[P, 2, 3]``."""
    from scipy.spatial import KDTree

    whole, directions = harmonics(pictures, WHOLE), _directions(pictures)
    tree = KDTree(invariants(whole) @ directions)
    rows, disks = np.arange(len(pictures)), crops()
    kept = np.zeros((0, 6))
    for number, disk in enumerate(disks):
        cut = whole if disk == WHOLE else harmonics(pictures, disk)
        _, found = tree.query(invariants(cut) @ directions, k=min(_NEIGHBOURS, len(rows)))
        first, second = np.repeat(rows, found.shape[1]), found.ravel()
        # A whole picture and another whole picture are one pair, whichever is looked up.
        others = first < second if disk == WHOLE else first != second
        usable = others & (amplitude(cut) >= _LEAST_DETAIL)[first]
        first, second = first[usable], second[usable]
        angle, mirrored, alike = (np.concatenate(parts) for parts in zip(
            *(turned(cut[first[part]], whole[second[part]]) for part in _chunks(len(first))), strict=True
        )) if len(first) else (np.zeros(0),) * 3  # fmt: skip
        found = np.stack([first, second, np.full(len(first), number), angle, mirrored, alike], axis=1)
        kept = _best(np.concatenate([kept, found[alike >= _ALIKE]]))
    if not len(kept):
        return kept[:, :2].astype(np.int64), np.zeros((0, 2, 3), np.float32)
    fits = first_fit([disks[int(number)] for number in kept[:, 2]], kept[:, 3], kept[:, 4] > 0)
    return kept[:, :2].astype(np.int64), fits


def _best(kept: np.ndarray) -> np.ndarray:
    """Of each pair the disk that is most alike, and of each first picture the best few."""
    kept = kept[np.lexsort((-kept[:, 5], kept[:, 1], kept[:, 0]))]
    kept = kept[_starts(kept[:, :2])]
    kept = kept[np.lexsort((-kept[:, 5], kept[:, 0]))]
    starts = np.flatnonzero(_starts(kept[:, :1]))
    rank = np.arange(len(kept)) - np.repeat(starts, np.diff(np.append(starts, len(kept))))
    return kept[rank < _KEPT]


def _starts(rows: np.ndarray) -> np.ndarray:
    """Which rows differ from the one before."""
    return np.concatenate([np.ones(min(1, len(rows)), bool), (np.diff(rows, axis=0) != 0).any(axis=1)])


def _directions(pictures: np.ndarray) -> np.ndarray:
    """``[72, 12]``: where pictures lie farthest apart for what shifts and small crops move them (Fisher's discriminant)."""
    from scipy.linalg import eigh

    sample = pictures[:: max(1, len(pictures) // _SAMPLE)]
    moves = [WHOLE]
    for down, right, share in _SHIFTS:
        moves.append(Disk(WHOLE.down + down, WHOLE.right + right, WHOLE.half * share))
    shown = np.stack([invariants(harmonics(sample, disk)) for disk in moves]).astype(np.float64)
    means = shown.mean(axis=0)
    inner = (shown - means).reshape(-1, shown.shape[2])
    within = inner.T @ inner / (len(sample) * (len(moves) - 1))
    between = np.cov(means, rowvar=False)
    within += np.eye(len(within)) * (0.1 * np.trace(within) / len(within) + 1e-9)
    size = len(within)
    return eigh(between, within, subset_by_index=[size - _DIMENSIONS, size - 1])[1].astype(np.float32)


def _common(pictures: np.ndarray) -> np.ndarray:
    """``[4, 32, 32]`` float32: the mean picture and the three main ways to differ from it."""
    sample = pictures[:: max(1, len(pictures) // _SAMPLE)].reshape(-1, pictures[0].size).astype(np.float32)
    sample = sample - sample.mean(axis=1, keepdims=True)
    sample /= np.maximum(sample.std(axis=1, keepdims=True), 1.0)
    mean = sample.mean(axis=0)
    ways = np.linalg.svd(sample - mean, full_matrices=False)[2][: _COMMON - 1]
    return np.concatenate([mean[None], ways]).reshape(-1, *pictures.shape[1:])


def _judged(pictures: np.ndarray, pairs: np.ndarray, fits: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Partial correlation ``[P]`` of each pair; 0 of those that need no closer look."""
    similarity = np.zeros(len(pairs))
    first, second = (pictures[pairs[:, side]].astype(np.float32) for side in (0, 1))
    target = passed(second)
    fits, alike = coarsely(passed(first), target, fits)
    near = np.flatnonzero(_possible(fits) & (alike >= _PLAUSIBLE))
    if not len(near):
        return similarity
    fits = finely(first[near], target[near], fits[near])
    shown, inside = laid(first[near], fits)
    apart = (np.abs(shown - second[near]) * inside).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    fine = _possible(fits) & (apart <= _LARGEST_DIFFERENCE) & (inside.mean(axis=(1, 2)) >= 0.75)
    similarity[near] = np.where(fine, agreement(first[near], second[near], fits, common), 0.0)
    return similarity


def _possible(fits: np.ndarray) -> np.ndarray:
    """Whether a fit is a turn and a crop, and no wild bend: the square shrinks by .6 to 1.15, its sides alike to a third."""
    shrunk = np.linalg.svd(fits[:, :, :2], compute_uv=False)
    return (shrunk[:, 0] <= 1.15) & (shrunk[:, 1] >= 0.6) & (shrunk[:, 0] <= 1.35 * shrunk[:, 1])


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))
