"""Slices of the training images with every class in each: label fractions, and the stages of a chain."""

from __future__ import annotations

import numpy as np

from stillroom.errors import UsageError


def stratified_slices(
    classes: np.ndarray, rows: np.ndarray, count: int, fraction: float, seed: tuple[int, ...]
) -> list[np.ndarray]:
    """``count`` disjoint slices of ``rows``, each about ``fraction`` of every class and at least one image of it.

    A smaller fraction's slice is part of a larger one's, so that label fractions can be compared.

    Args:
        classes: ``[n, K]`` of 0/1, each row's classes. A row of several labels is dealt by its rarest.
        rows: ``[n]`` row numbers.
        count: number of slices.
        fraction: share of the rows in each slice, in (0, 1]; ``count * fraction`` at most 1.
        seed: numbers that fix the order in which images are dealt.

    Returns:
        Row numbers, ascending in each slice.

    Raises:
        UsageError: the slices do not fit, or a class has fewer images than there are slices.
    """
    if not 0 < fraction <= 1 or count * fraction > 1 + 1e-9:
        raise UsageError(
            f"{count} slices of {fraction:g} of the labelled images each do not fit: together they must be at most all."
        )
    if fraction == 1:
        return [np.sort(rows)]
    order = np.random.default_rng([*seed, 2]).permutation(len(rows))
    # A row without any label (multi-label) belongs to one more, last class.
    padded = np.concatenate([classes, classes.sum(axis=1, keepdims=True) == 0], axis=1)
    rarity = np.argsort(np.argsort(padded.sum(axis=0), kind="stable"), kind="stable")
    stratum = np.where(padded > 0, rarity, padded.shape[1]).argmin(axis=1)
    slices: list[list[int]] = [[] for _ in range(count)]
    for value in np.unique(stratum):
        members = order[stratum[order] == value]
        if len(members) < count:
            raise UsageError(
                f"Class number {int(np.flatnonzero(padded[members[0]])[0]) + 1} has {len(members)} labelled training "
                f"image{'s' * (len(members) != 1)}, too few for {count} slices: lower --length, give --slices overlapping, "
                "or use more labels."
            )
        each = max(1, min(round(fraction * len(members)), len(members) // count))
        for number, found in enumerate(slices):
            found.extend(members[number * each : (number + 1) * each])
    return [np.sort(rows[np.array(found)]) for found in slices]
