"""Training, validation and test: given splits are kept, missing ones cut, no patient is put on two sides."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import numpy as np

from stillroom.data.table import SPLITS, Table
from stillroom.errors import UsageError
from stillroom.shown import counted


def assign_splits(
    table: Table,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: np.ndarray | None = None,
) -> Table:
    """The table with every row in train, val or test, and what was cut added to its ``source`` line.

    1. A split that the source gives is kept, even with a patient on two sides (which the audit reports).
    2. Rows without a split join train, unless their group has rows in a given test or validation split: then
       they join that one, test before val.
    3. A missing test split is cut from train, then a missing validation split from what remains. Groups with
       rows in another split stay in train.

    A group is all rows joined, directly or through others, by a patient or by a value of ``groups``. Groups
    are never cut. They are looked at in an order that hangs on the ids and the seed alone, not on the order of
    rows, and taken so that each class comes close to the fraction. Every class has a group in each split that is
    cut, as far as its groups go round; where they are too few, train comes first, then val.

    Args:
        table: ``splits`` may hold ``""``.
        val_fraction: share of the training rows that a missing validation split takes, above 0 and below 0.9.
        test_fraction: share of the training rows (of all rows, if nothing is split yet) that a missing test
            split takes, above 0 and below 0.9.
        seed: another seed, another draw.
        groups: ``[N]`` int64, rows of equal value stay together, e.g. near duplicates.

    Raises:
        UsageError: a fraction out of range; no row to train on; too few groups to cut a split at all; a class
            without any training image.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 0.9:
            raise UsageError(f"`{name}` must be above 0 and below 0.9, got {fraction:g}.")
    given = [split for split in SPLITS if (table.splits == split).any()]
    missing = [(s, f) for s, f in (("test", test_fraction), ("val", val_fraction)) if s not in given]
    group = joined(table, groups)
    splits = _settle_blank_rows(table.splits, group)
    if not (splits == "train").any():
        raise UsageError(
            f"{table.name} has {' and '.join(given)} images only; add training images, or give no split "
            "at all, to have one made."
        )
    strata = np.unique(table.task.stratum(table.targets), return_inverse=True)[1]
    for done, (split, fraction) in enumerate(missing):
        movable = _groups_within(splits == "train", group)
        rows = np.flatnonzero(np.isin(group, movable))
        chosen = _draw(table.ids[rows], strata[rows], group[rows], fraction, seed, keep=len(missing) - done)
        if not chosen.any():
            raise UsageError(
                f"{table.name} has too few images or patients to cut a {split} split from its "
                f"{(splits == 'train').sum()} training images; add some of other patients."
                f"{_what_joins(table, groups, splits == 'train')}"
            )
        splits[rows[chosen]] = split
    cut = " and ".join(f"{split} ({fraction:.0%})" for split, fraction in missing)
    source = f"{table.source}; {cut} cut from {'train' if given else 'it'} with seed {seed}" if cut else table.source
    table = replace(table, splits=splits, source=source)
    require_training_images(table)
    return table


def take_fold(
    table: Table, number: int, count: int, *, val_fraction: float, seed: int, groups: np.ndarray | None = None
) -> Table:
    """The table with one of ``count`` folds as its test split; a split that the source gives is set aside.

    Every row is in the test split of one fold. Folds hold equal shares of each class as far as groups allow, see
    :func:`assign_splits`; validation is cut from the rest.

    Args:
        table: any splits.
        number: which fold, from 1.
        count: how many there are, at least 2.
        val_fraction: share of the other rows that validation takes.
        seed: another seed, another draw.
        groups: ``[N]`` int64, rows of equal value stay together.

    Raises:
        UsageError: too few images or patients for so many folds, or a class that would leave a fold without a training
            image.
    """
    folds = _folds(table, count, seed, groups)
    own = ", in place of its own split," if (table.splits != "").any() else ""
    table = replace(
        table,
        splits=np.where(folds == number, "test", ""),
        source=f"{table.source}; fold {number} of {count}{own} cut with seed {seed}",
    )
    return assign_splits(table, val_fraction=val_fraction, test_fraction=0.5, seed=seed, groups=groups)


