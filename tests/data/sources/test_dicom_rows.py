"""DICOM files as rows: one for each frame, patients by pseudonym, windows and doubts told; tables that name them by UID."""

import csv
import os

import numpy as np
import pydicom
import pytest
from dicom_files import IDENTITY, SECRETS, write_dicom, write_set
from PIL import Image

from stillroom.data.load import load_data, open_source
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

GREY = np.arange(64, dtype=np.uint16).reshape(8, 8)
AUTO = DataSettings()


def told(table):
    return {finding.code: finding.text for finding in table.findings}


def uids_of(path):
    data = pydicom.dcmread(path, stop_before_pixels=True)
    return data.SOPInstanceUID, data.StudyInstanceUID


def write_table(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_files_without_endings_are_found_and_patients_are_told_apart(tmp_path):
    root = write_set(tmp_path / "set", patients=6, images=2)
    (root / "well" / "DICOMDIR").write_bytes(b"lists, and is none")
    (root / "well" / "LICENSE").write_text("no image")
    os.mkfifo(root / "well" / "pipe")  # opening it would wait for ever
    os.mkfifo(root / "well" / "pipe.dcm")
    table = open_source(root, AUTO)
    assert table.ids.tolist()[:2] == ["ill/p1/IM0", "ill/p1/IM1"]
    assert len(table) == 13
    assert table.ids[-1] == "well/pipe.dcm"
    assert len(set(table.patients[:12])) == 6
    assert table.patients[0] == table.patients[1] != table.patients[2]
    assert not any(secret in str(table.patients.tolist() + list(told(table).values())) for secret in SECRETS)
    assert table.passed_over == {"": {"well": 2}}
    assert told(table)["windows"] == "How grey DICOM files are shown: 12 by their own window, 40,400."


def test_the_one_window_that_all_files_name_is_known(tmp_path):
    root = write_set(tmp_path / "set", patients=2, images=1)

    def shown(**settings):
        table = open_source(root, DataSettings(**settings))
        return table.shown, table.window

    assert shown() == (("window",), "40,400")
    assert shown(window="9,90") == (("asked",), "")
    about = {"WindowCenter": 40, "WindowWidth": 400}
    for other in ({"VOILUTFunction": "SIGMOID"}, {"WindowWidth": 401}, {"PhotometricInterpretation": "PALETTE COLOR"}):
        file = write_dicom(root / "well" / "one", GREY, **(about | other))
        assert shown() == (("window",), "")
        file.unlink()
    write_dicom(root / "well" / "one", GREY)
    assert shown() == (("range", "window"), "")


def test_pseudonyms_hang_on_the_secret_alone(tmp_path, monkeypatch):
    root = write_set(tmp_path / "set", patients=4, images=1)

    def names(secret):
        monkeypatch.setenv("STILLROOM_SECRET", str(tmp_path / secret))
        return open_source(root, AUTO).patients.tolist()

    assert names("one") == names("one") != names("two")
    assert (tmp_path / "one").stat().st_mode & 0o077 == 0
    assert len((tmp_path / "one").read_bytes()) == 32
    (tmp_path / "short").write_text("key")
    with pytest.raises(UsageError, match="too short to be the secret"):
        names("short")


def test_a_frame_is_a_row_of_one_patient(tmp_path):
    stack = np.stack([GREY, GREY[::-1], GREY.T])
    write_dicom(tmp_path / "set" / "ill" / "a.dcm", stack, PatientID="", StudyInstanceUID="", SeriesInstanceUID="")
    write_dicom(tmp_path / "set" / "well" / "b.dcm", GREY, PatientID="B")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "set" / "well" / "c.png")
    table = open_source(tmp_path / "set", AUTO)
    assert table.ids.tolist() == ["ill/a.dcm#1", "ill/a.dcm#2", "ill/a.dcm#3", "well/b.dcm", "well/c.png"]
    assert len(set(table.patients[:3])) == 1 != len(set(table.patients[2:4]))
    assert table.patients[4] == ""
    images = [table.reader.read(row) for row in range(3)]
    assert np.array_equal(images[1], images[0][::-1])
    assert len({str(table.reader.made_of(row)) for row in range(5)}) == 5


def test_one_id_for_all_is_none(tmp_path):
    root = write_set(tmp_path / "set", patients=4, images=2, PatientID="ANON")
    table = open_source(root, AUTO)
    assert "studies are taken for patients" in told(table)["patients_alike"]
    assert len(set(table.patients)) == 4
    assert open_source(root, DataSettings(patient_column="none")).patients is None


def test_doubts_are_counted_in_a_line_each(tmp_path):
    for number, about in enumerate(
        (
            {"BurnedInAnnotation": "YES"},
            {"BurnedInAnnotation": None, "private": "Snickerdoodle", "PixelSpacing": [0.5, 0.8]},
            {"WindowCenter": 3, "WindowWidth": 9},
            {"PatientName": "Anonymous", "PatientBirthDate": None, "PatientAddress": None, "OtherPatientIDs": None},
        )
    ):
        write_dicom(tmp_path / "set" / ("ill", "well")[number % 2] / f"{number}.dcm", GREY, **about)
    write_dicom(tmp_path / "set" / "ill" / f"{IDENTITY.lower()}.dcm", GREY)
    found = told(open_source(tmp_path / "set", AUTO))
    counts = {code: text.split(" ")[0] for code, text in found.items() if " of 5 DICOM files" in text}
    assert counts == {
        "burned_in": "1",
        "burned_in_unsaid": "1",
        "identified": "4",
        "private_elements": "1",
        "named_by_patient": "1",
        "oblong_pixels": "1",
    }
    assert "1 by their own window, 3,9, 4 in the whole range of their bits" in found["windows"]
    assert found["windows"].endswith(" One window for all is set by --window.")
    table = write_table(tmp_path / "set.csv", ["path", "label"], [["set/ill/0.dcm", "ill"], ["set/ill/2.dcm", "well"]])
    for source in (tmp_path / "set", table):  # a verb that asks a model has no such flag
        said = told(open_source(source, AUTO, training=False))["windows"]
        assert " One window for all is set" not in said
        assert "goes with the model" in said
        assert "train again with `stillroom distill SOURCE --window CENTER,WIDTH`" in said


