"""DICOM instances that were sent to be answered, and what becomes of each: objects for its archive, or a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from stillroom.data.dicom.opening import open_dicom, value_of
from stillroom.data.dicom.recognising import looks_like_dicom
from stillroom.data.table import UnreadableImage
from stillroom.deployment.dicom_out.common import MAKER, Model
from stillroom.deployment.dicom_out.objects import Made, NotMade, objects_about
from stillroom.deployment.dicom_out.pictures import Drawn
from stillroom.deployment.dicom_out.sources import NotReferable, Source, read_source
from stillroom.deployment.prediction import Prediction
from stillroom.serving import work
from stillroom.serving.bodies import Sent
from stillroom.serving.refusals import Refused
from stillroom.serving.shelf import Served

MOST_DRAWN = 50_000_000
"""Pixels of all frames of a request whose maps are drawn: pictures and maps of them are held until all is sent."""
CANNOT_UNDERSTAND, CANNOT_PROCESS, OF_NO_USE = 0xC000, 0x0110, 0x0122
"""Failure reasons (PS3.4, CC.2.3 and PS3.7, C.5): unreadable, no object could be made, nothing that is classified."""
LEFT_OUT = 0xB006
"""Warning reason: elements discarded."""

Answered = Sequence[tuple[Prediction, work.Drawn | None]]


@dataclass(frozen=True)
class Instance:
    """One that was sent.

    Attributes:
        sent: the file.
        uids: of its SOP class and of itself; None where it does not say both in a valid way.
        source: what objects about it take over; None where there can be none.
        refused: code and words of why, where ``source`` is None.
    """

    sent: Sent
    uids: tuple[str, str] | None
    source: Source | None
    refused: tuple[int, str] | None = None

    @property
    def frames(self) -> list[work.Frame]:
        """Its images; none where it was refused."""
        count = self.source.frames if self.source else 0
        return [work.Frame(self.sent, number, count) for number in range(count)]


@dataclass(frozen=True)
class Outcome:
    """What became of one.

    Attributes:
        instance: that was sent.
        made: objects about it.
        failed: code and words of why there are none, or why one is missing.
        warned: code and words of what they leave out.
    """

    instance: Instance
    made: tuple[Made, ...] = ()
    failed: tuple[int, str] | None = None
    warned: tuple[int, str] | None = None


def open_instances(files: Sequence[Sent], most: int, maps: bool) -> list[Instance]:
    """Read the headers of what was sent.

    Args:
        files: parts of a request.
        most: frames of all together.
        maps: whether heat maps will be drawn of them.

    Raises:
        Refused: the frames are too many, or too large to draw maps of them in one request.
    """
    found = [_opened(sent) for sent in files]
    sources = [one.source for one in found if one.source]
    if sum(source.frames for source in sources) > most:
        raise Refused(413, f"A request may have {most} frames: send fewer instances.", "too_many")
    pixels = sum(source.frames * _size(source, "Rows") * _size(source, "Columns") for source in sources)
    if maps and pixels > MOST_DRAWN:
        text = (
            f"Heat maps are drawn of {MOST_DRAWN // 10**6} million pixels in one request: send fewer instances, or "
            "ask for ?maps=false."
        )
        raise Refused(413, text, "too_large")
    return found


def objects_for(served: Served, instance: Instance, answered: Answered) -> Outcome:
    """Make the objects about one instance.

    Args:
        served: the model that answered.
        instance: what it answered about.
        answered: the answer of each of its frames, and the heat map that goes with it.
    """
    if instance.source is None:
        return Outcome(instance, failed=instance.refused)
    readable = [pair for pair in answered if pair[0].error is None]
    unread = [_unread(answer, instance.source) for answer, _ in answered if answer.error is not None]
    if not readable:
        return Outcome(instance, failed=(CANNOT_UNDERSTAND, "; ".join(unread)))
    asked = [(answer, lambda drawn=drawn: _as_drawn(drawn)) for answer, drawn in readable]
    results = list(objects_about(instance.source, asked, Model.of(served.predictor, served.digest)))
    made = tuple(one for one in results if isinstance(one, Made))
    missing = [one.reason for one in results if isinstance(one, NotMade)]
    if instance.source.left_empty:
        unread.append(f"not valid, and left empty in its objects: {', '.join(instance.source.left_empty)}")
    return Outcome(
        instance,
        made,
        failed=(CANNOT_PROCESS, "; ".join(missing)) if missing else None,
        warned=(LEFT_OUT, "; ".join(unread)) if unread else None,
    )


def _opened(sent: Sent) -> Instance:
    file = BytesIO(sent.content)
    if not looks_like_dicom(file):
        return Instance(sent, None, None, (CANNOT_UNDERSTAND, "it is no DICOM file"))
    try:
        header = open_dicom(file).header
    except (OSError, UnreadableImage):
        return Instance(sent, None, None, (CANNOT_UNDERSTAND, "its header cannot be read"))
    uids = tuple(value_of(header, keyword) for keyword in ("SOPClassUID", "SOPInstanceUID"))
    valid = all(getattr(uid, "is_valid", False) for uid in uids)
    known = (str(uids[0]), str(uids[1])) if valid else None
    if value_of(header, "Manufacturer") == MAKER:  # an archive that sends on whatever it gets would never end
        return Instance(sent, known, None, (OF_NO_USE, "Stillroom has made it itself"))
    try:
        return Instance(sent, known, read_source(file))
    except NotReferable as error:
        return Instance(sent, known, None, (CANNOT_UNDERSTAND, str(error)))


def _size(source: Source, keyword: str) -> int:
    return int(source.about.get(keyword) or 0)


def _unread(answer: Prediction, source: Source) -> str:
    return f"frame {answer.frame}: {answer.error}" if source.frames > 1 else str(answer.error)


def _as_drawn(drawn: work.Drawn | None) -> Drawn | None:
    if drawn is None or drawn.heat is None or drawn.picture is None or drawn.explanation.of is None:
        return None
    frame = (drawn.explanation.prediction.frame or 1) - 1
    overlay = np.asarray(drawn.picture.convert("RGB"))
    return Drawn(frame, drawn.explanation.of, drawn.method, drawn.statement, overlay, drawn.heat)
