"""The instance that an answer is about: what is copied of it, and where its frames lie in the patient.

This is the one place where a patient's identity is read to be written down again: the objects go back to the archive that
the images come from, where they must find their patient. No text of a file gets into an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from stillroom.data.dicom.grey import functional_group
from stillroom.data.dicom.opening import frames_in, open_dicom, value_of
from stillroom.data.dicom.recognising import looks_like_dicom
from stillroom.data.table import UnreadableImage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_WHOSE = ("PatientName", "PatientID", "IssuerOfPatientID")
_PATIENT = (
    *("PatientBirthDate", "PatientBirthTime", "PatientSex", "PatientAge", "PatientSize", "PatientWeight"),
    *("PatientSpeciesDescription", "PatientBreedDescription", "ResponsiblePerson", "ResponsibleOrganization"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
)
_STUDY = ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber", "StudyDescription")
_IDENTITY = (*_WHOSE, *_PATIENT, *_STUDY)
_REST = (
    *("Rows", "Columns", "InstanceNumber", "FrameOfReferenceUID", "PositionReferenceIndicator", "Modality"),
    *("Laterality", "ImageLaterality", "BurnedInAnnotation", "BodyPartExamined"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_SEVERAL = ("LossyImageCompressionRatio", "LossyImageCompressionMethod", "DeidentificationMethod")
_UNSTATED = "not stated in the source image"
_REQUIRED = (*_WHOSE[:2], "PatientBirthDate", "PatientSex", *_STUDY[:5], "PositionReferenceIndicator")
_IN_SPACE = (
    *("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"),  # CT, Enhanced CT
    *("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"),  # MR, Enhanced MR
    *("1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.130"),  # PET, Enhanced PET
)
_SIDES, _EITHER = ("R", "L", "B", "U"), ("YES", "NO")
_TERMS = {
    "PatientSex": ("M", "F", "O"),
    **dict.fromkeys(("Laterality", "ImageLaterality"), _SIDES),
    **dict.fromkeys(("BurnedInAnnotation", "PatientIdentityRemoved"), _EITHER),
    "LossyImageCompression": ("00", "01"),
}
"""All that these elements may say."""
_UNIT = 1e-3  # by how much cosines may miss length 1 and right angles; they are rounded


class NotReferable(Exception):
    """Why no object can be made about a file, in words that quote nothing of it."""


@dataclass(frozen=True)
class Plane:
    """Where a frame lies in the patient.

    Attributes:
        position: of its first pixel, in mm.
        orientation: direction cosines of its rows and columns.
        spacing: between rows and between columns, in mm.
        thickness: of the slice, in mm.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float


@dataclass(frozen=True)
class Source:
    """An instance that answers are about.

    Attributes:
        about: what objects copy of it, all of it valid and in Unicode, and what they refer to it by.
        frames: how many it holds.
        planes: of every frame where it lies; empty where it does not say of all.
        left_empty: keywords of what is not valid in it, and so was not copied.
    """

    about: Dataset
    frames: int
    planes: tuple[Plane, ...]
    left_empty: tuple[str, ...]

    @property
    def bare(self) -> Dataset:
        """The instance without anybody's identity, for highdicom, which would quote names in warnings."""
        from pydicom.dataset import Dataset

        bare = Dataset()
        bare.update({element.tag: element for element in self.about if element.keyword not in _IDENTITY})
        for keyword in _REQUIRED:
            if keyword in _IDENTITY:
                setattr(bare, keyword, None)
        return bare


