"""Objects for the archive: valid by dciodvfy, of the source's patient, with the words of predict, and made once."""

import hashlib
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import IDENTITY, PLANTED, SECRETS, write_dicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from stillroom.deployment.dicom_out.pictures import Drawn
from stillroom.deployment.dicom_out.writing import Written, require_dicom_place, write_answers
from stillroom.deployment.prediction import Prediction
from stillroom.deployment.predictor import Predictor
from stillroom.errors import NotInstalled, UsageError
from stillroom.task import MultiLabel

from ..test_predictor import write_model

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # written so on purpose
pytest.importorskip("highdicom", reason="highdicom is not installed: `pip install 'stillroom[dicom]'`")

CT, US_RETIRED = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.6"
FROM_PYDICOM = (
    *("CT_small.dcm", "MR_small.dcm", "emri_small.dcm", "eCT_Supplemental.dcm", "US1_UNCI.dcm", "RG3_UNCI.dcm"),
    *("SC_rgb_small_odd.dcm", "OBXXXX1A.dcm", "693_UNCI.dcm", "color3d_jpeg_baseline.dcm", "vlut_04.dcm"),
    *("gdcm-US-ALOKA-16.dcm", "examples_overlay.dcm"),
)
PLACE = {
    "SOPClassUID": CT,
    "FrameOfReferenceUID": "1.2.3.4",
    "ImagePositionPatient": [-10.5, 20, 30.25],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.75],
    "SliceThickness": 5,
}


@pytest.fixture
def predictor(tmp_path) -> Predictor:
    return Predictor.load(write_model(tmp_path / "student.onnx"))


def answer(path: Path, frame: int | None = None, **said) -> Prediction:
    values = {
        "decision": ("bright",),
        "probabilities": {"dark": 0.12344, "bright": 0.87656},
        "possible": ("bright",),
        "foreign": False,
        "foreign_score": 0.5,
        "flagged": {"bright at sensitivity 0.95": True, "dark at sensitivity 0.9": False},
    }
    return Prediction(path, **(values | said), frame=frame)


