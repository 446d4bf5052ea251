"""How well a finished run's exported student refuses images that are not of its kind. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.after.external_validation import Split, chosen_rows
from stillroom.data.dicom.directory import listed_images
from stillroom.data.dicom.recognising import is_directory
from stillroom.data.listing import list_images, list_pictures
from stillroom.data.load import is_named_set, open_source
from stillroom.data.pictures import pictures_in
from stillroom.data.sources.relabelling import refuse_absent
from stillroom.data.table import UnreadableImage
from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.evaluation.ood import energy, foreign_report
from stillroom.files.atomic import write_json
from stillroom.files.digests import require_whole
from stillroom.files.frames import read_arrays
from stillroom.progress import progress
from stillroom.run.claims import alone_in
from stillroom.run.folder import FOREIGN_SCORES, Run
from stillroom.settings.sections import DataSettings
from stillroom.shown import counted

_BATCH = 32
_Image = tuple[str, Callable[[], np.ndarray]]
"""Where an image stands, and what reads it."""


def evaluate_foreign(
    run: Run, source: str | Path, data: DataSettings | None = None, *, split: Split = "auto", show_progress: bool = True
) -> dict[str, Any]:
    """Ask the exported student about images that it was not made for; metrics.json and the report gain the result.

    Args:
        run: a finished run.
        source: a data set, whatever its labels, or a folder of images.
        data: how to read the source.
        split: which images, see :func:`~stillroom.after.external_validation.evaluate`.
        show_progress: show a bar.

    Returns:
        See :func:`~stillroom.evaluation.ood.foreign_report`; also ``source`` (a line for people), ``location`` (the name or
        absolute path, which tells apart what has one name), ``quarantined`` (path and reason of what could not be read) and
        ``notes``.

    Raises:
        UsageError: the run has no rule for foreign images, there is no readable image, or another process is at work in the
            run folder.
    """
    with alone_in(run.path):
        return _evaluated(run, source, data, split, show_progress)


def _evaluated(
    run: Run, source: str | Path, data: DataSettings | None, split: Split, show_progress: bool
) -> dict[str, Any]:
    predictor, metrics = run.predictor(), run.metrics
    require_whole(run.path / FOREIGN_SCORES)
    if predictor.foreign is None or not (run.path / FOREIGN_SCORES).exists():
        raise UsageError(f"{run.path} has no rule for foreign images: {_why(metrics)}")
    images, name, description, notes = _images(source, data, split, predictor, run)
    location = str(source) if is_named_set(str(source)) else str(Path(source).expanduser().absolute())
    others = [past for past in metrics["ood"]["against"] if past.get("location", past["source"]) != location]
    if any(past["name"] == name for past in others):  # another hospital's folder of the same name
        name = location
    found: list[tuple[np.ndarray, np.ndarray]] = []
    pending: list[np.ndarray] = []
    quarantined: list[dict[str, str]] = []

    def ask() -> None:
        if pending:
            said = predictor.ask(np.stack(pending), "logits", "distance")
            found.append((energy(predictor.task, said["logits"]), said["distance"].astype(np.float64)))
            pending.clear()

    with progress("evaluate", len(images), enabled=show_progress) as advance:
        for place, read in images:
            try:
                pending.append(predictor.prepare(read()))
            except (UnreadableImage, UsageError) as error:
                quarantined.append({"path": place, "reason": str(error)})
            if len(pending) == _BATCH:
                ask()
            advance()
    ask()
    if not found:
        raise UsageError(f"None of the images of {source} could be read: {quarantined[0]['reason'].rstrip('.')}.")
    kept = read_arrays(run.path / FOREIGN_SCORES, "energy", "distance", "patients")
    inside, patients = (kept["energy"], kept["distance"]), kept["patients"]
    report = foreign_report(
        predictor.foreign,
        inside,
        (np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])),
        name,
        patients=patients if len(patients) else None,
    )
    if quarantined:
        notes.append(f"{counted(len(quarantined), 'image')} could not be read; the first is {quarantined[0]['path']}.")
    result = report | {"source": description, "location": location, "quarantined": quarantined, "notes": notes}
    ood = metrics["ood"] | {"against": [*others, result]}
    write_json(run.path / "metrics.json", metrics | {"ood": ood})
    from stillroom.report import write_model_card, write_report

    write_model_card(run.path)
    write_report(run.path)
    return result


def _images(
    source: str | Path, data: DataSettings | None, split: Split, predictor: Predictor, run: Run
) -> tuple[list[_Image], str, str, list[str]]:
    """Place and reader of each image, the source's short name, a line on it for people, and how it was read."""
    path = Path(source).expanduser()
    listed = is_directory(path) and path.is_file()
    if not is_named_set(str(source)) and (listed or (path.is_dir() and _without_classes(path))):
        files, notes = (listed_images(path), []) if listed else list_pictures(path)
        if not files:
            raise UsageError(f"There is no image in the folder {source}.")
        pictures = pictures_in(files)
        reader = predictor.reader(pictures)
        found: list[_Image] = [(str(one), partial(reader.read, place)) for place, one in enumerate(pictures)]
        return found, path.name, str(path), notes
    window = predictor.metadata.window
    read_as = replace(data or DataSettings(), size=predictor.size, window=window)  # the size picks MedMNIST's file
    table = predictor.as_shown(open_source(source, read_as, seed=run.settings.seed, training=False))
    refuse_absent(table, read_as)
    rows, _ = chosen_rows(table, split)
    places: list[_Image] = [(str(table.ids[row]), partial(table.reader.read, int(table.rows[row]))) for row in rows]
    return places, table.name, table.source, [finding.text for finding in table.findings]


def _without_classes(folder: Path) -> bool:
    """Whether images lie in the folder itself, so that its folders are no classes; also true of an empty one."""
    inside = list_images(folder)
    return not inside or any(file.parent == folder for file in inside)


def _why(metrics: dict[str, Any]) -> str:
    ood = metrics.get("ood")
    if ood is None:
        return "it was made by an earlier Stillroom. Train it again."
    return str(ood["statement"])