def test_an_asked_window_makes_another_store_and_is_told(tmp_path):
    root = write_set(tmp_path / "set", patients=20, images=1)
    own = load_data(root, DataSettings(size=24), show_progress=False)
    lung = load_data(root, DataSettings(size=24, window="lung"), show_progress=False)
    assert own.store.white == lung.store.white == 65535
    assert own.store.fingerprint != lung.store.fingerprint
    assert "20 by the window asked for, -600,1500" in str(lung.audit.warnings)


def test_white_is_the_whole_range_however_dark_the_images_are(tmp_path):
    for number in range(24):
        name = ("ill", "well")[number % 2]
        about = {"PatientID": str(number)}
        pixels = np.full((16, 16), 40 + number, np.uint16) + np.arange(16, dtype=np.uint16)
        write_dicom(tmp_path / "set" / name / str(number), pixels, **about)
    dataset = load_data(tmp_path / "set", DataSettings(size=16), show_progress=False)
    assert dataset.store.white == 65535
    assert dataset.store.pixels.max() < 100


# -- tables -------------------------------------------------------------------------------------------------------
def test_a_table_may_name_images_by_their_uid(tmp_path):
    root = write_set(tmp_path / "set", patients=4, images=2)
    files = sorted(root.rglob("IM*"))
    cells = [(uids_of(path)[0], path.parts[-3]) for path in files]
    table = open_source(write_table(tmp_path / "labels.csv", ("SOPInstanceUID", "label"), cells), AUTO)
    assert table.ids.tolist() == [path.relative_to(tmp_path).as_posix() for path in files]
    assert len(set(table.patients)) == 4


@pytest.mark.parametrize("column", ["SOPInstanceUID", "path"])
def test_uids_that_no_file_has_are_told_as_uids(tmp_path, column):
    write_set(tmp_path / "set", patients=2, images=1)
    table = write_table(tmp_path / "labels.csv", (column, "label"), [(f"1.2.3.{n}", "ab"[n % 2]) for n in range(6)])
    with pytest.raises(UsageError, match=r"6 (of its )?UIDs .*1\.2\.3\.0\b") as caught:
        open_source(table, AUTO)
    assert str(tmp_path / "1.2.3") not in str(caught.value)


def test_a_row_may_name_a_series_by_its_folder_or_uid(tmp_path):
    root = write_set(tmp_path / "set", patients=4, images=3)
    cells = [(f"set/{('well', 'ill')[number % 2]}/p{number}", number % 2) for number in range(4)]
    by_folder = open_source(write_table(tmp_path / "a.csv", ("path", "label"), cells), AUTO)
    assert by_folder.ids.tolist()[:3] == [f"set/well/p0/IM{number}" for number in range(3)]
    assert by_folder.targets.tolist() == [0, 0, 0, 1, 1, 1] * 2
    studies = {uids_of(path)[1]: path.parts[-3] for path in sorted(root.rglob("IM*"))}
    by_study = open_source(
        write_table(tmp_path / "b.csv", ("StudyInstanceUID", "label"), studies.items()),
        DataSettings(path_column="StudyInstanceUID"),
    )
    assert sorted(by_study.ids.tolist()) == sorted(by_folder.ids.tolist())


def test_two_files_of_one_uid_cannot_be_named_by_it(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", GREY)
    uid = uids_of(path)[0]
    (tmp_path / "b.dcm").write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="have one SOPInstanceUID"):
        open_source(write_table(tmp_path / "t.csv", ("SOPInstanceUID", "label"), [(uid, "a")]), AUTO)


def test_a_table_s_own_patients_go_before_those_of_the_files(tmp_path):
    write_set(tmp_path / "set", patients=4, images=1)
    cells = [(f"set/{('well', 'ill')[number % 2]}/p{number}/IM0", number % 2, number // 2) for number in range(4)]
    table = open_source(write_table(tmp_path / "t.csv", ("path", "label", "patient"), cells), AUTO)
    assert table.patients.tolist() == ["0", "0", "1", "1"]


def test_a_mask_is_of_one_image(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.stack([GREY, GREY]))
    write_dicom(tmp_path / "b.dcm", GREY)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "m.png")
    table = write_table(tmp_path / "t.csv", ("path", "label", "mask"), [("a.dcm", "a", "m.png"), ("b.dcm", "b", "")])
    with pytest.raises(UsageError, match="its mask is of one image, but the row names 2"):
        open_source(table, AUTO, training=False)


def test_a_dicom_file_alone_tells_no_labels(tmp_path):
    path = write_dicom(tmp_path / "a", GREY)
    (tmp_path / "DICOMDIR").write_bytes(b"any")
    for source in (path, tmp_path / "DICOMDIR"):
        with pytest.raises(UsageError, match="is DICOM, which tells no labels: give a table"):
            open_source(source, AUTO)


def test_frames_have_names_of_their_own(tmp_path):
    write_dicom(tmp_path / "set" / "ill" / "a.dcm", np.stack([GREY, GREY.T]))
    write_dicom(tmp_path / "set" / "well" / "b.dcm", GREY)
    table = open_source(tmp_path / "set", AUTO)
    assert [table.reader.name(row) for row in range(3)] == [f"{tmp_path}/set/{one}" for one in table.ids]
