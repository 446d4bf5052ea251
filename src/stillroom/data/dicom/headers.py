"""What the header of a DICOM file tells of its images, without a name, an id or a date of a patient."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stillroom.data.dicom.grey import Shown, shown_by
from stillroom.data.dicom.opening import Opened, frames_in, number_of, open_dicom, sequence_of, value_of
from stillroom.data.dicom.patients import pseudonym
from stillroom.data.dicom.recognising import is_dicom_file, looks_like_dicom
from stillroom.data.table import UnreadableImage
from stillroom.settings.windows import Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SHAPES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
_SQUARE = 0.01  # of a side, which spacing is rounded to
_NAMES = (
    *("PatientName", "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "OtherPatientIDs"),
    *("OtherPatientNames", "PatientMotherBirthName", "PatientBirthName"),
)
_NO_NAME = re.compile(
    r"\W*(anon\w*|none|unknown|removed|deidentified|de-identified|patient|test|x+|0+)?\W*", re.IGNORECASE
)
_SHORTEST = 4  # characters of an id by which a file may be named; shorter ones are found in any name


@dataclass(frozen=True)
class Header:
    """One DICOM file.

    Attributes:
        frames: how many it holds.
        patient: pseudonym of its PatientID; empty where it has none.
        study: the same of its study.
        uids: of the instance, its series and its study, by which a table may name it.
        burned_in: ``YES``, ``NO``, or empty where it does not say whether words are burned into its pixels.
        identified: whether it holds a name, a date of birth or the like.
        private: whether it holds elements whose meaning its maker alone knows.
        named: whether its path holds the PatientID or a part of the name.
        oblong: whether its pixels are not square.
        shown: what decides how its first frame is shown; None where it is in colour or cannot be shown.
        alike: whether this decides for all of its frames.
    """

    frames: int
    patient: str
    study: str
    uids: tuple[str, str, str]
    burned_in: str
    identified: bool
    private: bool
    named: bool
    oblong: bool
    shown: Shown | None
    alike: bool


def read_header(path: Path, window: Window | None, key: bytes) -> Header | None:
    """The header of a DICOM file; None of any other, and of one that is damaged, which says so when it is read."""
    if not is_dicom_file(path):
        return None
    try:
        with path.open("rb") as file:
            return _told(open_dicom(file), path, window, key)
    except (OSError, ValueError, UnreadableImage):
        return None


def own_display(file: BinaryIO, frame: int) -> Shown | None:
    """How an open DICOM file itself wants a grey frame, from 0, to be shown; None of any other file, and of a damaged one."""
    try:
        return _shown(open_dicom(file).header, None, frame) if looks_like_dicom(file) else None
    except (OSError, ValueError, UnreadableImage):
        return None


def _told(opened: Opened, path: Path, window: Window | None, key: bytes) -> Header:
    header = opened.header
    identity = _text(header, "PatientID")
    uids = tuple(_text(header, f"{level}InstanceUID") for level in ("SOP", "Series", "Study"))
    return Header(
        frames=frames_in(opened),
        patient=pseudonym(identity, key),
        study=pseudonym(uids[2] or uids[1], key),
        uids=uids,  # type: ignore[arg-type]
        burned_in=_text(header, "BurnedInAnnotation").upper(),
        identified=any(not _NO_NAME.fullmatch(_text(header, name)) for name in _NAMES),
        private=any(tag.is_private for tag in header.keys()),  # noqa: SIM118  (iterating would parse every element)
        named=_names(path, identity, _text(header, "PatientName")),
        oblong=_oblong(header),
        shown=_shown(header, window),
        alike=not sequence_of(header, "PerFrameFunctionalGroupsSequence"),
    )


def _text(header: Dataset, keyword: str) -> str:
    return str(value_of(header, keyword, "")).strip("\0 ")


def _names(path: Path, identity: str, name: str) -> bool:
    text = path.as_posix().casefold()
    parts = [identity, *re.split(r"[\^=\s]+", name)]
    return any(len(part) >= _SHORTEST and not _NO_NAME.fullmatch(part) and part.casefold() in text for part in parts)


def _oblong(header: Dataset) -> bool:
    for keyword in _SHAPES:
        value = value_of(header, keyword)
        try:
            down, across = (float(number) for number in value)
        except (TypeError, ValueError):
            continue
        return down > 0 and across > 0 and abs(down / across - 1) > _SQUARE
    return False


def _shown(header: Dataset, window: Window | None, frame: int = 0) -> Shown | None:
    if number_of(header, "SamplesPerPixel", 1) != 1 or not _text(header, "PhotometricInterpretation").startswith(
        "MONO"
    ):
        return None
    try:
        return shown_by(header, frame, window)
    except UnreadableImage:
        return None
