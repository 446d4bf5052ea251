"""What a run began with, image by image, so that whoever goes on with it learns what has changed since, and what has not."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.data.answers import digest_of
from stillroom.data.dicom.patients import VARIABLE, secret_file
from stillroom.data.load import Dataset, is_named_set, open_source
from stillroom.data.sources.dicom_rows import HASHED
from stillroom.data.table import Table
from stillroom.errors import RunError, UsageError
from stillroom.files.atomic import write_atomically
from stillroom.files.digests import require_whole
from stillroom.files.frames import read_frame
from stillroom.files.reading import in_short
from stillroom.run.claims import MANIFEST, SETTINGS
from stillroom.run.folder import Run
from stillroom.run.preparing import data_set
from stillroom.run.rows import named_as
from stillroom.settings.whole import anchored

if TYPE_CHECKING:
    import pandas as pd

FILE = "images.parquet"
"""In the run folder: id, split, label, patient and the digests of pixels and mask of every image, as the run began."""

_UNLABELLED = "unlabelled"
_NAMED = 3
_KINDS = {
    "pixels": "with other pixels",
    "mask": "with another mask",
    "label": "with another label",
    "patient": "with another patient",
}


def write_images(run: Run, dataset: Dataset) -> None:
    """Write what the run begins with into its folder."""
    frame = _frame(dataset)
    write_atomically(run.path / FILE, lambda target: frame.to_parquet(target, index=False))


def facts_of_store(dataset: Dataset) -> dict[str, Any]:
    """For the manifest: how the images are stored."""
    store = dataset.store
    form = {"size": store.size, "channels": store.pixels.shape[1], "white": store.white, "fit": store.fit}
    return form | {"fingerprint": store.fingerprint}


def same_data(
    run: Run,
    *,
    source: str | Path | None = None,
    unlabelled: Path | str | None = None,
    teacher_answers: Path | str | None = None,
    show_progress: bool = True,
) -> tuple[Run, Dataset]:
    """The run, knowing where its data are now, and the data, which are those that it began with.

    Images are known by their decoded pixels, so that a set that was copied, moved or touched is the same. A new place is
    written into the manifest once it has proved right; settings.yaml stays as it is.

    Args:
        run: finished or not.
        source: where the images are now. Default: where they were last.
        unlabelled: where those without labels are now.
        teacher_answers: where the table of answers is now.
        show_progress: show bars.

    Raises:
        UsageError: a place is not there any more, or the run began without what is given a new one.
        RunError: images, masks, labels, splits, patients or answers are others by now: says which; or nobody can tell.
    """
    new = {"source": source, "unlabelled": unlabelled, "teacher_answers": teacher_answers}
    run, places = _at_places(run, {name: str(place) for name, place in new.items() if place is not None})
    begun = _begun_with(run)
    table = _table(run)
    if begun is not None:
        table = named_as(table, begun.id[begun.split != _UNLABELLED].tolist())
    dataset = data_set(table, run.settings, show_progress)
    _refuse_changed(run, dataset, begun)
    if places:
        run.note(places=places)
    return run, dataset


def _table(run: Run) -> Table:
    try:
        return open_source(run.settings.source, run.settings.student_data, seed=run.settings.seed)
    except UsageError as error:
        if "-column" in str(error):  # flags that nobody can give to a run that goes on
            again = f"`stillroom distill --settings {shlex.quote(str(run.path / SETTINGS))}`"
            error.add_note(
                f"{run.path} goes on with the settings that it began with: start a new run by {again} and the flag."
            )
        raise


# -- where the data are -------------------------------------------------------------------------------------------
def _at_places(run: Run, new: dict[str, str]) -> tuple[Run, dict[str, str]]:
    """The run with its data's last places in its settings, and those that are not the first."""
    settings, noted = run.settings, run.manifest.get("places", {})
    if not isinstance(noted, dict) or not all(isinstance(place, str) for place in noted.values()):
        raise UsageError(
            f"{run.path / MANIFEST} is damaged: `places` should hold a path by name, found {in_short(noted)}."
        )
    first = {
        "source": settings.source,
        "unlabelled": settings.training.unlabelled,
        "teacher_answers": settings.teacher.teacher_answers,
    }
    for name in new:
        if first[name] is None:
            raise UsageError(f"{run.path} began without {name}, so there is no new place of it to name.")
    now = first | noted | new
    settings = anchored(
        replace(
            settings,
            source=str(now["source"]),
            training=replace(settings.training, unlabelled=_path(now["unlabelled"])),
            teacher=replace(settings.teacher, teacher_answers=_path(now["teacher_answers"])),
        )
    )
    now = {
        "source": settings.source,
        "unlabelled": settings.training.unlabelled,
        "teacher_answers": settings.teacher.teacher_answers,
    }
    for name, place in now.items():
        named = place is None or (name == "source" and is_named_set(str(place)))
        if not named and name not in new and not Path(str(place)).expanduser().exists():
            flag = name.replace("_", "-")
            raise UsageError(f"{place}, which {run.path} reads, is not there any more. Name its new place by --{flag}.")
    places = {name: str(place) for name, place in now.items() if str(place) != str(first[name])}
    return Run(run.path, settings), places


