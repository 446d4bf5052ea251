"""Which images are the same picture twice: pixel for pixel, re-encoded, resized, brightened, turned, mirrored or cropped.

Perceptual hashes over-match medical images, which all share one anatomy or one field of view: two chest films of two
people agree in most bits. So pictures are compared by what sets them apart: the 32 x 32 thumbnail is band-passed (no
shading, no noise), the mean of the set is taken out, and what is left must correlate after the best small shift and
stretch. On fundus, chest, ultrasound, MRI and ear images this separates copies from the most similar strangers. Copies that
were moved farther are found by :mod:`~stillroom.data.moved`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise, product

import numpy as np

from stillroom.data.contrast import squeezed
from stillroom.data.moved import find_moved
from stillroom.data.store import THUMBNAIL, Store

SIMILAR = 0.975
"""Least correlation of a near pair. What copies and the most similar strangers reach stands in docs/evidence.md (Copies)."""
_LARGEST_DIFFERENCE = 40.0  # mean absolute, in grey levels of 255: beyond "slightly brightened"
_LEAST_DETAIL = 1.0  # standard deviation after the band-pass, in grey levels: an empty frame resembles any other
_PRIOR = 16  # pretended neutral images in the mean, so that a set of two copies is not its own mean
_NEIGHBOURS = 8
_DIMENSIONS = 10
_RADIUS = 0.4
_PLAUSIBLE = 0.6
_SMALL_GROUP = 40
_CHUNK = 2048
_REACH = 1.2  # largest shift, and displacement of the border by stretching, in thumbnail pixels


@dataclass(frozen=True)
class DuplicatePairs:
    """Pairs of rows that show the same picture, ``P`` of them, ordered by row.

    Attributes:
        first, second: ``[P]`` int64 rows, ``first < second``.
        exact: ``[P]`` bool, True for equal pixels at native size, False for near copies.
        similarity: ``[P]`` float64 in [-1, 1]; 1.0 for exact pairs, at least :data:`SIMILAR` for others.
        moved: ``[P]`` bool, True for copies that were turned, mirrored or cropped; None says that none was.
    """

    first: np.ndarray
    second: np.ndarray
    exact: np.ndarray
    similarity: np.ndarray
    moved: np.ndarray | None = None

    @property
    def kinds(self) -> np.ndarray:
        """``[P]`` str: ``exact``, ``near`` or ``moved``."""
        moved = np.zeros(len(self), bool) if self.moved is None else self.moved
        return np.where(self.exact, "exact", np.where(moved, "moved", "near"))

    def __len__(self) -> int:
        return len(self.first)

    def take(self, indices: np.ndarray, n: int) -> DuplicatePairs:
        """The pairs among these of ``n`` rows, numbered as in ``table.take(indices)``; ``indices`` ascending."""
        position = np.full(n, -1, dtype=np.int64)
        position[indices] = np.arange(len(indices))
        first, second = position[self.first], position[self.second]
        kept = (first >= 0) & (second >= 0)
        moved = None if self.moved is None else self.moved[kept]
        return DuplicatePairs(first[kept], second[kept], self.exact[kept], self.similarity[kept], moved)


def find_duplicates(store: Store) -> DuplicatePairs:
    """Exact pairs by digest; near pairs, and copies that were turned, mirrored or cropped, by the thumbnails.

    For near pairs each image is compared with its 8 nearest neighbours in a projection to 10 dimensions (a k-d tree, so that
    time grows little faster than the number of images), and all images of a group of up to 40 with one another; for moved
    copies see :func:`~stillroom.data.moved.find_moved`. How long that takes stands in docs/evidence.md. Of larger groups not
    every pair is listed. Images that show next to no contrast all look alike: of those exact pairs are found alone.
    """
    return find_pairs(store.digests, np.asarray(store.thumbnails), near=squeezed(store) is None)


def find_pairs(
    digests: np.ndarray, thumbnails: np.ndarray, *, near: bool = True, similar: float = SIMILAR
) -> DuplicatePairs:
    """:func:`find_duplicates` for images of several stores: their digests ``[N]`` and thumbnails ``[N, 32, 32]`` joined.

    Without ``near`` only exact pairs; ``similar`` is the least correlation of near ones.
    """
    members = _by_digest(digests)
    representatives = np.array([rows[0] for rows in members], dtype=np.int64)
    found: dict[tuple[int, int], tuple[str, float]] = {}
    for rows in members:
        for pair in _linked(rows):
            found[pair] = ("exact", 1.0)
    for one, two, similarity, kind in _alike(thumbnails[representatives], similar) if near else ():
        for a, b in product(members[one][:_SMALL_GROUP], members[two][:_SMALL_GROUP]):
            found.setdefault((min(a, b), max(a, b)), (kind, similarity))
    pairs = sorted(found)
    return DuplicatePairs(
        first=np.array([pair[0] for pair in pairs], dtype=np.int64),
        second=np.array([pair[1] for pair in pairs], dtype=np.int64),
        exact=np.array([found[pair][0] == "exact" for pair in pairs], dtype=bool),
        similarity=np.array([found[pair][1] for pair in pairs], dtype=np.float64),
        moved=np.array([found[pair][0] == "moved" for pair in pairs], dtype=bool),
    )


def duplicate_groups(pairs: DuplicatePairs, n: int) -> np.ndarray:
    """``[n]`` int64: rows joined by any chain of pairs share a number, all others have one of their own."""
    return _components(pairs.first, pairs.second, n)


# -- exact --------------------------------------------------------------------------------------------------------
def _by_digest(digests: np.ndarray) -> list[list[int]]:
    """Rows of equal digest, one list per digest, in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        groups.setdefault(digest, []).append(row)
    return list(groups.values())


