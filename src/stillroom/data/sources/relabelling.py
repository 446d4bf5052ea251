"""Classes that are joined to others or left out, for a source that is not quite what is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stillroom.data.sources.conventions import check_training_classes, order_classes, positive_last
from stillroom.data.table import Change, Table
from stillroom.errors import UsageError, nearest
from stillroom.settings.sections import DataSettings
from stillroom.task import MultiClass, Task


@dataclass(frozen=True)
class Relabelled:
    """Labels after joining and dropping.

    Attributes:
        labels: of the ``n`` images that are kept, the labels of each.
        kept: ``[n]`` int64, their places among all images.
        changes: what was done to which class.
    """

    labels: list[list[str]]
    kept: np.ndarray
    changes: tuple[Change, ...]


def relabel(
    labels: Sequence[Sequence[str]],
    settings: DataSettings,
    where: str,
    *,
    known: Sequence[str] | None = None,
    training: bool = True,
) -> Relabelled:
    """Join and drop classes as the settings say.

    An image whose labels are all dropped is left out: without any it would claim that nothing was found. One that had none
    stays.

    Args:
        labels: of every image; one each where classes are exclusive.
        settings: ``merge`` and ``drop_class`` are used.
        where: the source, for messages.
        known: its classes. Default: those that occur.
        training: refuse a class that the source does not have; otherwise it stays without effect.

    Raises:
        UsageError: there is no such class, or no image is left.
    """
    merges, dropped = settings.merges, set(settings.drop_class)
    if not merges and not dropped:
        return Relabelled([list(row) for row in labels], np.arange(len(labels)), ())
    counts = Counter(name for row in labels for name in set(row))
    if training:
        _refuse_unknown(settings, sorted(counts) if known is None else known, where)
    kept = [place for place, row in enumerate(labels) if not row or not dropped.issuperset(row)]
    if not kept:
        raise UsageError(f"{where} has no image left: drop_class names all of its classes.")
    gone = Counter(name for row in labels if row and dropped.issuperset(row) for name in set(row))
    changes = [Change(name, None, counts[name], gone[name]) for name in settings.drop_class if name in counts]
    changes += [Change(old, new, counts[old]) for old, new in merges.items() if old in counts]
    renamed = [
        list(dict.fromkeys(merges.get(name, name) for name in labels[place] if name not in dropped)) for place in kept
    ]
    return Relabelled(renamed, np.array(kept, dtype=np.int64), tuple(changes))


def refuse_absent(table: Table, settings: DataSettings) -> None:
    """Raises UsageError for the first class to join or to drop that a source, read not for training, turned out to lack."""
    occurring = table.task.one_hot(table.targets).max(axis=0).tolist()
    found = [name for name, there in zip(table.task.classes, occurring, strict=True) if there]
    _refuse_unknown(settings, [*(change.old for change in table.changes), *found], table.name)


def relabel_table(table: Table, settings: DataSettings, *, training: bool = True) -> Table:
    """A named set with classes joined, dropped, or another one positive; what is not touched keeps the set's order.

    A joined class stands where the first of its parts stood.

    Args:
        table: with its own classes.
        settings: ``merge``, ``drop_class``, ``positive`` and, of what they leave, ``classes`` are used.
        training: see :func:`stillroom.data.load.open_source`.

    Raises:
        UsageError: no such class, or fewer than two classes or no image left.
    """
    where, task = f"The data set {table.name}", table.task
    if task.exclusive:
        before = [[name] for name in task.names(table.targets)]
    else:
        before = [text.split(";") if text else [] for text in task.names(table.targets)]
    found = relabel(before, settings, where, known=task.classes, training=training)
    merges = settings.merges
    classes = tuple(dict.fromkeys(merges.get(name, name) for name in task.classes if name not in settings.drop_class))
    if settings.classes or len(classes) < 2:
        occurring = [name for row in found.labels for name in row]
        classes = order_classes(occurring, settings, where, training=training)
    rows = table.take(found.kept)
    changed: Task
    if isinstance(task, MultiClass):
        changed = replace(task, classes=positive_last(classes, settings, where))
    else:
        refuse_positive(settings, where)
        changed = replace(task, classes=classes)
    targets = changed.parse([";".join(row) for row in found.labels])
    if training:
        check_training_classes(changed, targets, rows.splits, where)
    return replace(rows, task=changed, targets=targets, changes=found.changes)


def refuse_positive(settings: DataSettings, where: str) -> None:
    """Raises UsageError where one class is to be positive though an image may have several."""
    if settings.positive:
        raise UsageError(
            f"{where} has several labels per image, each with a yes or no of its own: do without --positive."
        )


def _refuse_unknown(settings: DataSettings, known: Sequence[str], where: str) -> None:
    """Raises UsageError for the first class to join or to drop that is not known."""
    for setting, names in (("drop_class", settings.drop_class), ("merge", settings.merges)):
        for name in names:
            if name not in known:
                raise UsageError(
                    f"{where} has no class {name!r}, which {setting} names; it has {', '.join(known)}."
                    f"{nearest(name, tuple(known))}"
                )
