"""Test a run's exported student, or the file alone, on another data set: what is tested is what is deployed. No torch."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillroom.after.who_was_tested import Cuts, cuts_of, hint, who_was_tested
from stillroom.data.decoding import pixel_digest
from stillroom.data.findings import on_changes
from stillroom.data.geometry import drop_equal_channels
from stillroom.data.load import is_named_set, open_source
from stillroom.data.quality import PROPERTIES, quality_of_image
from stillroom.data.sources.relabelling import refuse_absent
from stillroom.data.table import Table, UnreadableImage
from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.evaluation.calibration import reliability
from stillroom.evaluation.calibration_error import calibration_error, calibration_words
from stillroom.evaluation.conformal import coverage_report
from stillroom.evaluation.metrics import score
from stillroom.evaluation.ood import energy, refusal_report
from stillroom.evaluation.operating_points import points_report
from stillroom.extras import need
from stillroom.files.atomic import write_json
from stillroom.files.cache import fingerprint
from stillroom.files.places import require_folder_place
from stillroom.progress import progress
from stillroom.run.claims import alone_in
from stillroom.run.folder import Run
from stillroom.settings.sections import DataSettings
from stillroom.shown import counted
from stillroom.task import Task

Split = Literal["auto", "train", "val", "test", "all"]
_BATCH = 32


@dataclass(frozen=True)
class _Origin:
    """What is known of how a model was made; the defaults are what is known of a file alone.

    Attributes:
        data: the settings that its data were read with.
        seed: draws what is drawn.
        learnt: pixel digests of what it was trained or selected on; None where they are not known.
        unknown: why they are not.
        cuts: where its own images were cut into subgroups.
    """

    data: DataSettings = field(default_factory=DataSettings)
    seed: int = 0
    learnt: frozenset[str] | None = None
    unknown: str = "An exported file does not say which images it was trained on"
    cuts: Cuts = field(default_factory=Cuts)


def evaluate(
    run: Run | Path | str,
    source: str | Path,
    data: DataSettings | None = None,
    *,
    split: Split = "auto",
    show_progress: bool = True,
) -> dict[str, Any]:
    """Score a run's exported student on another data set; also written to ``evaluations/`` in the run folder.

    Args:
        run: a finished run, or its folder; or an exported .onnx file, where nothing is written down.
        source: see :func:`stillroom.data.load.open_source`.
        data: how to read the source. Size, fit, intensity and the positive class are the model's own; so are task and
            classes, unless given here. Classes are joined and dropped as said here; where nothing is said, as the run did,
            if the source has them.
        split: which images; ``auto`` takes the source's test split where it has one, else every image.
        show_progress: show a bar.

    Returns:
        ``source`` (a line for people), ``location`` (the name or absolute path), ``data`` (how it was read), ``split``,
        ``synthetic``, ``test`` (figures under ``student``), ``calibration``, ``by_patient``, ``groups`` and ``quality`` (as
        in metrics.json, bands cut as the run's own; None where there is nothing to tell), ``conformal``, ``operating_points``
        and ``ood`` (whether sets, thresholds and refusals keep their promises here; None where the model has no such rule),
        ``quarantined`` (path and reason of what could not be read), ``seen_in_training`` (``images``, the number of images
        that are in the run's training or validation split pixel for pixel, ``of`` how many; None for a file, or a run that
        kept no digests) and ``notes``.

    Raises:
        UsageError: a label that the model does not know, a split that is empty, no readable image, or another process is at
            work in the run folder.
    """
    need("scipy", "Evaluating")
    data = data or DataSettings()
    if not isinstance(run, Run):
        if not Path(run).is_dir():
            return _evaluated(Predictor.load(run), _Origin(), source, data, split, show_progress)[0]
        run = Run.open(Path(run))
    with alone_in(run.path):
        predictor = run.predictor()
        require_folder_place(run.path / "evaluations", "Copy the run to where you may write.")
        result, name = _evaluated(predictor, _origin(run), source, data, split, show_progress)
        write_json(run.path / "evaluations" / f"{name}.json", result)
    return result


def _origin(run: Run) -> _Origin:
    known = run.predictions()
    learnt = None
    if "digest" in known:
        learnt = frozenset(known.loc[known["split"].isin(("train", "val")), "digest"])
    settings = run.settings
    unknown = "The run kept no digests of its images"
    return _Origin(settings.data, settings.seed, learnt, unknown, cuts_of(run))


def _evaluated(
    predictor: Predictor, origin: _Origin, source: str | Path, given: DataSettings, split: Split, show_progress: bool
) -> tuple[dict[str, Any], str]:
    """What :func:`evaluate` gives, and a name for the file of it."""
    task = predictor.task
    data = _as_the_run_reads(given, origin.data)
    window = predictor.metadata.window
    data = replace(data, size=predictor.size, positive="", window=window)  # the size picks MedMNIST's file
    if is_named_set(str(source)):  # which knows its own task
        location = str(source)
        if data.merge or data.drop_class:
            data = replace(data, classes=data.classes or task.classes)
    else:
        location = str(Path(source).expanduser().absolute())
        data = _as_the_model_reads(data, task)
    table = predictor.as_shown(open_source(source, data, seed=origin.seed, training=False))
    refuse_absent(table, given)
    targets = _renumbered(table, task)
    rows, chosen = chosen_rows(table, split)

    asked = ["logits", "probabilities", *(["distance"] if predictor.foreign else [])]
    parts: list[dict[str, np.ndarray]] = []
    kept: list[int] = []
    digests: list[str] = []
    quarantined: list[dict[str, str]] = []
    clipped: list[str] = []
    pending: list[np.ndarray] = []
    measured: list[tuple[float, ...]] = []
    with progress("evaluate", len(rows), enabled=show_progress) as advance:
        for row in rows:
            try:
                image = table.reader.read(int(table.rows[row]))
                pending.append(predictor.prepare(image))
                measured.append(quality_of_image(pending[-1], image.shape[0], image.shape[1], predictor.metadata.fit))
                kept.append(int(row))
                clipped += [str(table.ids[row])] if predictor.note_on(image) else []
                digests.append(pixel_digest(drop_equal_channels(image)))
            except (UnreadableImage, UsageError) as error:  # the latter: brighter than the model's white
                quarantined.append({"path": str(table.ids[row]), "reason": str(error)})
            if len(pending) == _BATCH:
                parts.append(predictor.ask(np.stack(pending), *asked))
                pending = []
            advance()
    if pending:
        parts.append(predictor.ask(np.stack(pending), *asked))
    if not kept:
        raise UsageError(
            f"None of the {len(rows)} images of {source} could be read: {quarantined[0]['reason'].rstrip('.')}."
        )

    answers = {name: np.concatenate([part[name] for part in parts]) for name in asked}
    found = answers["probabilities"].astype(np.float64)
    truth = targets[kept]
    patients = None if table.patients is None else table.patients[kept]
    figures = score(task, found, truth, patients=patients)
    conformal = refused = None
    if predictor.conformal:
        conformal = coverage_report(task, predictor.conformal, answers["logits"], truth, patients=patients)
    if predictor.foreign:
        scores = energy(task, answers["logits"]), answers["distance"].astype(np.float64)
        refused = refusal_report(predictor.foreign, *scores, patients=patients)
    thresholds = None
    if predictor.points:
        calibrated = task.probabilities(answers["logits"], predictor.metadata.temperature)
        thresholds = points_report(task, predictor.points, calibrated, truth, patients)
    judged = calibration_error(task, found, truth, patients, seed=origin.seed)
    seen, notes = _seen_in_training(origin, digests)
    quality = dict(zip(PROPERTIES, np.array(measured).T, strict=True))
    notes += hint(origin.cuts, table)
    notes.append(calibration_words(judged))
    notes += figures["notes"]
    of_all = [finding.text for finding in (*table.findings, *on_changes(table))]
    notes += of_all if chosen == "all" else [f"Of all splits: {text}" for text in of_all]
    if quarantined:
        notes.append(f"{counted(len(quarantined), 'image')} could not be read; the first is {quarantined[0]['path']}.")
    if clipped:
        notes.append(
            f"A handful of pixels of {counted(len(clipped), 'image')} is brighter than the model's white and shown as white;"
            f" the first image is {clipped[0]}."
        )
    result = {
        "source": table.source,
        "location": location,
        "data": json.loads(json.dumps(asdict(data), default=str)),
        "split": chosen,
        "synthetic": table.synthetic or predictor.synthetic,
        "test": {"student": figures},
        "calibration": {
            "student": {"after": judged, "bins": reliability(task, found, truth, design=judged["design_effect"])}
        },
        **who_was_tested(origin.cuts, task, table, np.array(kept), found, truth, quality),
        "conformal": conformal,
        "operating_points": thresholds,
        "ood": refused,
        "quarantined": quarantined,
        "seen_in_training": seen,
        "notes": notes,
    }
    # Other sites may have a folder of the same name; subgroups only tell more of the same images.
    reading = fingerprint(location, chosen, replace(data, groups=()))[:8]
    name = re.sub(r"[^\w.-]+", "-", f"{table.name}-{chosen}-{reading}")
    return result, name


def tell(run: Run) -> None:
    """Write the report and the model card of a finished run anew: they name the data that it was tested on."""
    from stillroom.report import write_model_card, write_report

    if run.finished:
        with alone_in(run.path):
            write_model_card(run.path)
            write_report(run.path)


def _as_the_run_reads(data: DataSettings, own: DataSettings) -> DataSettings:
    """The settings with the run's joined and dropped classes where the user names none."""
    if data.merge or data.drop_class:
        return data
    return replace(data, merge=own.merge, drop_class=own.drop_class)


def _as_the_model_reads(data: DataSettings, task: Task) -> DataSettings:
    """The settings with the model's task and classes where the user gave none."""
    kinds: dict[str, Literal["multiclass", "ordinal", "multilabel"]]
    kinds = {"binary": "multiclass", "multiclass": "multiclass", "ordinal": "ordinal", "multilabel": "multilabel"}
    kind = kinds[task.kind] if data.task == "auto" else data.task
    return replace(data, task=kind, classes=data.classes or task.classes)


def _seen_in_training(origin: _Origin, digests: list[str]) -> tuple[dict[str, int] | None, list[str]]:
    """How many of the images the run trained or was selected on, and a note for people where that matters."""
    if origin.learnt is None:
        return None, [f"{origin.unknown}: whether it was trained on some of these is not known."]
    seen = sum(digest in origin.learnt for digest in digests)
    notes = [
        f"{seen} of {len(digests)} images were in the run's training or validation split, pixel for pixel: "
        "these figures flatter the model."
    ]
    return {"images": seen, "of": len(digests)}, notes if seen else []


def _renumbered(table: Table, task: Task) -> np.ndarray:
    """The table's targets as the model numbers its classes."""
    if table.task.exclusive != task.exclusive:
        raise UsageError(
            f"The model was trained on {task.kind} labels, {table.name} has {table.task.kind} ones: "
            "they cannot be compared."
        )
    unknown = [name for name in table.task.classes if name not in task.classes]
    if unknown:
        raise UsageError(
            f"{table.name} has the class {unknown[0]!r}, which the model does not know. "
            f"The model's classes: {', '.join(task.classes)}."
        )
    return task.parse(table.task.names(table.targets))


def chosen_rows(table: Table, split: Split) -> tuple[np.ndarray, str]:
    """The rows of a split, and its name. Raises UsageError where it is empty."""
    chosen = ("test" if (table.splits == "test").any() else "all") if split == "auto" else split
    rows = np.arange(len(table)) if chosen == "all" else table.indices(chosen)
    if len(rows) == 0:
        there = sorted(set(table.splits.tolist()) - {""})
        others = f"it has {', '.join(there)}" if there else "its images are in no split"
        raise UsageError(f"{table.name} has no {chosen} split; {others}. Give --split all for every image.")
    return rows, chosen
