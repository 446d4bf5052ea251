"""What readers answered: their files read and refused by name, and their figures without and with help. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.after.reader_study import FOLDER, MANIFEST, Question
from stillroom.errors import RunError, UsageError
from stillroom.evaluation import mrmc
from stillroom.files.atomic import write_json
from stillroom.files.digests import require_whole
from stillroom.files.reading import in_short, read_json
from stillroom.report import write_model_card, write_report
from stillroom.report.readers import readers_section, statement_of
from stillroom.run.claims import alone_in
from stillroom.run.folder import Run

FIGURES = "figures.json"
_WITHOUT, _WITH = 0, 1
_LONGEST_S = 86_400.0


@dataclass(frozen=True)
class Answers:
    """One reader's file, complete and of a known study.

    Attributes:
        reader: the code that the reader gave.
        decided: ``[2, N]`` index of the chosen option, without and with help, images in the order of the study.
        confidence: ``[2, N]`` 0 (a guess) to 100 (certain).
        seconds: ``[2, N]`` above 0.
        helped_first: the half that had help in the first sitting; None of a sequential study.
    """

    reader: str
    decided: np.ndarray
    confidence: np.ndarray
    seconds: np.ndarray
    helped_first: int | None


def judge_answers(run: Run, files: Sequence[Path | str]) -> dict[str, Any]:
    """As :func:`judged`, and tell it: in the report, the model card and the study's figures.json.

    Raises:
        UsageError: as there, or another process is at work in the run folder.
    """
    with alone_in(run.path):
        found = judged(run, files)
        write_json(run.path / FOLDER / found["study"] / FIGURES, found)
        section = readers_section(found).to_dict()
        metrics = run.metrics
        others = [past for past in metrics.get("sections", []) if past["key"] != section["key"]]
        write_json(run.path / "metrics.json", metrics | {"sections": [*others, section]})
        write_model_card(run.path)
        write_report(run.path)
        return found


def judged(run: Run, files: Sequence[Path | str]) -> dict[str, Any]:
    """Compare what readers saw without and with help.

    Args:
        run: the run whose page was read.
        files: one per reader, as the page saved them; all of one study.

    Returns:
        ``study``, ``design``, ``images``, ``images_of_each`` answer, ``options``, ``finding``, ``readers`` (their codes),
        ``figures`` (over all readers, by name, see :func:`~stillroom.evaluation.mrmc.compare`), ``seconds`` (medians
        ``without`` and ``with``, and ``ratio``), ``confidence`` (means), ``changes`` and ``agreement`` over all, ``each``
        (the same per ``reader``), ``model`` (its own figures on these images), ``statement`` and ``notes``.

    Raises:
        UsageError: a file is damaged, incomplete, of another run or study, or a reader's second.
        RunError: the run was made anew since.
    """
    paths = [Path(file) for file in files]
    contents = [_read(path) for path in paths]
    studies = {content["study"]: path for path, content in zip(paths, contents, strict=True)}
    if len(studies) > 1:
        (one, first), (other, second) = list(studies.items())[:2]
        raise UsageError(
            f"{first} is of study {one} and {second} of study {other}: give the answers of one study at a time."
        )
    study = _study(run, next(iter(studies)), paths[0])
    readers = [_answers(path, content, study) for path, content in zip(paths, contents, strict=True)]
    owner: dict[str, Path] = {}
    for path, answers in zip(paths, readers, strict=True):
        if answers.reader in owner:
            raise UsageError(
                f"{owner[answers.reader]} and {path} are both of reader {answers.reader!r}: each reader counts once. Leave "
                "one out, or give two people two codes."
            )
        owner[answers.reader] = path
    question = Question(tuple(study["options"]), study["finding"])
    truth = question.truth(run.task, _targets(run, study))
    model = np.array([-1 if entry["refused"] else entry["decided"] for entry in study["images"]])
    return _compared(study, readers, truth, model)


def _compared(study: dict[str, Any], readers: list[Answers], truth: np.ndarray, model: np.ndarray) -> dict[str, Any]:
    decided = np.stack([answers.decided for answers in readers], axis=1)
    seconds = np.stack([answers.seconds for answers in readers], axis=1)
    sure = np.stack([answers.confidence for answers in readers], axis=1)
    figures = _figures(decided, sure, truth, binary=study["finding"] is not None)
    alone = {name: mrmc.each(figure) for name, figure in figures.items()}
    found: dict[str, Any] = {
        "study": study["study"],
        "design": study["design"],
        "images": len(truth),
        "images_of_each": {name: int((truth == place).sum()) for place, name in enumerate(study["options"])},
        "options": study["options"],
        "finding": study["finding"],
        "readers": [answers.reader for answers in readers],
        "figures": {name: mrmc.compare(figure) for name, figure in figures.items()},
        "seconds": _seconds(seconds),
        "confidence": _confidence(sure),
        "changes": _changes(decided, truth, model),
        "agreement": _agreement(decided, model),
        "model": _model(study, truth),
        "each": [
            {
                "reader": answers.reader,
                "figures": {name: one[place] for name, one in alone.items()},
                "seconds": _seconds(seconds[:, [place]]),
                "confidence": _confidence(sure[:, [place]]),
                "changes": _changes(decided[:, [place]], truth, model),
                "agreement": _agreement(decided[:, [place]], model),
            }
            for place, answers in enumerate(readers)
        ],
        "notes": _notes(readers, study),
    }
    return found | {"statement": statement_of(found)}


def _figures(decided: np.ndarray, sure: np.ndarray, truth: np.ndarray, *, binary: bool) -> dict[str, mrmc.Figures]:
    right = decided == truth
    if not binary:
        return {"accuracy": mrmc.share(right)}
    return {
        "auc": mrmc.auc(
            np.where(decided == 1, sure + 0.5, -sure - 0.5), truth
        ),  # a guess of yes is above a guess of no
        "sensitivity": mrmc.share(right[:, :, truth == 1]),
        "specificity": mrmc.share(right[:, :, truth == 0]),
    }


def _seconds(seconds: np.ndarray) -> dict[str, Any]:
    return {
        "without": float(np.median(seconds[_WITHOUT])),
        "with": float(np.median(seconds[_WITH])),
        "ratio": mrmc.time_ratio(seconds),
    }


def _confidence(sure: np.ndarray) -> dict[str, float]:
    return {"without": float(sure[_WITHOUT].mean()), "with": float(sure[_WITH].mean())}


def _changes(decided: np.ndarray, truth: np.ndarray, model: np.ndarray) -> dict[str, int]:
    """How help changed readings, as counts of readings: what was mended and spoilt, and who was to blame."""
    was, now = decided[_WITHOUT] == truth, decided[_WITH] == truth
    wrong, right = np.broadcast_to(model != truth, was.shape), np.broadcast_to(model == truth, was.shape)
    said = np.broadcast_to(model >= 0, was.shape)
    misled = decided[_WITH] == model
    return {
        "readings": int(was.size),
        "wrong_to_right": int((~was & now).sum()),
        "right_to_wrong": int((was & ~now).sum()),
        "model_wrong_reader_right": int((was & wrong & said).sum()),
        "followed_the_wrong_model": int((was & wrong & said & misled).sum()),
        "model_right_reader_wrong": int((~was & right).sum()),
        "passed_over_the_right_model": int((~was & right & ~now).sum()),
    }


def _agreement(decided: np.ndarray, model: np.ndarray) -> dict[str, float | None]:
    """Share of readings that say what the model says, of the images that it does not refuse."""
    said = model >= 0
    if not said.any():
        return {"without": None, "with": None}
    same = decided[:, :, said] == model[said]
    return {"without": float(same[_WITHOUT].mean()), "with": float(same[_WITH].mean())}


def _model(study: dict[str, Any], truth: np.ndarray) -> dict[str, Any]:
    """The model's own figures on the same images; refused ones count with what it would have said."""
    from sklearn.metrics import roc_auc_score

    decided = np.array([entry["decided"] for entry in study["images"]])
    refused = sum(entry["refused"] for entry in study["images"])
    if study["finding"] is None:
        return {"accuracy": float((decided == truth).mean()), "refused": refused}
    shares = np.array([entry["shares"][1] for entry in study["images"]])
    return {
        "auc": float(roc_auc_score(truth, shares)),
        "sensitivity": float((decided == 1)[truth == 1].mean()),
        "specificity": float((decided == 0)[truth == 0].mean()),
        "refused": refused,
    }