def _linked(rows: list[int]) -> Iterator[tuple[int, int]]:
    """All pairs of a small group; of a large one (empty frames, say) each row with the first and with the next."""
    if len(rows) <= _SMALL_GROUP:
        yield from combinations(rows, 2)
        return
    yield from ((rows[0], row) for row in rows[1:])
    yield from pairwise(rows[1:])


# -- near ---------------------------------------------------------------------------------------------------------
def _alike(thumbnails: np.ndarray, similar: float) -> Iterator[tuple[int, int, float, str]]:
    """Near copies, then moved ones: two indices, their similarity and the kind."""
    yield from ((*pair, "near") for pair in _near_pairs(thumbnails, similar))
    pairs, similarity = find_moved(thumbnails)
    for (one, two), value in zip(pairs.tolist(), similarity.tolist(), strict=True):
        yield one, two, value, "moved"


def _near_pairs(thumbnails: np.ndarray, similar: float) -> Iterator[tuple[int, int, float]]:
    """Near copies among ``[U, 32, 32]`` uint8 thumbnails of different pictures: two indices and their similarity."""
    features, detailed = _features(thumbnails)
    if len(detailed) < 2:
        return
    candidates = detailed[_neighbours(features[detailed])]
    kept, similarity = _confirmed(candidates, features, thumbnails, similar)
    # Of nine copies and more the neighbours are but some: compare the members of each group with one another.
    within = _pairs_within_groups(_components(kept[:, 0], kept[:, 1], len(thumbnails)))
    others = np.setdiff1d(within @ [len(thumbnails), 1], candidates @ [len(thumbnails), 1])
    left = np.stack(np.divmod(others, len(thumbnails)), axis=1)
    more, more_similarity = _confirmed(left, features, thumbnails, similar)
    for (one, two), value in zip([*kept, *more], [*similarity, *more_similarity], strict=True):
        yield int(one), int(two), float(value)