def _folds(table: Table, count: int, seed: int, groups: np.ndarray | None) -> np.ndarray:
    """``[N]`` number of each row's fold, from 1."""
    group = joined(table, groups)
    strata = np.unique(table.task.stratum(table.targets), return_inverse=True)[1]
    folds, left = np.full(len(table), count), np.arange(len(table))
    for number in range(1, count):
        others = count - number
        chosen = _draw(table.ids[left], strata[left], group[left], 1 / (others + 1), seed, keep=others)
        folds[left[chosen]], left = number, left[~chosen]
    if len(np.unique(folds)) < count:
        raise UsageError(f"{table.name} has too few images or patients for {count} folds: give fewer --folds.")
    present = table.task.one_hot(table.targets) > 0
    for k, name in enumerate(table.task.classes):
        if len(np.unique(folds[present[:, k]])) < 2:
            raise UsageError(
                f"{table.name} has too few images or patients of {name!r} for {count} folds: one fold would have all of "
                "them. Give fewer --folds, or leave the class out."
            )
    return folds


def joined(table: Table, groups: np.ndarray | None) -> np.ndarray:
    """``[N]`` number of each row's group: the connected components of "same patient" and "same group".

    ``groups`` are ``[N]`` int64, rows of equal value belong together.
    """
    n = len(table)
    labels = np.arange(n)
    relations = []
    if table.patients is not None:
        known = np.flatnonzero(table.patients != "")
        relations.append((known, np.unique(table.patients[known], return_inverse=True)[1]))
    if groups is not None:
        relations.append((np.arange(n), np.unique(groups, return_inverse=True)[1]))
    if not relations:
        return labels
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A graph of rows and of what they share: edges join each row to its patient and to its duplicate group.
    sources, targets, size = [], [], n
    for rows, values in relations:
        sources.append(rows)
        targets.append(size + values)
        size += int(values.max(initial=-1)) + 1
    edges = (np.concatenate(sources), np.concatenate(targets))
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(size, size))
    return connected_components(graph, directed=False)[1][:n]


def _what_joins(table: Table, groups: np.ndarray | None, inside: np.ndarray) -> str:
    """What leaves so few groups to cut: the patients, or near duplicates, whichever are fewer; nothing where neither."""
    lone = replace(table, patients=None)
    by_patient = len(np.unique(joined(table, None)[inside]))
    by_likeness = len(np.unique(joined(lone, groups)[inside]))
    fewest = min(by_patient, by_likeness)
    if fewest == inside.sum():
        return ""
    if by_likeness < by_patient:
        return (
            f" Near duplicates, which stay together, make {fewest} group{'s' * (fewest > 1)} of them: use "
            "`--no-group-duplicates` if they only look alike."
        )
    if not table.patient_column:
        return f" They are of {counted(fewest, 'patient')}."
    return (
        f" The column {table.patient_column!r} makes {counted(fewest, 'patient')} of them: give another by "
        "--patient-column, or `--patient-column none` where it holds no patients."
    )


def _settle_blank_rows(splits: np.ndarray, group: np.ndarray) -> np.ndarray:
    settled = splits.astype("<U5")
    blank = splits == ""
    for split in ("train", "val", "test"):  # the later overrules the earlier
        member = np.ones(len(splits), bool) if split == "train" else np.isin(group, group[splits == split])
        settled[blank & member] = split
    return settled