def _path(place: Any) -> Path | None:
    return None if place is None else Path(place)


# -- what the data are --------------------------------------------------------------------------------------------
def _frame(dataset: Dataset) -> pd.DataFrame:
    import pandas as pd

    table, store, more = dataset.table, dataset.store, dataset.unlabelled
    columns = {
        "id": table.ids,
        "split": table.splits,
        "label": table.task.names(table.targets),
        "patient": table.patients if table.patients is not None else "",
        "pixels": store.digests,
        "mask": store.mask_digests,
    }
    frame = pd.DataFrame(columns)
    if more is None:
        return frame
    others = {
        "id": more.ids,
        "split": _UNLABELLED,
        "label": "",
        "patient": "",
        "pixels": more.store.digests,
        "mask": "",
    }
    return pd.concat([frame, pd.DataFrame(others)], ignore_index=True)


def _begun_with(run: Run) -> pd.DataFrame | None:
    """As :func:`_frame` has it; of a run of before, what its predictions tell. None where there is neither."""
    if (run.path / FILE).exists():
        require_whole(run.path / FILE)
        return read_frame(run.path / FILE)
    if (run.path / "predictions.parquet").exists():
        frame = run.predictions().rename(columns={"target": "label", "digest": "pixels"})
        if "pixels" in frame:
            return frame[["id", "split", "label", "patient", "pixels"]]
    return None


def _refuse_changed(run: Run, dataset: Dataset, begun: pd.DataFrame | None) -> None:
    manifest, settings = run.manifest, run.settings
    if "data_fingerprint" not in manifest:  # stopped before it began: nothing is made of any data
        return
    if begun is None:
        raise RunError(
            f"{run.path} was begun by an earlier Stillroom, which knew images by their files' dates: whether they are the "
            f"same cannot be told any more. Start a new run: `stillroom distill --settings {run.path / 'settings.yaml'}`."
        )
    if dataset.fingerprint != manifest["data_fingerprint"]:
        changes = _changes(begun, _frame(dataset))
        if changes:
            raise RunError(
                f"{settings.source} is not what {run.path} began with: {'; '.join(changes)}.{_told_by_name(dataset)}"
                f"{_told_by_secret(dataset, changes)} Put "
                "back what it was, or start a new run."
            )
        form = {key: value for key, value in facts_of_store(dataset).items() if key != "fingerprint"}
        if "mask" in begun or not form.items() <= manifest.get("store", {}).items():
            raise RunError(
                f"The images that {run.path} began with are the same, but this Stillroom reads them otherwise: start a new "
                "run, or go on with the version that its manifest.json names."
            )
    answers, began_with = settings.teacher.teacher_answers, manifest.get("answers_digest")
    if began_with and answers and digest_of(answers) != began_with:
        raise RunError(f"The answers in {answers} are not those that {run.path} began with: start a new run.")


def _told_by_name(dataset: Dataset) -> str:
    """Sentences on the columns that are used by their names, which the Stillroom that began the run may not have known."""
    told = [finding.text for finding in dataset.table.findings if finding.code == "columns_by_name"]
    return f" {' '.join(told)} An earlier Stillroom did not use such columns." if told else ""


def _told_by_secret(dataset: Dataset, changes: list[str]) -> str:
    """A sentence where other patients may be the same ones under another secret, as on another machine."""
    hashed = any(finding.code in HASHED for finding in dataset.table.findings)
    if not hashed or not any(_KINDS["patient"] in one for one in changes):
        return ""
    return (
        f" Patients of DICOM files are named by the secret in {secret_file()}: bring the one that the run began with, or "
        f"name it by ${VARIABLE}."
    )


def _changes(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """What differs, in words. Splits are told of only where nothing else differs: those that are drawn follow from it."""
    if "mask" not in before:  # of a run of before
        after = after[after.split != _UNLABELLED]
    old, new = _by_place(before), _by_place(after)
    both = [place for place in old if place in new]

    def other(kind: str) -> list[str]:
        pairs = {place: (old[place].get(kind), new[place][kind]) for place in both if kind in old[place]}
        told = {
            place: f"{place}: {was or 'none'}, now {now or 'none'}" for place, (was, now) in pairs.items() if was != now
        }
        return list(told) if kind in ("pixels", "mask") else list(told.values())

    said = [
        _some("gone or not readable", [place for place in old if place not in new]),
        _some("new", [place for place in new if place not in old]),
        *(_some(words, other(kind)) for kind, words in _KINDS.items()),
    ]
    if not any(said):
        said.append(_some("with another split", other("split")))
    if not any(said) and list(old) != list(new):
        said.append("its rows stand in another order")
    return [words for words in said if words]


def _by_place(frame: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    rows = frame.to_dict("records")
    return {f"unlabelled {row['id']}" if row["split"] == _UNLABELLED else str(row["id"]): row for row in rows}


def _some(words: str, places: list[str]) -> str:
    if not places:
        return ""
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return f"{len(places)} {'image' if len(places) == 1 else 'images'} {words} ({', '.join(places[:_NAMED])}{more})"