def _features(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What sets the pictures apart, ``[U, 1024]`` float16 of unit length, and which of them have any detail."""
    low, high = _blur(0.7), _blur(4.0)
    features = np.zeros((len(thumbnails), THUMBNAIL * THUMBNAIL), np.float16)
    detail = np.zeros(len(thumbnails))
    for part in _chunks(len(thumbnails)):
        images = thumbnails[part].astype(np.float32)
        passed = (low @ images @ low.T - high @ images @ high.T).reshape(len(images), -1)
        detail[part] = passed.std(axis=1)
        features[part] = _unit(passed)
    detailed = np.flatnonzero(detail >= _LEAST_DETAIL)
    total = sum(features[detailed[part]].sum(axis=0, dtype=np.float64) for part in _chunks(len(detailed)))
    mean = np.asarray(total / (len(detailed) + _PRIOR), np.float32)
    for part in _chunks(len(thumbnails)):
        features[part] = _unit(features[part] - mean)
    return features, detailed


def _neighbours(features: np.ndarray) -> np.ndarray:
    """``[P, 2]`` candidate pairs, smaller index first: nearest neighbours in the main directions of the set."""
    from scipy.linalg import eigh
    from scipy.spatial import KDTree

    sample = features[:: max(1, len(features) // 5000)].astype(np.float32)
    size = sample.shape[1]
    _, directions = eigh(sample.T @ sample, subset_by_index=[size - _DIMENSIONS, size - 1])
    points = np.concatenate([features[part].astype(np.float32) @ directions for part in _chunks(len(features))])
    # A projection only brings points closer: a copy within the radius can be crowded out, but never be too far away.
    _, found = KDTree(points).query(points, k=_NEIGHBOURS + 1, distance_upper_bound=_RADIUS, workers=-1)
    pairs = np.stack([np.repeat(np.arange(len(points)), found.shape[1]), found.ravel()], axis=1)
    pairs = pairs[(pairs[:, 1] < len(points)) & (pairs[:, 0] != pairs[:, 1])]
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _confirmed(
    pairs: np.ndarray, features: np.ndarray, thumbnails: np.ndarray, similar: float
) -> tuple[np.ndarray, np.ndarray]:
    """Those of the ``[P, 2]`` pairs that are near copies, ``[Q, 2]``, and their similarity ``[Q]``."""
    similarity = np.zeros(len(pairs))
    for part in _chunks(len(pairs)):
        first, second = (features[pairs[part, side]].astype(np.float32) for side in (0, 1))
        difference = np.abs(thumbnails[pairs[part, 0]].astype(np.int16) - thumbnails[pairs[part, 1]])
        plausible = (first * second).sum(axis=1) > _PLAUSIBLE
        plausible &= difference.mean(axis=(1, 2)) <= _LARGEST_DIFFERENCE
        first, second = first[plausible], second[plausible]
        similarity[part][plausible] = np.minimum(_aligned(first, second), _aligned(second, first))
    near = similarity >= similar
    return pairs[near], similarity[near]


def _aligned(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation ``[P]`` of unit features ``[P, 1024]`` after the small shift and stretch of ``first`` that fits best.

    To first order a moved picture is the picture plus a mix of its derivatives, so the best move is the solution of four
    linear equations; no picture is warped.
    """
    pictures = first.reshape(-1, THUMBNAIL, THUMBNAIL)
    down, right = np.gradient(pictures, axis=(1, 2))
    position = np.linspace(-1, 1, THUMBNAIL, dtype=np.float32)
    moves = np.stack([down, right, down * position[:, None], right * position], axis=1).reshape(
        len(first), 4, THUMBNAIL**2
    )
    normal = moves @ moves.transpose(0, 2, 1)
    normal += 1e-4 * np.trace(normal, axis1=1, axis2=2)[:, None, None] / 4 * np.eye(4, dtype=np.float32)
    amounts = np.linalg.solve(normal, moves @ (second - first)[:, :, None]).clip(-_REACH, _REACH)
    moved = _unit(first + (amounts * moves).sum(axis=1))
    return (moved * second).sum(axis=1)


def _pairs_within_groups(group: np.ndarray) -> np.ndarray:
    """``[P, 2]`` all pairs of rows of the same group, of groups of 3 to 40 rows."""
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    pairs = [pair for rows in parts if 2 < len(rows) <= _SMALL_GROUP for pair in combinations(rows, 2)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _components(first: np.ndarray, second: np.ndarray, n: int) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows without their mean, at unit length."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


@cache
def _blur(sigma: float) -> np.ndarray:
    """``[32, 32]`` matrix that blurs along one side of a thumbnail, borders reflected."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(np.eye(THUMBNAIL, dtype=np.float32), sigma, axis=0)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))
