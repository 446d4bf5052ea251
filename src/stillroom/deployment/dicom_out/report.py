"""Answers as a Structured Report: a Measurement Report (PS3.16, TID 1500) with a group for each image or frame.

Words are those of ``stillroom predict``; beside them each is given as a code or a number, for programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stillroom.deployment.dicom_out.common import MAKER, SCHEME, Model, identity, line, uid_of
from stillroom.deployment.dicom_out.sources import Source, copy_identity
from stillroom.deployment.prediction import FOREIGN, Prediction
from stillroom.shown import shown

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept, QualitativeEvaluation
    from pydicom.dataset import Dataset

TITLE = "RESEARCH ONLY: answers of Stillroom"


def report(source: Source, answers: Sequence[Prediction], maps: Sequence[str], model: Model) -> Dataset:
    """An Enhanced SR of what the model says of one instance.

    Args:
        source: the instance.
        answers: of its frames that could be read, at least one, in order.
        maps: of every answer, what heat map goes with it and how far that can be trusted; empty where there is none.
        model: what answered.
    """
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        EnhancedSR,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
        TextContentItem,
    )
    from pydicom.sr.codedict import codes

    class Report(EnhancedSR):
        """highdicom's own copying knows no retired kinds of images, and quotes names in warnings."""

        def copy_patient_and_study_information(self, dataset: Dataset) -> None:
            copy_identity(source.about, self)

    groups = [_group(source, answer, told, model) for answer, told in zip(answers, maps, strict=True)]
    device = DeviceObserverIdentifyingAttributes(
        uid_of("device", model.digest, model.software),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=shown(model.name),
        serial_number=model.digest,
    )
    content = MeasurementReport(
        ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
        codes.SCT.ImagingProcedure,
        groups,
    )
    content[0].ContentSequence.append(TextContentItem(codes.DCM.Comment, model.warning, "CONTAINS"))
    said = [answer.to_dict() | {"path": None} for answer in answers]
    about = identity("SR", source, None, model, said, list(maps))
    return Report(
        [source.bare],
        content[0],
        sop_instance_uid=about.pop("sop_instance_uid"),
        series_description=TITLE,
        is_complete=True,
        coding_schemes=[
            CodingSchemeIdentificationItem(SCHEME, name="Codes of Stillroom", responsible_organization=MAKER)
        ],
        **about,
    )


def _group(source: Source, answer: Prediction, told: str, model: Model) -> Any:
    """What is said of one image."""
    from highdicom.sr import (
        AlgorithmIdentification,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        SourceImageForMeasurementGroup,
        TextContentItem,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    about = source.about
    frames = None if answer.frame is None else [answer.frame]
    measured = [
        Measurement(_of_class("probability", name, model, "Probability"), round(probability, 4), codes.UCUM.NoUnits)
        for name, probability in answer.probabilities.items()
        if not answer.foreign
    ]
    group = MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(
            uid_of("tracking", about.SOPInstanceUID, answer.frame, model.digest),
            "image" if answer.frame is None else f"frame {answer.frame}",
        ),
        algorithm_id=AlgorithmIdentification(
            f"{MAKER}: {shown(model.name)}",
            model.software,
            parameters=[f"SHA-256 of the model's file: {model.digest}"],
            family=codes.DCM.ArtificialIntelligence,
            manufacturer=MAKER,
        ),
        measurements=measured,
        qualitative_evaluations=list(_evaluations(answer, model)),
        source_images=[SourceImageForMeasurementGroup(about.SOPClassUID, about.SOPInstanceUID, frames)],
    )
    texts = {"answer": answer.answer, "flagged": answer.flags, "note": answer.note, "map": told}
    for code, text in texts.items():
        if text:
            group[0].ContentSequence.append(TextContentItem(_own(code, _NAMES[code]), shown(text), "CONTAINS"))
    return group


_NAMES = {
    "answer": "Answer",
    "flagged": "Flagged",
    "note": "Note",
    "map": "Heat map",
    "decided": "Class decided for",
    "possible": "Class that cannot be ruled out",
    "foreign": f"Refused: {FOREIGN}",
}


def _evaluations(answer: Prediction, model: Model) -> list[QualitativeEvaluation]:
    """What is decided, as codes: of a foreign image that it is refused, and nothing else."""
    from highdicom.sr import QualitativeEvaluation
    from pydicom.sr.codedict import codes

    yes_no = (codes.SCT.No, codes.SCT.Yes)
    told: list[tuple[CodedConcept, Any]] = []
    if answer.foreign is not None:
        told.append((_own("foreign", _NAMES["foreign"]), yes_no[answer.foreign]))
    if not answer.foreign:
        for code, names in (("decided", _sure(answer, model)), ("possible", answer.possible or ())):
            told += [(_own(code, _NAMES[code]), _of_class("class", name, model)) for name in names]
        flags = enumerate(answer.flagged.items(), start=1)
        told += [(_own(f"flagged-{number}", f"Flagged: {name}"), yes_no[on]) for number, (name, on) in flags]
    return [QualitativeEvaluation(name, value) for name, value in told]


def _sure(answer: Prediction, model: Model) -> list[str]:
    """The classes decided for without doubt: none where several of classes that exclude each other cannot be ruled out."""
    if model.exclusive and len(answer.possible or ()) > 1:
        return []
    return [name for name in answer.decision if name not in answer.unsure]


def _of_class(code: str, name: str, model: Model, what: str = "") -> CodedConcept:
    return _own(f"{code}-{model.classes.index(name) + 1}", f"{what}: {name}" if what else name)


def _own(code: str, meaning: str) -> CodedConcept:
    from highdicom.sr import CodedConcept

    return CodedConcept(code, SCHEME, line(meaning).strip() or "(no name)")
