"""Heat maps as images of the archive: laid over the picture (Secondary Capture), and as values (Parametric Map)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from stillroom.data.dicom.opening import value_of
from stillroom.deployment.dicom_out.common import Model, identity, line, uid_of
from stillroom.deployment.dicom_out.sources import Source, copy_identity
from stillroom.settings.methods import Method

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

OVERLAY_TITLE = "RESEARCH ONLY: heat maps of Stillroom"
MAP_TITLE = "RESEARCH ONLY: heat map values of Stillroom"

_OF_PIXELS = (
    *("BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
"""What holds of a picture's pixels holds of those made of them."""
_LONGEST_TEXT = 1024  # bytes of a text of the representation ST


@dataclass(frozen=True)
class Drawn:
    """A heat map of one image or frame.

    Attributes:
        frame: which, from 0.
        of: name of the class explained.
        method: how it was drawn.
        trust: how far it can be trusted, in words.
        overlay: ``[H, W, 3]`` uint8, the image with the map over it.
        heat: ``[H, W]`` float32 in [0, 1], the map.
    """

    frame: int
    of: str
    method: Method
    trust: str
    overlay: np.ndarray
    heat: np.ndarray


def told(drawn: Drawn) -> str:
    """What the map is and how far it can be trusted, in words."""
    return f"Where the model sees {drawn.of}, by {drawn.method}. {drawn.trust}"


def overlay_of(source: Source, drawn: Drawn, model: Model) -> Dataset:
    """A Secondary Capture of the image with the map over it."""
    from highdicom import CoordinateSystemNames
    from highdicom.sc import SCImage

    about = source.about
    written = SCImage(
        drawn.overlay,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),
        study_instance_uid=about.StudyInstanceUID,
        series_description=OVERLAY_TITLE,
        **identity("SC", source, drawn.frame, model, drawn.of, drawn.method, drawn.trust, _digest(drawn.overlay)),
    )
    copy_identity(about, written)
    written["PatientOrientation"].value = ""  # highdicom asks for one, and of a picture none is known
    written.SourceImageSequence = [_reference(source, drawn)]
    written.DerivationDescription = line(f"{told(drawn)} {model.warning}", _LONGEST_TEXT)
    written.ImageComments = line(f"{model.warning} {told(drawn)}", _LONGEST_TEXT)
    for keyword in _OF_PIXELS:
        if keyword in about:
            written[keyword] = about[keyword]
    _set_side(written, about)
    return written


def parametric_map_of(source: Source, drawn: Drawn, model: Model) -> Dataset:
    """A Parametric Map of the values, where they lie in the patient. The source must say where its frames lie."""
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    about = source.about
    quantity = _quantity(drawn.method)
    mapping = RealWorldValueMapping(
        lut_label="HEAT",
        lut_explanation=line(f"how much speaks for {drawn.of}"),
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=quantity,
    )
    written = ParametricMap(
        [_frame_alone(source, drawn.frame)],
        drawn.heat.astype(np.float32)[None],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="HEAT_MAP",
        content_description=line(f"Research only: where the model sees {drawn.of}"),
        content_qualification="RESEARCH",
        derived_pixel_contrast="NONE",
        derivation=quantity,
        series_description=MAP_TITLE,
        **identity("PM", source, drawn.frame, model, drawn.of, drawn.method, drawn.trust, _digest(drawn.heat)),
    )
    written.ImageComments = line(f"{model.warning} {told(drawn)}", _LONGEST_TEXT)
    copy_identity(about, written)
    written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].pop("SpacingBetweenSlices", None)  # a guess
    if source.frames > 1:
        for item in written.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence:
            item.ReferencedFrameNumber = drawn.frame + 1
    dimensions = uid_of("dimensions", written.SOPInstanceUID)
    for item in (*written.DimensionOrganizationSequence, *written.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    _set_side(written, about)
    return written


def _frame_alone(source: Source, frame: int) -> Dataset:
    """The frame as an instance of its own, for highdicom takes over where it lies and knows maps of all frames alone."""
    from pydicom.dataset import Dataset

    plane, alone = source.planes[frame], Dataset()
    alone.update(source.bare)
    position, orientation, measures = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = list(map(_decimal, plane.position))
    orientation.ImageOrientationPatient = list(map(_decimal, plane.orientation))
    measures.PixelSpacing, measures.SliceThickness = list(map(_decimal, plane.spacing)), _decimal(plane.thickness)
    if source.frames == 1:
        for values in (position, orientation, measures):
            alone.update(values)
        return alone
    groups = Dataset(), Dataset()
    groups[0].PlaneOrientationSequence, groups[0].PixelMeasuresSequence = [orientation], [measures]
    groups[1].PlanePositionSequence = [position]
    alone.NumberOfFrames = 1
    alone.SharedFunctionalGroupsSequence, alone.PerFrameFunctionalGroupsSequence = [groups[0]], [groups[1]]
    return alone


def _decimal(number: float) -> str:
    """A number as the representation DS may hold it, in 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(number)


def _quantity(method: Method) -> Code:
    """The code of what such a map shows (PS3.16, CID 217)."""
    from pydicom.sr.codedict import codes

    if method in ("grad_cam", "grad_cam_pp"):
        return codes.DCM.GradientWeightedClassActivation
    return codes.DCM.Saliency if method == "rise" else codes.DCM.ClassActivation


def _reference(source: Source, drawn: Drawn) -> Dataset:
    """The image, or frame, that the picture was made of."""
    from pydicom.dataset import Dataset
    from pydicom.sr.codedict import codes

    item = Dataset()
    item.ReferencedSOPClassUID = source.about.SOPClassUID
    item.ReferencedSOPInstanceUID = source.about.SOPInstanceUID
    if source.frames > 1:
        item.ReferencedFrameNumber = drawn.frame + 1
    purpose, code = Dataset(), codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _set_side(written: Dataset, about: Dataset) -> None:
    """The side of a paired part of the body as the source says it; empty, that is unknown, where it does not."""
    side = value_of(about, "Laterality") or value_of(about, "ImageLaterality")
    written.Laterality = side if side in ("R", "L") else None


def _digest(pixels: np.ndarray) -> str:
    return sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