def _notes(readers: list[Answers], study: dict[str, Any]) -> list[str]:
    notes = []
    if len(readers) == 1:
        notes.append(
            "One reader: the interval holds for this reader and images like these. What help does to other readers takes "
            "several."
        )
    elif len(readers) < 4:
        notes.append(f"{len(readers)} readers say little of other readers: their spread is known poorly.")
    if study["design"] == "sequential":
        notes.append(
            "Every image was read with help right after it was read alone, so the reader knew it already: times with help "
            "are short, and changes are those from a first to a second look too."
        )
    else:
        notes.append("People change some readings without any help: not every change is the model's doing.")
        first = {answers.helped_first for answers in readers}
        if len(first) == 1 and len(readers) > 1:
            notes.append(
                "All readers had help for the same half first, so order and help are mixed up: codes that end in odd and "
                "even numbers balance that."
            )
    notes.append(
        "The images were drawn in like numbers of every answer: figures of practice, with its own mix, differ."
    )
    return notes


# -- reading files ------------------------------------------------------------------------------------------------
def _read(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except FileNotFoundError:
        raise UsageError(f"There is no file {file}.") from None
    if content.get("stillroom") != "reader answers":
        raise UsageError(f"{file} holds no readers' answers: name a file that the page of a test with readers saved.")
    if content.get("format") != 1:
        raise UsageError(
            f"{file} was saved by the page of another Stillroom (format {in_short(content.get('format'))})."
        )
    if not isinstance(content.get("study"), str) or not isinstance(content.get("readings"), list):
        raise UsageError(f"{file} is damaged: it names no study, or holds no readings.")
    return content


def _study(run: Run, study: str, file: Path) -> dict[str, Any]:
    folder = run.path / FOLDER
    known = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    if study not in known:
        has = f"Studies of this run: {', '.join(known)}." if known else "This run has none."
        raise UsageError(f"{file} is of study {in_short(study)}, which is none of {run.path}. {has}")
    manifest = folder / study / MANIFEST
    require_whole(manifest)
    return read_json(manifest)


def _answers(file: Path, content: dict[str, Any], study: dict[str, Any]) -> Answers:
    reader = content.get("reader")
    if not isinstance(reader, str) or not reader.strip():
        raise UsageError(f"{file} does not say who read.")
    places = {entry["image"]: place for place, entry in enumerate(study["images"])}
    decided = np.full((2, len(places)), -1)
    confidence, seconds = np.zeros((2, len(places))), np.zeros((2, len(places)))
    helped_first = None
    for number, reading in enumerate(content["readings"], 1):
        where = f"{file}, reading {number}"
        if not isinstance(reading, dict):
            raise UsageError(f"{where} is damaged: it is no reading.")
        image, helped, answer = reading.get("image"), reading.get("help"), reading.get("answer")
        if type(image) is not int or image not in places:
            raise UsageError(f"{where} is of image {in_short(image)}, which study {study['study']} does not have.")
        if not isinstance(helped, bool):
            raise UsageError(f"{where} is damaged: it does not say whether there was help.")
        if answer not in study["options"]:
            raise UsageError(f"{where}: there is no answer {in_short(answer)}. Answers: {', '.join(study['options'])}.")
        cell = (_WITH if helped else _WITHOUT, places[image])
        if decided[cell] >= 0:
            raise UsageError(f"{where} reads image {image} {'with' if helped else 'without'} help a second time.")
        decided[cell] = study["options"].index(answer)
        confidence[cell] = _number(reading.get("confidence"), 0, 100, f"{where}: confidence")
        seconds[cell] = _number(reading.get("seconds"), 0.001, _LONGEST_S, f"{where}: seconds")
        if study["design"] == "crossover" and helped and reading.get("sitting") == 1:
            helped_first = int(study["images"][places[image]]["half"])
    missing = int((decided < 0).sum())
    if missing:
        raise UsageError(
            f"{file} is not complete: {missing} of {decided.size} readings of reader {reader!r} are missing. Go on from this "
            f"file on the page, or leave it out."
        )
    return Answers(reader, decided, confidence, seconds, helped_first)


def _number(value: Any, low: float, high: float, what: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise UsageError(f"{what} must be a number from {low:g} to {high:g}, found {in_short(value)}.")
    return float(value)


def _targets(run: Run, study: dict[str, Any]) -> np.ndarray:
    """The truth about the study's images, in its order, from the run's predictions."""
    frame = run.predictions()
    labels = dict(zip(frame["id"].astype(str), frame["target"], strict=True))
    digests = dict(zip(frame["id"].astype(str), frame["digest"], strict=True)) if "digest" in frame else {}
    names = []
    for entry in study["images"]:
        if entry["id"] not in labels or digests.get(entry["id"], entry["digest"]) != entry["digest"]:
            raise RunError(
                f"{run.path / FOLDER / study['study'] / MANIFEST} names {entry['id']!r}, which is not what the run's "
                "predictions.parquet has of it: the run was made anew since. Make a new page."
            )
        label = labels[entry["id"]]
        names.append("" if label is None or label != label else str(label))
    return run.task.parse(names)
