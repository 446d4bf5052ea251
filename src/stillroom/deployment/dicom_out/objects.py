"""All objects about one instance, in memory: what is made of which answer, and what cannot be made and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from stillroom.data.dicom.opening import be_quiet
from stillroom.data.quiet import hush
from stillroom.deployment.dicom_out.common import Model
from stillroom.deployment.dicom_out.pictures import Drawn, overlay_of, parametric_map_of, told
from stillroom.deployment.dicom_out.report import report
from stillroom.deployment.dicom_out.sources import Source
from stillroom.deployment.prediction import Prediction
from stillroom.extras import need

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ObjectKind = Literal["SR", "SC", "PM"]


@dataclass(frozen=True)
class Made:
    """An object.

    Attributes:
        kind: report, overlay or parametric map.
        uid: its SOP Instance UID.
        content: the file.
        about: name of the image or frame that it is about; of a report that of its first answer.
    """

    kind: ObjectKind
    uid: str
    content: bytes
    about: str


@dataclass(frozen=True)
class NotMade:
    """An object that could not be made.

    Attributes:
        about: as in :class:`Made`.
        reason: why, in words that quote nothing of the source.
    """

    about: str
    reason: str


def get_ready(what: str) -> None:
    """See that objects can be made, and keep warnings, which would quote names, from every output.

    Args:
        what: what needs them, as the subject of a sentence.

    Raises:
        NotInstalled: highdicom is not installed.
    """
    need("highdicom", what)
    be_quiet()
    for package in ("highdicom", "stillroom.deployment.dicom_out"):  # whom pydicom's warnings name as the caller
        hush(package)


def objects_about(
    source: Source, answers: Sequence[tuple[Prediction, Callable[[], Drawn | None]]], model: Model
) -> Iterator[Made | NotMade]:
    """A Secondary Capture of every heat map and, where the source says how it lies, a Parametric Map; then the report.

    Args:
        source: the instance.
        answers: of its frames that could be read, at least one, in order; each with what gives its heat map, if it has one.
        model: what answered.
    """
    said, told_of = [answer for answer, _ in answers], []
    for answer, drawn in answers:
        heat_map = drawn()
        told_of.append(told(heat_map) if heat_map else "")
        if heat_map is not None:
            yield _made("SC", partial(overlay_of, source, heat_map, model), answer.name)
            if source.planes:
                yield _made("PM", partial(parametric_map_of, source, heat_map, model), answer.name)
    yield _made("SR", partial(report, source, said, told_of, model), str(said[0].path or ""))


def _made(kind: ObjectKind, make: Callable[[], Dataset], about: str) -> Made | NotMade:
    try:
        written, content = make(), BytesIO()
        written.save_as(content, enforce_file_format=True)
    except Exception as error:  # whose text may quote the file, and so a patient
        return NotMade(about, f"no {kind} object could be made of it ({type(error).__name__})")
    return Made(kind, str(written.SOPInstanceUID), content.getvalue(), about)
