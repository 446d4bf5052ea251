"""What folders and tables of images have in common: the words for a split, and which classes will do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from stillroom.data.spelling import look, tidy
from stillroom.data.table import Finding
from stillroom.errors import UsageError, nearest
from stillroom.files.walk import natural_key
from stillroom.settings.sections import DataSettings
from stillroom.task import MultiClass, Task

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SPLIT_CELLS = {
    **_SPLIT_WORDS,
    **dict.fromkeys(("tr", "trn", "train set", "training set"), "train"),
    **dict.fromkeys(("va", "vld", "tune", "tuning", "validate", "validation set", "val set"), "val"),
    **dict.fromkeys(("te", "tst", "eval", "evaluation", "holdout", "test set", "testing set"), "test"),
}
"""A cell says more in fewer letters than a folder, whose name may be a class: TR is also a valve that leaks."""


def parse_split(word: str) -> str | None:
    """``train``, ``val`` or ``test`` for any common word for it, in any case; None for any other word."""
    return _SPLIT_WORDS.get(tidy(word).lower())


def split_of_cell(word: str) -> str | None:
    """As :func:`parse_split`, of a cell in a column of splits, where more words are plain."""
    return _SPLIT_CELLS.get(re.sub(r"[\s_-]+", " ", tidy(word).lower()).replace("hold out", "holdout"))


def one_spelling(
    labels: Sequence[Sequence[str]], settings: DataSettings
) -> tuple[list[list[str]], tuple[Finding, ...]]:
    """Labels whose names, where they differ in no more than Unicode's form and spaces, are written in one way.

    That is the settings' way where these name the class, and :func:`~stillroom.data.spelling.tidy` else. The findings say
    which classes were written in several.
    """
    given = (*settings.classes, settings.positive, *settings.drop_class, *settings.merges.values(), *settings.merges)
    own = {tidy(name): name for name in given}
    written: dict[str, Counter[str]] = {}
    said = []
    for row in labels:
        names = [own.get(tidy(name), tidy(name)) for name in row]
        for name, before in zip(names, row, strict=True):
            written.setdefault(name, Counter())[before] += 1
        said.append(names)
    several = [f"{name} ({len(ways)} ways, {ways.total():,} images)" for name, ways in written.items() if len(ways) > 1]
    if not several:
        return said, ()
    text = f"Classes written in several ways that look alike count as one: {', '.join(several)}."
    return said, (Finding("note", "classes_spelled_alike", text),)


def order_classes(
    found: Sequence[str], settings: DataSettings, where: str, *, training: bool = True
) -> tuple[str, ...]:
    """The class names in the logits' order: as the settings say, else numbers by value, else natural order.

    Args:
        found: names met in the source, repeats allowed.
        settings: ``classes`` and ``task`` are used.
        where: the source, for messages, e.g. ``The table labels.csv``.
        training: every class that the settings name must occur. A trained model's images may be of one class alone.

    Raises:
        UsageError: a name is not in the settings' classes, or one of those does not occur; fewer than two
            classes; two names that look alike; ordinal grades whose names do not show their order.
    """
    names = sorted(set(found), key=natural_key)
    if settings.classes:
        for name in names:
            if name not in settings.classes:
                raise UsageError(
                    f"{where} has the class {name!r}, which is not among {whose(training)}: "
                    f"{', '.join(settings.classes)}.{what_to_do(name, settings.classes)}"
                )
        if not training:
            return settings.classes
        missing = [name for name in settings.classes if name not in names]
        if missing:
            raise UsageError(
                f"{where} has no image of {', '.join(map(repr, missing))}, which the classes given name. "
                f"It has: {', '.join(names)}."
            )
    if len(names) < 2:
        only = f"only one class, {names[0]!r}" if names else "no class"
        then = " once classes are joined and dropped" if settings.merge or settings.drop_class else ""
        raise UsageError(f"{where} has {only}{then}; a classifier needs two or more.")
    if settings.classes:
        return settings.classes
    by_look: dict[str, str] = {}
    for name in names:
        twin = by_look.setdefault(look(name), name)
        if twin != name:
            how = "differ only in case" if twin.lower() == name.lower() else "look alike"
            raise UsageError(
                f"{where} has the classes {twin!r} and {name!r}, which {how}; "
                "write them alike, or name all classes in the settings if they are meant."
            )
    if all(re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", name) for name in names):
        return tuple(sorted(names, key=float))
    if settings.task == "ordinal" and not all(re.search(r"[0-9]", name) for name in names):
        raise UsageError(
            f"{where} has the grades {', '.join(names)}, whose names do not show their order; "
            "name the classes in order, from the lowest grade to the highest, in the setting `classes`."
        )
    return tuple(names)


def what_to_do(name: str, classes: tuple[str, ...]) -> str:
    """A hint on a class that is not among those wanted."""
    return (
        f"{nearest(name, classes)} Let it count as one of them by --merge {name}=NAME, or leave it out by --drop-class."
    )


def whose(training: bool) -> str:
    """The settings' classes in words: a user gives them for training, afterwards they are the model's."""
    return "the classes given" if training else "the model's classes"


def exclusive_task(found: Sequence[str], settings: DataSettings, where: str, *, training: bool = True) -> MultiClass:
    """The task of a source with one class per image; see :func:`order_classes`."""
    classes = order_classes(found, settings, where, training=training)
    return MultiClass(positive_last(classes, settings, where), ordinal=settings.task == "ordinal")


def positive_last(classes: tuple[str, ...], settings: DataSettings, where: str) -> tuple[str, ...]:
    """Two classes in the order that makes the settings' positive one positive; as they are where the settings name none.

    Raises:
        UsageError: it is not one of the classes, or they are not two.
    """
    wanted = settings.positive
    if not wanted:
        return classes
    if wanted not in classes:
        raise UsageError(
            f"{where} has no class {wanted!r} to be the positive one; it has {', '.join(classes)}.{nearest(wanted, classes)}"
        )
    if len(classes) != 2:
        raise UsageError(
            f"{where} has {len(classes)} classes ({', '.join(classes)}), and only of two one is positive: join or leave out "
            "the others by --merge and --drop-class, or do without --positive."
        )
    return tuple(sorted(classes, key=lambda name: name == wanted))


def check_training_classes(task: Task, targets: np.ndarray, splits: np.ndarray, where: str) -> None:
    """Refuse a class that a given test or validation split has and the training images lack.

    Rows without a split count as training rows, as in :func:`stillroom.data.splits.assign_splits`, which also
    refuses a source without any training row.

    Raises:
        UsageError: names the class and the split.
    """
    training = np.isin(splits, ("train", ""))
    if not training.any():
        return
    labels = task.one_hot(targets)
    for split in ("test", "val"):
        lacking = (labels[splits == split].sum(axis=0) > 0) & (labels[training].sum(axis=0) == 0)
        if lacking.any():
            names = ", ".join(repr(task.classes[k]) for k in np.flatnonzero(lacking))
            raise UsageError(
                f"{where} has {names} in its {split} split but not among its training images; "
                "a network cannot learn a class it never sees. Move some of its images, or leave it out."
            )