def map_of(path: Path, frame: int = 0) -> Drawn:
    """Of the picture's own size, each frame with values of its own."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    rng = np.random.default_rng(frame)
    shape = (header.Rows, header.Columns)
    overlay = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return Drawn(
        frame, "bright", "rise", "Whether it is faithful was not tested.", overlay, rng.random(shape, np.float32)
    )


def explained(predictor: Predictor, path: Path, out: Path, **said) -> Written:
    """All objects of a file, of at most two frames."""
    frames = min(int(pydicom.dcmread(path, stop_before_pixels=True).get("NumberOfFrames", 1)), 2)
    numbers = [None] if frames == 1 else range(1, frames + 1)
    answers = [answer(path, number, **said) for number in numbers]
    return write_answers(predictor, answers, out, lambda number: map_of(path, number))


def objects(written: Written) -> dict[str, list[Dataset]]:
    found: dict[str, list[Dataset]] = {"SR": [], "SC": [], "PM": []}
    for path in written.files:
        found[path.name[:2]].append(pydicom.dcmread(path))
    return found


def items(data: Dataset) -> list[tuple[str, object]]:
    """Name and value of every content item of a report, in order."""
    found = []
    for item in data.get("ContentSequence", []):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        if item.ValueType == "NUM":
            found.append((name, float(item.MeasuredValueSequence[0].NumericValue)))
        elif item.ValueType == "CODE":
            found.append((name, item.ConceptCodeSequence[0].CodeMeaning))
        elif item.ValueType == "IMAGE":
            found.append((name, item.ReferencedSOPSequence[0]))
        elif item.ValueType == "TEXT":
            found.append((name, item.TextValue))
        found += items(item)
    return found


def named(data: Dataset, name: str) -> list[object]:
    return [value for known, value in items(data) if known == name]


def errors_in(written: Written) -> list[str]:
    """What dciodvfy has against the objects; the test is skipped without it."""
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not installed (Debian's dicom3tools)")
    found = []
    for file in written.files:
        lines = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True).stderr.splitlines()
        assert {"SR": "EnhancedSR", "SC": "SCImage", "PM": "ParametricMap"}[file.name[:2]] in lines
        found += [f"{file.name[:2]} {line}" for line in lines if line.startswith("Error")]
    return found


def test_dciodvfy_finds_no_error_in_objects_about_any_kind_of_source(predictor, tmp_path):
    pixels = np.arange(96, dtype=np.uint16).reshape(8, 12)
    sources = [Path(found) for name in FROM_PYDICOM if (found := get_testdata_file(name, download=False))]
    sources += [
        write_dicom(tmp_path / "ct", pixels, PatientSex="F", StudyTime="101112", **PLACE),
        write_dicom(tmp_path / "retired", np.zeros((9, 7, 3), np.uint8), SOPClassUID=US_RETIRED, Modality="US"),
        write_dicom(tmp_path / "left", pixels, ImageLaterality="L", Modality="MG", PatientSex="odd", StudyDate="never"),
    ]
    kinds, wrong = [], []
    for path in sources:
        written = explained(predictor, path, tmp_path / "out", foreign=path.name == "ct")
        assert not written.failed
        kinds.append("".join(kind[0] for kind in written.counts if written.counts[kind]))
        for file in written.files:
            told = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
            wrong += [(path.name, file.name[:2], line) for line in told.stderr.splitlines() if line.startswith("Error")]
            assert {"SR": "EnhancedSR", "SC": "SCImage", "PM": "ParametricMap"}[
                file.name[:2]
            ] in told.stderr.splitlines()
    assert wrong == []
    with_map = {"CT_small.dcm", "MR_small.dcm", "eCT_Supplemental.dcm", "examples_overlay.dcm", "ct"}
    assert {path.name for path, kind in zip(sources, kinds, strict=True) if kind == "SSP"} == with_map


def test_dciodvfy_would_find_one(predictor, tmp_path):
    path = write_dicom(tmp_path / "ct", np.zeros((8, 8), np.uint8), **PLACE)
    written = explained(predictor, path, tmp_path / "out")
    for file in written.files:
        data = pydicom.dcmread(file)
        del data["PatientID" if file.name.startswith("SR") else "Laterality"]
        data.save_as(file)
    assert {error[:2] for error in errors_in(written)} == {"SR", "SC", "PM"}


def test_objects_are_of_the_same_patient_and_study_in_any_script(predictor, tmp_path):
    path = write_dicom(tmp_path / "ct", np.zeros((8, 8), np.uint8), PatientSex="M", StudyTime="1112", **PLACE)
    data = pydicom.dcmread(path)
    data.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    data.PatientName = "Yamada^Tarou=山田^太郎"
    data.save_as(path)
    source = pydicom.dcmread(path)
    for kind, found in objects(explained(predictor, path, tmp_path / "out")).items():
        assert len(found) == 1, kind
        assert str(found[0].PatientName) == "Yamada^Tarou=山田^太郎"
        same = ("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime")
        for keyword in (*same, "AccessionNumber", "StudyDescription", "ReferringPhysicianName"):
            assert str(found[0][keyword].value) == str(source[keyword].value), (kind, keyword)
        assert found[0].SeriesInstanceUID != source.SeriesInstanceUID
        assert found[0].SOPInstanceUID != source.SOPInstanceUID


def test_the_report_says_what_predict_says(predictor, tmp_path):
    path = write_dicom(tmp_path / "ct", np.zeros((8, 8), np.uint8), **PLACE)
    said = answer(path, note="2 pixels are brighter")
    (report,) = objects(write_answers(predictor, [said], tmp_path / "out"))["SR"]
    assert named(report, "Answer") == [said.answer] == ["bright"]
    assert named(report, "Flagged") == [said.flags] == ["flagged at a threshold for sensitivity 0.95: bright"]
    assert named(report, "Note") == ["2 pixels are brighter"]
    assert named(report, "Probability: dark") == [0.1234]
    assert named(report, "Probability: bright") == [0.8766]
    assert named(report, "Class decided for") == named(report, "Class that cannot be ruled out") == ["bright"]
    assert named(report, "Flagged: bright at sensitivity 0.95") == ["Yes"]
    assert named(report, "Flagged: dark at sensitivity 0.9") == ["No"]
    assert named(report, "Refused: not this kind of image") == ["No"]
    digest = hashlib.sha256((tmp_path / "student.onnx").read_bytes()).hexdigest()
    assert named(report, "Algorithm Parameters") == [f"SHA-256 of the model's file: {digest}"]
    assert report.DeviceSerialNumber == digest
    assert named(report, "Algorithm Name") == ["Stillroom: by_hand"]
    assert named(report, "Algorithm Family") == ["Artificial Intelligence"]
    assert "no medical device" in named(report, "Comment")[0]
    assert report.SeriesDescription.startswith("RESEARCH ONLY")
    assert report.VerificationFlag == "UNVERIFIED"
    assert not named(report, "Heat map")


def test_no_class_is_decided_for_where_two_cannot_be_ruled_out(predictor, tmp_path):
    path = write_dicom(tmp_path / "ct", np.zeros((8, 8), np.uint8))
    (report,) = objects(write_answers(predictor, [answer(path, possible=("dark", "bright"))], tmp_path / "out"))["SR"]
    assert named(report, "Answer") == ["dark or bright"]
    assert named(report, "Class decided for") == []
    assert named(report, "Class that cannot be ruled out") == ["dark", "bright"]


def test_labels_of_any_name_are_told_each_by_itself(tmp_path):
    names = ("Erguß \\ 胸水", "a" * 200, "two\nlines", "胸" * 40)
    model = Predictor.load(write_model(tmp_path / "labels.onnx", MultiLabel(names), channels=3))
    path = write_dicom(tmp_path / "ct", np.zeros((8, 8), np.uint8), PatientSex="O")
    probabilities = dict(zip(names, (0.9, 0.6, 0.2, 0.1), strict=True))
    said = answer(
        path, decision=names[:2], probabilities=probabilities, possible=names[:2], unsure=names[1:2], flagged={}
    )
    written = write_answers(model, [said], tmp_path / "out")
    (report,) = objects(written)["SR"]
    assert named(report, "Answer") == [said.answer] == [f"Erguß \\ 胸水, perhaps {'a' * 200}"]
    assert named(report, "Class decided for") == ["Erguß / 胸水"]
    assert named(report, "Class that cannot be ruled out") == ["Erguß / 胸水", "a" * 61 + "..."]
    assert [value for name, value in items(report) if name.startswith("Probability")] == [0.9, 0.6, 0.2, 0.1]
    assert errors_in(written) == []


def test_the_report_of_a_foreign_image_is_its_refusal_alone(predictor, tmp_path):
    path = write_dicom(tmp_path / "ct", np.zeros((8, 8), np.uint8))
    (report,) = objects(write_answers(predictor, [answer(path, foreign=True, flagged={})], tmp_path / "out"))["SR"]
    assert named(report, "Answer") == ["not this kind of image"]
    assert named(report, "Refused: not this kind of image") == ["Yes"]
    assert not [name for name, _ in items(report) if "Probability" in name or "Class" in name or "Flagged" in name]


def test_one_report_refers_to_every_frame_that_was_read(predictor, tmp_path):
    path = write_dicom(tmp_path / "frames", np.zeros((4, 8, 8), np.uint8))
    source = pydicom.dcmread(path)
    answers = [answer(path, 1), answer(path, 2, error="damaged"), answer(path, 4)]
    written = write_answers(predictor, answers, tmp_path / "out", lambda number: map_of(path, [0, 1, 3][number]))
    found = objects(written)
    (report,) = found["SR"]
    references = named(report, "Source of Measurement")
    assert [int(one.ReferencedFrameNumber) for one in references] == [1, 4]
    assert {one.ReferencedSOPInstanceUID for one in references} == {source.SOPInstanceUID}
    evidence = report.CurrentRequestedProcedureEvidenceSequence
    assert [one.StudyInstanceUID for one in evidence] == [source.StudyInstanceUID]
    assert [int(one.SourceImageSequence[0].ReferencedFrameNumber) for one in found["SC"]] == [1, 4]
    assert written.without_place == [f"{path}#1", f"{path}#4"]


def test_overlay_and_map_hold_the_pixels_where_the_frame_lies(predictor, tmp_path):
    path = write_dicom(tmp_path / "ct", np.zeros((6, 9), np.uint8), BurnedInAnnotation="YES", **PLACE)
    found, drawn = objects(explained(predictor, path, tmp_path / "out")), map_of(path)
    (overlay,), (heat,) = found["SC"], found["PM"]
    assert np.array_equal(overlay.pixel_array, drawn.overlay)
    assert overlay.BurnedInAnnotation == "YES"
    assert overlay.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID
    assert "Whether it is faithful was not tested." in overlay.DerivationDescription
    assert "no medical device" in overlay.ImageComments
    assert np.array_equal(np.frombuffer(heat.FloatPixelData, "<f4").reshape(6, 9), drawn.heat)
    shared, own = heat.SharedFunctionalGroupsSequence[0], heat.PerFrameFunctionalGroupsSequence[0]
    assert own.PlanePositionSequence[0].ImagePositionPatient == PLACE["ImagePositionPatient"]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == PLACE["ImageOrientationPatient"]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == PLACE["PixelSpacing"]
    assert heat.FrameOfReferenceUID == PLACE["FrameOfReferenceUID"]
    assert heat.ContentQualification == "RESEARCH"


def test_a_frame_of_an_enhanced_file_keeps_its_own_place(predictor, tmp_path):
    path = Path(get_testdata_file("eCT_Supplemental.dcm", download=False) or "")
    if not path.is_file():
        pytest.skip("pydicom's eCT_Supplemental.dcm is not there")
    source = pydicom.dcmread(path, stop_before_pixels=True)
    for number, heat in enumerate(objects(explained(predictor, path, tmp_path))["PM"]):
        theirs = source.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence[0].ImagePositionPatient
        own = heat.PerFrameFunctionalGroupsSequence[0]
        assert own.PlanePositionSequence[0].ImagePositionPatient == theirs
        assert own.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == number + 1


@pytest.mark.parametrize(
    "spoilt",
    [
        *({"FrameOfReferenceUID": None}, {"SliceThickness": None}, {"ImagePositionPatient": [1, 2]}),
        *({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, {"PixelSpacing": [0, 1]}),
    ],
)
def test_without_a_whole_place_there_is_no_parametric_map_and_that_is_said(predictor, tmp_path, spoilt):
    path = write_dicom(tmp_path / "ct", np.zeros((8, 8), np.uint8), **(PLACE | spoilt))
    written = explained(predictor, path, tmp_path / "out")
    assert written.counts == {"SR": 1, "SC": 1, "PM": 0}
    assert written.without_place == [str(path)]


def test_the_same_answer_is_written_once_and_another_beside_it(predictor, tmp_path):
    path, out = write_dicom(tmp_path / "ct", np.zeros((8, 8), np.uint8), **PLACE), tmp_path / "out"
    first = explained(predictor, path, out)
    content = {file: file.read_bytes() for file in first.files}
    (out / "other.txt").write_text("theirs")
    again = explained(predictor, path, out)
    assert (first.already, again.already, again.files) == (0, 3, first.files)
    assert {file: file.read_bytes() for file in out.glob("*.dcm")} == content
    assert (out / "other.txt").read_text() == "theirs"
    other = write_answers(predictor, [answer(path, possible=("dark", "bright"))], out)
    assert other.files[0] not in content
    model = Predictor.load(write_model(tmp_path / "other.onnx", temperature=2.0))
    assert not {file.name for file in explained(model, path, out).files} & {file.name for file in content}
    series = {pydicom.dcmread(file).SeriesInstanceUID for file in out.glob("SR*")}
    assert len(series) == 2


def test_images_without_objects_are_told_with_their_reason_and_nobody_is_named(predictor, tmp_path, capfd):
    pixels = np.zeros((8, 8), np.uint8)
    (tmp_path / "photo.png").write_bytes(b"png")
    files = {
        "study": write_dicom(tmp_path / "study", pixels, StudyInstanceUID=None),
        "odd": write_dicom(
            tmp_path / "odd", pixels, PatientSex="Quagmire", BurnedInAnnotation="MAYBE", PatientName="Zebulon"
        ),
    }
    two = pydicom.dcmread(write_dicom(tmp_path / "two", pixels))
    two.PatientID = [IDENTITY, "other"]
    two.save_as(tmp_path / "two")
    with warnings.catch_warnings(record=True) as warned:
        asked = [tmp_path / "photo.png", files["study"], tmp_path / "two", files["odd"]]
        unread = Prediction(tmp_path / "unread", error="no")
        written = write_answers(predictor, [*map(answer, asked), unread], tmp_path / "out")
    assert written.passed_over == [str(tmp_path / "photo.png")]
    assert "no valid StudyInstanceUID" in written.failed[str(tmp_path / "study")]
    assert "PatientID is not valid" in written.failed[str(tmp_path / "two")]
    assert written.left_empty == {str(tmp_path / "odd"): ("PatientSex", "BurnedInAnnotation")}
    assert written.counts == {"SR": 1, "SC": 0, "PM": 0}
    assert not warned
    said = "".join(capfd.readouterr()) + str(written).replace(str(tmp_path), "")
    assert not any(secret in said for secret in SECRETS)
    assert str(objects(written)["SR"][0].PatientBirthDate) == PLANTED["PatientBirthDate"]


def test_objects_go_to_no_run_folder_and_not_among_the_images(tmp_path, monkeypatch):
    run, images = tmp_path / "run", tmp_path / "images"
    for folder in (run, images):
        folder.mkdir()
    for name in ("settings.yaml", "manifest.json"):
        (run / name).touch()
    (tmp_path / "link").symlink_to(run)
    require_dicom_place(tmp_path / "new" / "out", [images, images / "a.dcm"])
    for out, reason in (
        (run / "out", "no patient's identity"),
        (run, "no patient's identity"),
        (tmp_path / "link" / "out", "no patient's identity"),
        (images, "read as images"),
        (images / "deep" / "out", "read as images"),
        (run / "manifest.json", "is a file"),
    ):
        with pytest.raises(UsageError, match=reason):
            require_dicom_place(out, [images])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(NotInstalled, match=r"highdicom, which is not installed: `pip install 'stillroom\[dicom\]'`"):
        require_dicom_place(tmp_path / "out", [images])
