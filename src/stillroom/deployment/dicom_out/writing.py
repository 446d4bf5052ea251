"""From answers to files: what is written for which image, and what is not and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

from stillroom.data.dicom.recognising import is_dicom_file
from stillroom.deployment.dicom_out.common import Model
from stillroom.deployment.dicom_out.objects import Made, NotMade, get_ready, objects_about
from stillroom.deployment.dicom_out.pictures import Drawn
from stillroom.deployment.dicom_out.sources import NotReferable, Source, read_source
from stillroom.deployment.prediction import Prediction
from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.extras import need
from stillroom.files.atomic import write_atomically
from stillroom.files.places import require_folder_place

_OF_A_RUN = ("settings.yaml", "manifest.json")
_REMEDY = "Choose another --dicom."


@dataclass
class Written:
    """What became of answers.

    Attributes:
        files: every object of this call, once, in order, those among them that were there already.
        already: how many of them an earlier call had written; they were left as they were.
        passed_over: images that are no DICOM files.
        failed: by image, why there is no object, or one of them is missing.
        without_place: by image, that there is no Parametric Map because the image does not say where it lies.
        left_empty: by image, keywords of what is not valid in it and was not copied.
        seen: the same as ``files``, to be asked fast.
    """

    files: list[Path] = field(default_factory=list)
    already: int = 0
    passed_over: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    without_place: list[str] = field(default_factory=list)
    left_empty: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seen: set[Path] = field(default_factory=set)

    @property
    def counts(self) -> dict[str, int]:
        """How many of ``SR``, ``SC`` and ``PM``."""
        return {kind: sum(path.name.startswith(f"{kind}.") for path in self.files) for kind in ("SR", "SC", "PM")}


def require_dicom_place(out: Path, images: Sequence[Path]) -> None:
    """See before the work that objects can be made, and written to ``out``.

    Raises:
        UsageError: highdicom is not installed, nothing can be written there, or it is a place where no patient's identity
            may stand (a run folder) or where the objects would be taken for images (a folder that is read).
    """
    need("highdicom", "--dicom")
    require_folder_place(out, _REMEDY)
    for above in (out.resolve(), *out.resolve().parents):
        if all((above / name).is_file() for name in _OF_A_RUN):
            raise UsageError(
                f"{out} is in the run folder {above}, which holds no patient's identity; DICOM objects do. {_REMEDY}"
            )
    for named in images:
        place = out.resolve()
        inside = place.is_relative_to(named.resolve()) if named.is_dir() else place == named.resolve().parent
        if inside:
            what = f"is in {named}" if named.is_dir() else f"is the folder of {named}"
            raise UsageError(f"{out} {what}, where objects would be read as images the next time. {_REMEDY}")


def write_answers(
    predictor: Predictor,
    answers: Sequence[Prediction],
    out: Path,
    drawn: Callable[[int], Drawn | None] = lambda _: None,
) -> Written:
    """Write what was answered about DICOM files as DICOM objects, named by their UIDs.

    A file has a Structured Report of all of its frames that could be read; a frame with a heat map a Secondary Capture and,
    where it says how it lies in the patient, a Parametric Map. The same answers of the same model have the same UIDs, and
    what is there already is left as it is, so that a second call makes no doubles.

    Args:
        predictor: the model that answered.
        answers: of files, frames of one file next to each other.
        out: a folder, made if need be; see :func:`require_dicom_place`.
        drawn: the heat map of the answer with this number, if it has one; asked for when it is needed.

    Raises:
        UsageError: the model's file has changed, or highdicom is not installed.
        StorageError: the disk is full, or the folder cannot be written to.
    """
    get_ready("--dicom")
    model, done = Model.of(predictor, predictor.digest), Written()
    for path, group in groupby(enumerate(answers), key=lambda item: item[1].path):
        items = [(number, answer) for number, answer in group if answer.error is None]
        if path is None or not items:
            continue
        if not is_dicom_file(path):
            done.passed_over.append(str(path))
            continue
        try:
            source = _source_of(path)
        except NotReferable as error:
            done.failed[str(path)] = str(error)
            continue
        if source.left_empty:
            done.left_empty[str(path)] = source.left_empty
        for one in objects_about(source, [(answer, partial(drawn, number)) for number, answer in items], model):
            if isinstance(one, NotMade):
                done.failed[one.about] = one.reason
                continue
            _write(one, out, done)
            if one.kind == "SC" and not source.planes:
                done.without_place.append(one.about)
    return done


def _source_of(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            return read_source(file)
    except OSError:
        raise NotReferable("it cannot be opened any more") from None


def _write(made: Made, out: Path, done: Written) -> None:
    path = out / f"{made.kind}.{made.uid}.dcm"
    if path in done.seen:  # an image that was named twice
        return
    done.seen.add(path)
    if path.is_file():
        done.already += 1
    else:
        write_atomically(path, lambda target: target.write_bytes(made.content))
    done.files.append(path)