def read_source(file: BinaryIO) -> Source:
    """What objects take over from an open DICOM file.

    Raises:
        NotReferable: it is no DICOM file, lacks the UIDs that objects refer to, or says in no valid way whose it is.
    """
    from pydicom.dataset import Dataset

    if not looks_like_dicom(file):
        raise NotReferable("it is no DICOM file")
    try:
        opened = open_dicom(file)
        header, frames = opened.header, frames_in(opened)
    except (OSError, UnreadableImage):
        raise NotReferable("its header cannot be read") from None
    about, left_empty = Dataset(), []
    for keyword in (*_UIDS, *_IDENTITY, *_REST):
        value = value_of(header, keyword)
        if value is not None and _put(about, keyword, value):
            continue
        if value is not None:
            left_empty.append(keyword)
        if keyword in _UIDS:
            raise NotReferable(f"it has no valid {keyword}, by which an object could refer to it")
        if keyword in _WHOSE and value is not None:
            raise NotReferable(f"its {keyword} is not valid, so that an object could go to another patient")
        if keyword in _REQUIRED:
            setattr(about, keyword, None)
    methods = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
    if about.get("PatientIdentityRemoved") == "YES" and not any(name in about for name in methods):
        about.DeidentificationMethod = _UNSTATED  # the standard asks for one
    if frames > 1:
        about.NumberOfFrames = frames
    return Source(about, frames, _planes(header, about, frames), tuple(left_empty))


def copy_identity(about: Dataset, written: Dataset) -> None:
    """Give an object the patient and the study of its source."""
    for keyword in _IDENTITY:
        if keyword in about:
            written[keyword] = about[keyword]


def _put(about: Dataset, keyword: str, value: Any) -> bool:
    """Whether the value is valid for its element, which then has it."""
    from pydicom.config import RAISE
    from pydicom.datadict import dictionary_VR
    from pydicom.multival import MultiValue
    from pydicom.valuerep import PersonName, validate_value

    try:
        vr = dictionary_VR(keyword)
        if isinstance(value, PersonName):
            value = PersonName(str(value))  # its own character set stays behind
        if vr == "SQ":
            setattr(about, keyword, value)
            return True
        if vr == "UI" and not value.is_valid:
            return False
        several = isinstance(value, MultiValue)
        if several and keyword not in _SEVERAL:
            return False
        text = str(value)
        for one in value if several else [value]:
            if vr not in ("US", "IS", "DS"):
                validate_value(vr, str(one), RAISE)
            elif not float(one) >= 0:
                return False
        if text not in _TERMS.get(keyword, (text,)):
            return False
        if vr in ("DA", "TM") and "-" in text:  # a range, as only queries have
            return False
        setattr(about, keyword, value if several or vr in ("US", "IS", "DS", "PN") else text)
        _ = about[keyword].value
    except Exception:  # pydicom raises nearly anything on what is not valid
        if keyword in about:
            delattr(about, keyword)
        return False
    return True


def _planes(header: Dataset, about: Dataset, frames: int) -> tuple[Plane, ...]:
    if about.SOPClassUID not in _IN_SPACE or "FrameOfReferenceUID" not in about:
        return ()
    found = [_plane(header, frame) for frame in range(frames)]
    return tuple(one for one in found if one is not None) if None not in found else ()


def _plane(header: Dataset, frame: int) -> Plane | None:
    measures = functional_group(header, frame, "PixelMeasuresSequence") or header
    position = _numbers(functional_group(header, frame, "PlanePositionSequence") or header, "ImagePositionPatient", 3)
    turned = functional_group(header, frame, "PlaneOrientationSequence") or header
    orientation, spacing = _numbers(turned, "ImageOrientationPatient", 6), _numbers(measures, "PixelSpacing", 2)
    thickness = _numbers(measures, "SliceThickness", 1)
    if not (position and orientation and spacing and thickness) or min(*spacing, *thickness) <= 0:
        return None
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    if np.abs([rows @ rows - 1, columns @ columns - 1, rows @ columns]).max() > _UNIT:
        return None
    return Plane(position, orientation, spacing, thickness[0])


def _numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """So many finite numbers, or none."""
    value = value_of(header, keyword)
    try:
        found = tuple(float(number) for number in (value if count > 1 else [value]))
    except (TypeError, ValueError):
        return ()
    return found if len(found) == count and np.isfinite(found).all() else ()
