"""DICOM images get the answers that the same pixels get: in the model's window, frame by frame, from a DICOMDIR too."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import SECRETS, write_dicom
from PIL import Image

from stillroom.after.external_validation import evaluate
from stillroom.data.load import load_data
from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

from .test_predictor import write_model

RAMP = np.linspace(-1350, 150, 64).reshape(8, 8).astype(np.int16)
SCALED = {"RescaleSlope": 1, "RescaleIntercept": 0}


@pytest.fixture
def predictor(tmp_path):
    return Predictor.load(write_model(tmp_path / "model.onnx", white=65535, window="lung"))


def test_prediction_sees_what_training_saw(tmp_path, predictor):
    rng = np.random.default_rng(0)
    for number in range(24):
        about = {"PatientID": str(number)} | SCALED
        write_dicom(
            tmp_path / "set" / ("a", "b")[number % 2] / str(number), rng.permutation(RAMP, axis=number % 2), **about
        )
    dataset = load_data(
        tmp_path / "set", DataSettings(size=16, window="lung", group_duplicates=False), show_progress=False
    )
    model = Predictor.load(write_model(tmp_path / "model.onnx", white=dataset.store.white, window="lung", size=8))
    reader = model.as_shown(dataset.table).reader
    from stillroom.data.geometry import as_stored

    for row in (0, 7, 23):
        image = reader.read(int(dataset.table.rows[row]))
        stored = as_stored(image, 16, "pad", False, dataset.store.white)
        assert np.array_equal(stored, dataset.store.batch(np.array([row]))[0])


def test_every_frame_is_answered_and_what_cannot_be_read_has_an_error_row(tmp_path, predictor):
    write_dicom(tmp_path / "new" / "frames", np.stack([RAMP, RAMP[::-1]]), **SCALED)
    write_dicom(tmp_path / "new" / "mr.dcm", RAMP, Modality="MR", **SCALED)
    found = predictor.predict(tmp_path / "new")
    assert [(one.path.name, one.frame, one.error is None) for one in found] == [
        ("frames", 1, True),
        ("frames", 2, True),
        ("mr.dcm", None, False),
    ]
    assert found[0].name == f"{tmp_path}/new/frames#1"
    assert found[0].probabilities == found[1].probabilities
    assert "which only CT has" in found[2].error
    assert not any(secret in str([one.to_dict() for one in found]).replace(str(tmp_path), "") for secret in SECRETS)


def test_a_test_on_other_data_says_what_can_be_done_about_windows(tmp_path, monkeypatch):
    """`evaluate` has no --window: it goes with the model."""
    monkeypatch.setattr("hand_made.SIZE", 16)  # the least that a data set is read at
    model = write_model(tmp_path / "model.onnx", white=65535)
    for number, (label, window) in enumerate([("dark", 400), ("bright", 400), ("dark", 90), ("bright", 90)]):
        write_dicom(tmp_path / "set" / label / str(number), RAMP, WindowCenter=40, WindowWidth=window, **SCALED)
    said = " ".join(evaluate(model, tmp_path / "set", show_progress=False)["notes"])
    assert "the commonest of 2 is 40,400 (2). The window goes with the model" in said
    assert "One window for all is set" not in said


def test_a_model_of_8_bits_is_shown_dicom_in_its_range(tmp_path):
    model = Predictor.load(write_model(tmp_path / "model.onnx"))
    half = write_dicom(tmp_path / "half", np.full((8, 8), 2048, np.uint16), BitsStored=12)
    assert model.predict(half)[0].probabilities["bright"] == pytest.approx(0.5, abs=0.01)


def test_a_dicomdir_stands_for_the_images_that_it_lists(predictor, tmp_path):
    directory = Path(pydicom.data.get_testdata_file("DICOMDIR", download=False) or "")
    if not directory.is_file():
        pytest.skip("pydicom's DICOMDIR is not there")
    listed = [one.path for one in predictor.predict(directory)]
    assert len(listed) == 31
    assert all(path.is_file() for path in listed)
    data = pydicom.dcmread(directory)
    for record in data.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["..", "up"]
    data.save_as(tmp_path / "DICOMDIR")
    with pytest.raises(UsageError, match="outside its folder"):
        predictor.predict(tmp_path / "DICOMDIR")
    (tmp_path / "DICOMDIR").write_bytes(b"none")
    with pytest.raises(UsageError, match="DICOMDIR"):
        predictor.predict(tmp_path / "DICOMDIR")


def test_what_is_not_shown_as_the_training_images_were_is_told(tmp_path):
    grey = RAMP.astype(np.int16)
    own = {
        "named": {"WindowCenter": 40, "WindowWidth": 400},
        "bare": {},
        "other": {"WindowCenter": 9, "WindowWidth": 90},
    }
    own["exact"] = own["named"] | {"VOILUTFunction": "LINEAR_EXACT"}
    for name, window in own.items():
        write_dicom(tmp_path / "new" / f"{name}.dcm", grey, **window)
    Image.new("L", (8, 8)).save(tmp_path / "new" / "plain.png")

    def notes(**how):
        model = Predictor.load(write_model(tmp_path / "model.onnx", white=65535, **how))
        return {one.path.stem: one.note for one in model.predict(tmp_path / "new")}

    quiet = dict.fromkeys([*own, "plain"])
    assert notes() == notes(window="40,400", shown=("asked",)) == notes(shown=("range", "window")) == quiet
    whole = "it names no window, unlike the training images, and is shown over its whole range: give it theirs"
    assert notes(shown=("table", "window")) == quiet | {"bare": whole}
    told = notes(shown=("range",))
    assert {name for name, note in told.items() if note} == {"named", "other", "exact"}
    assert "in its own window" in told["other"]
    told = notes(window="40,400", shown=("window",))
    assert told["bare"] == "it names no window, and is shown in the window of all training images, 40,400"
    assert {name for name, note in told.items() if note and "a window of its own" in note} == {"other", "exact"}