def _groups_within(inside: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Numbers of the groups all of whose rows are ``inside``."""
    return np.setdiff1d(group[inside], group[~inside])


def _draw(ids: np.ndarray, strata: np.ndarray, group: np.ndarray, fraction: float, seed: int, keep: int) -> np.ndarray:
    """``[M]`` bool: the rows of the groups that a new split takes.

    Args:
        ids: ``[M]`` row ids.
        strata: ``[M]`` class to be balanced.
        group: ``[M]`` group of each row.
        fraction: share of each class that is wanted.
        seed: fixes the order in which groups are looked at.
        keep: number of splits that must still find a group of each class afterwards.
    """
    if len(ids) == 0:
        return np.zeros(0, dtype=bool)
    order = np.argsort(ids)
    _, first, member = np.unique(group[order], return_index=True, return_inverse=True)
    key = [_hash(seed, str(name)) for name in ids[order][first]]
    rank = np.empty(len(key), dtype=np.int64)
    rank[sorted(range(len(key)), key=key.__getitem__)] = np.arange(len(key))
    number = np.empty(len(ids), dtype=np.int64)  # of each row's group, in drawing order
    number[order] = rank[member]

    counts = np.zeros((len(key), int(strata.max()) + 2))
    np.add.at(counts, (number, strata), 1)
    counts[:, -1] = counts.sum(axis=1)  # the size of the whole is balanced like one more class
    return _choose(counts, fraction, keep)[number]


def _choose(counts: np.ndarray, fraction: float, keep: int) -> np.ndarray:
    """``[G]`` bool: groups whose rows per class, ``counts [G, C + 1]``, sum up close to ``fraction`` of all.

    The distance is chi-square-like, so that rare classes weigh as much as common ones. First one group of
    each class, rarest first; then groups in order, each taken if it brings the sum closer; then single changes,
    the best first, while any helps.
    """
    wanted = fraction * counts.sum(axis=0)
    weight = 1 / np.maximum(wanted, 1e-9)
    has = counts[:, :-1] > 0
    total = has.sum(axis=0)
    least = np.minimum(total, keep)  # groups of each class that must stay behind
    chosen = np.zeros(len(counts), dtype=bool)

    def gain(sums: np.ndarray, change: np.ndarray) -> np.ndarray:
        """How much closer ``sums`` comes by each ``change [..., C + 1]``."""
        off = sums - wanted
        return -((change * (change + 2 * off)) * weight).sum(axis=-1)

    def spare() -> np.ndarray:
        """Classes of which another group may go."""
        return has[~chosen].sum(axis=0) > least

    for k in np.argsort(total, kind="stable"):
        if total[k] > keep and not (chosen & has[:, k]).any():
            free = np.flatnonzero(~chosen & has[:, k] & ~(has & ~spare()).any(axis=1))
            if len(free):
                gains = gain(counts[chosen].sum(axis=0), counts[free])
                helping = np.flatnonzero(gains > 0)  # the first of these, not the best: that would be the largest
                chosen[free[helping[0] if len(helping) else gains.argmax()]] = True

    off = counts[chosen].sum(axis=0) - wanted
    _take_in_order(counts[:, :-1], chosen, off, weight, has[~chosen].sum(axis=0) - least)

    while True:
        needed = has[chosen].sum(axis=0) <= 1  # the last group of a class is not given back
        barred = np.where(chosen[:, None], has & needed, has & ~spare()).any(axis=1)
        change = np.where(chosen[:, None], -counts, counts)
        gains = np.where(barred, -np.inf, gain(counts[chosen].sum(axis=0), change))
        best = int(gains.argmax())
        if gains[best] <= 1e-9:
            return chosen
        chosen[best] = not chosen[best]


def _take_in_order(
    counts: np.ndarray, chosen: np.ndarray, off: np.ndarray, weight: np.ndarray, spare: np.ndarray
) -> None:
    """Go through the groups and mark in ``chosen`` each that brings the sum closer and can be spared.

    Plain Python over the few classes of each group: ten times faster here than NumPy on such short arrays.

    Args:
        counts: ``[G, C]`` rows per group and class.
        chosen: ``[G]`` bool, changed in place.
        off: ``[>= C]`` rows of the chosen groups per class, less those wanted.
        weight: ``[>= C]`` weight of each squared distance.
        spare: ``[C]`` number of groups of each class that may still go.
    """
    distance, weights, left = off.tolist(), weight.tolist(), spare.tolist()
    columns, values = np.nonzero(counts)[1].tolist(), counts[counts > 0].tolist()
    start = 0
    for g, end in enumerate(np.cumsum((counts > 0).sum(axis=1)).tolist()):
        cells = list(zip(columns[start:end], values[start:end], strict=True))
        start = end
        closer = sum(rows * (rows + 2 * distance[k]) * weights[k] for k, rows in cells) < 0
        if chosen[g] or not closer or any(left[k] <= 0 for k, _ in cells):
            continue
        chosen[g] = True
        for k, rows in cells:
            distance[k] += rows
            left[k] -= 1


def _hash(seed: int, name: str) -> bytes:
    return blake2b(f"{seed}\n{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def require_training_images(table: Table) -> None:
    """Raises UsageError naming the classes without a training image."""
    images = table.task.one_hot(table.targets[table.splits == "train"]).sum(axis=0)
    if (images == 0).any():
        names = ", ".join(repr(table.task.classes[k]) for k in np.flatnonzero(images == 0))
        raise UsageError(f"{table.name} has no training image of {names}; add some, or leave the class out.")
