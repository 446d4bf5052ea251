"""How the workbench makes a teacher of a table of answers: read, checked, given one voice, and put into a bank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.data.answer_places import Placed, place
from stillroom.data.answers import Answers, read_answers
from stillroom.data.table import SPLITS, Table
from stillroom.distillation.bank import Bank
from stillroom.distillation.readers import Opinions, logits_of, one_voice
from stillroom.distillation.teachers import Teacher
from stillroom.errors import UsageError
from stillroom.run.teachers import fitted_head
from stillroom.settings.whole import Settings
from stillroom.task import Task

if TYPE_CHECKING:
    from stillroom.run.bench import Bench

_NAMED = 3


def check_answers(settings: Settings, task: Task, table: Table) -> None:
    """Raises UsageError, before any image is decoded, where the table of answers cannot be read or does not fit."""
    answers = _read(settings, task)
    place(answers, table)
    if answers.kind != "embedding" and settings.recipe.reads_features(settings):
        raise UsageError(
            f"Recipe {settings.recipe.name} as asked for reads the teacher's pooled features, and {answers.path} holds "
            f"{answers.kind}: give a table with an embedding, or other settings of the recipe."
        )


def answered(bench: Bench, role: str) -> Teacher:
    """The teacher that the settings' table of answers is; its one bank answers to all views of an image alike.

    Raises:
        UsageError: a training image that is taught has no answer.
    """
    answers, data = _read(bench.settings, bench.task), bench.data
    found = place(answers, bench.dataset.table, bench.dataset.store.digests)
    taught = np.union1d(data.train, data.rest)
    _require(bench, found, taught, "training images that are taught")
    rows = np.unique(found.images)
    if answers.kind == "embedding":
        _require(bench, found, data.val, "validation images, by which the embedding's head is judged,")
        if len(found.names) > 1:
            raise UsageError(f"{answers.path} holds several embeddings of one image: keep one.")
        bench.labels_read.update(data.train.tolist())
        values = found.values[np.argsort(found.images, kind="stable")]
        bank = Bank(rows, (None,), {"pooled": values[None].astype(np.float32)})
        teacher = Teacher(None, (bank,), None, data.images, head=fitted_head(bench, role, bank))
        weights = np.ones(1)
    else:
        logits, weights = _logits(bench, found)
        bank = Bank(rows, (None,), {"logits": logits[rows][None].astype(np.float32)})
        teacher = Teacher(None, (bank,), None, data.images)
    bench.run.note(answers=_facts(bench, found, weights))
    return teacher


def _read(settings: Settings, task: Task) -> Answers:
    chosen = settings.teacher
    assert chosen.teacher_answers is not None
    return read_answers(chosen.teacher_answers, task, kind=chosen.answers_kind, of=chosen.answers_of)


def _logits(bench: Bench, found: Placed) -> tuple[np.ndarray, np.ndarray]:
    """``[N, K]`` of every image, NaN where nobody answered, and ``[R]`` the readers' mean weights."""
    task, kind, count = bench.task, found.answers.kind, len(bench.dataset.table)
    if kind == "logits" and len(found.names) == 1:
        logits = np.full((count, len(task.classes)), np.nan)
        logits[found.images] = found.values
        return logits, np.ones(1)
    said = task.probabilities(found.values) if kind == "logits" else found.values
    how = bench.settings.teacher.reader_weights
    if how == "confidence":
        bench.labels_read.update(bench.data.train.tolist())
    opinions = Opinions(found.images, found.readers, said, votes=kind == "votes")
    together = one_voice(task, opinions, bench.data.targets, bench.data.train, how)
    return logits_of(task, together.probabilities), together.weights


def _require(bench: Bench, found: Placed, rows: np.ndarray, what: str) -> None:
    without = np.setdiff1d(rows, found.images)
    if len(without):
        ids, source = bench.dataset.table.ids[without[:_NAMED]], found.answers
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        unknown = f" {len(found.unknown)} of its rows are about no image of the set." if found.unknown else ""
        example = f" Its first is about {source.names[found.unknown[0]]!r}." if found.unknown else ""
        raise UsageError(
            f"{source.path} has no answer to {len(without)} of the {len(rows)} {what}: {', '.join(ids)}{more}."
            f"{unknown}{example}"
        )


def _facts(bench: Bench, found: Placed, weights: np.ndarray) -> dict[str, Any]:
    """For the manifest: whose answers they are, to how many images, and what was passed over."""
    table, answers = bench.dataset.table, found.answers
    inside = {split: table.indices(split) for split in SPLITS}
    per_image = np.unique(found.images, return_counts=True)[1]
    return {
        "file": answers.path.name,
        "digest": answers.digest,
        "kind": answers.kind,
        "images": len(per_image),
        "splits": {split: [int(np.isin(rows, found.images).sum()), len(rows)] for split, rows in inside.items()},
        "readers": {name: round(float(weight), 4) for name, weight in zip(found.names, weights, strict=True)},
        "per_image": [int(per_image.min()), int(per_image.max())],
        "weights": bench.settings.teacher.reader_weights,
        "unknown_rows": len(found.unknown),
        "unread_columns": list(answers.passed_over),
        "columns_read_as": dict(answers.read_as),
    }
