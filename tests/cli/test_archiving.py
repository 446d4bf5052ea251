"""`predict --dicom` and `explain --dicom` as a user meets them: files, words, exit codes."""

import json
import re

import numpy as np
import pydicom
import pytest
from dicom_files import SECRETS, write_dicom
from PIL import Image

from stillroom.cli.app import main

from ..deployment.test_predictor import write_model

pytest.importorskip("highdicom", reason="highdicom is not installed: `pip install 'stillroom[dicom]'`")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model, a CT slice with its place, and a photograph."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "student.onnx", white=65535)
    where = {"ImagePositionPatient": [0, 0, 1], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    kind = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "FrameOfReferenceUID": "1.2.3", "SliceThickness": 2}
    pixels = np.arange(80, dtype=np.uint16).reshape(8, 10) * 800
    write_dicom(tmp_path / "images" / "slice.dcm", pixels, **where, **kind)
    Image.new("L", (9, 9), 200).save(tmp_path / "images" / "photo.png")
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = 0
    try:
        main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_predict_writes_a_report_of_dicom_files_and_names_the_others(place, capsys):
    code, out, err = run(capsys, "predict", "student.onnx", "images", "--dicom", "archive", "--json")
    assert code == 0
    assert len(json.loads(out)) == 2
    assert err.splitlines() == [
        "archive: 1 report for research use, with the patients' identity.",
        "No DICOM files, so without objects: images/photo.png.",
    ]
    (file,) = (place / "archive").iterdir()
    assert re.fullmatch(r"SR\.2\.25\.\d+\.dcm", file.name)
    assert not any(secret in out + err for secret in SECRETS)
    _, _, again = run(capsys, "predict", "student.onnx", "images", "--dicom", "archive")
    assert again.startswith(
        "archive: 1 report for research use, with the patients' identity, 1 of them there already.\n"
    )


def test_explain_writes_the_very_overlay_and_map_as_well(place, capsys):
    code, out, err = run(capsys, "explain", "student.onnx", "images/slice.dcm", "--dicom", "archive", "--json")
    assert code == 0
    (told,) = json.loads(out)
    assert err == "archive: 1 report, 1 overlay, 1 parametric map for research use, with the patients' identity.\n"
    files = {file.name[:2]: pydicom.dcmread(file) for file in (place / "archive").iterdir()}
    assert np.array_equal(files["SC"].pixel_array, np.asarray(Image.open(told["picture"])))
    heat = np.frombuffer(files["PM"].FloatPixelData, "<f4").reshape(8, 10)
    assert np.array_equal(heat, np.load(told["array"]))
    written = b"".join(file.read_bytes() for file in (place / "explanations").iterdir())
    assert not any(secret.encode() in written for secret in SECRETS)


def test_what_cannot_be_written_is_a_line_and_an_exit_code(place, capsys):
    code, _, err = run(capsys, "predict", "student.onnx", "images/photo.png", "--dicom", "archive")
    assert (code, err.splitlines()[-1]) == (
        2,
        "error: None of the images is a DICOM file, so nothing was written to archive (--dicom).",
    )
    code, _, err = run(capsys, "predict", "student.onnx", "images", "--dicom", "images")
    assert (code, err.count("\n")) == (2, 1)
    write_dicom(place / "images" / "lone", np.zeros((8, 8), np.uint8), StudyInstanceUID=None)
    code, out, err = run(capsys, "predict", "student.onnx", "images", "--dicom", "archive")
    assert code == 3
    assert "slice.dcm" in out
    assert err.splitlines()[-1] == (
        "error: 1 image lacks objects in archive; the first is images/lone: it has no valid StudyInstanceUID, by which an "
        "object could refer to it."
    )
    assert len(list((place / "archive").iterdir())) == 1
    for number in range(6):
        write_dicom(place / "images" / f"more{number}", np.zeros((8, 8), np.uint8), StudyInstanceUID=None)
    (place / "images" / "broken.png").write_bytes(b"none")
    code, _, err = run(capsys, "predict", "student.onnx", "images", "--dicom", "archive")
    assert code == 3
    assert "1 of 10 images could not be read and have no answer; the first is images/broken.png" in err
    assert "7 images lack objects in archive; the first is images/lone" in err
    assert "the others are images/more0, images/more1, images/more2, images/more3 and 2 more." in err


def test_objects_are_not_written_beside_a_file_that_is_named(place, capsys):
    code, _, err = run(capsys, "predict", "student.onnx", "images/slice.dcm", "--dicom", "images")
    assert (code, "is the folder of images/slice.dcm" in err) == (2, True)
    assert len(list((place / "images").iterdir())) == 2


def test_an_image_that_is_named_twice_has_one_report(place, capsys):
    code, _, err = run(capsys, "predict", "student.onnx", "images/slice.dcm", "images/slice.dcm", "--dicom", "archive")
    assert (code, err) == (0, "archive: 1 report for research use, with the patients' identity.\n")
