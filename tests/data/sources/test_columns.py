"""Columns of nearly the right name are used where that is safe, pointed at where it is not, never passed over in silence."""

import pytest
from PIL import Image

from stillroom.data.sources.column_names import named_like, nearly_like, plain_name
from stillroom.data.sources.manifest import read_manifest
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images/0.png to images/23.png."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "images").mkdir()
    for number in range(COUNT):
        Image.new("L", (4, 4), number + 1).save(folder / "images" / f"{number}.png")
    return folder


@pytest.fixture
def read(folder):
    """``read(columns, settings)``: the table whose columns are given by lists or by a function of the row."""

    def make(columns, **settings):
        columns = {"path": lambda row: f"images/{row}.png", "label": lambda row: "ab"[row % 2]} | columns
        columns = {name: cells for name, cells in columns.items() if cells}
        lines = [",".join(columns)]
        lines += [",".join(str(cells(row)) for cells in columns.values()) for row in range(COUNT)]
        (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
        return read_manifest(folder / "t.csv", DataSettings(**settings))

    return make


def patient(row):
    return f"P{row // 2}"


def split(row):
    return ["train", "val", "test"][row % 3]


def said(table):
    return {finding.code: finding.text for finding in table.findings}


def refused(read, columns, **settings):
    with pytest.raises(UsageError) as error:
        read(columns, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- patients -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["patient_id", "PatientID", "Patient ID", "subject", "subject_id", "MRN", "Participant No."]
)
def test_patients_by_nearly_the_right_name(read, name):
    table = read({name: patient})
    assert table.patients.tolist() == [patient(row) for row in range(COUNT)]
    assert repr(name) in said(table)["columns_by_name"]
    assert "--patient-column none" in said(table)["columns_by_name"]


@pytest.mark.parametrize("name", ["case_id", "study", "StudyInstanceUID", "lesion_id", "ID"])
def test_groups_stand_for_patients_where_they_are_many_and_repeat(read, name):
    assert read({name: patient}).patients.tolist() == [patient(row) for row in range(COUNT)]
    few = read({name: lambda row: row % 5})
    assert few.patients is None
    assert f"--patient-column {name}" in said(few)["columns_not_used"]
    assert read({name: lambda row: row}).patients is None  # one to an image says nothing of patients
    assert read({name: lambda row: "case" if row % 2 else "control"}).patients is None


def test_a_patient_goes_before_a_group(read):
    table = read({"study_id": lambda row: row // 3, "subject_id": patient})
    assert table.patients.tolist() == [patient(row) for row in range(COUNT)]


def test_two_columns_that_may_be_the_patients(read):
    message = refused(read, {"patient_id": patient, "subject": lambda row: row // 3})
    assert "'patient_id', 'subject'" in message
    assert "--patient-column patient_id, or none" in message
    same = read({"patient_id": patient, "patient_name": lambda row: f"N{row // 2}"})
    assert same.patients.tolist() == [patient(row) for row in range(COUNT)]
    assert read({"patient_id": patient, "subject": lambda row: row // 3}, patient_column="subject").patients[3] == "1"


def test_patients_are_not_used_where_the_user_says_none(read):
    for name in ("patient", "patient_id"):
        table = read({name: patient}, patient_column="none")
        assert table.patients is None
        assert not table.findings
    assert read({"none": patient}, patient_column="none").patients[2] == "P1"


@pytest.mark.parametrize(
    "name",
    [
        "patient_id_2",
        "PatientID_anon",
        "mrn hash",
        "record_id",
        "nhs_number",
        "USUBJID",
        "id_paciente",
        "患者ID",
        "wsi",
    ],
)
def test_names_that_hold_one_for_patients_are_pointed_at_where_they_repeat(read, name):
    table = read({name: patient})
    assert table.patients is None
    assert f"{name!r}: --patient-column" in said(table)["columns_not_used"]
    assert not read({name: lambda row: row}).findings  # one to an image


def test_a_guessed_column_of_one_or_two_values_is_no_column_of_patients(read):
    for name, count in (("patient_id", 1), ("subject", 2)):
        table = read({name: lambda row, count=count: row % count})
        assert table.patients is None
        assert f"{name!r} has {count} value" in said(table)["columns_not_used"]
    assert set(read({"patient": lambda row: row % 2}).patients) == {"0", "1"}  # the name itself is believed


def test_the_right_name_goes_first_and_others_are_pointed_at(read):
    table = read({"patient": patient, "subject_id": lambda row: row // 3, "pid": patient})
    assert table.patients[2] == "P1"
    assert said(table) == {"columns_passed_over": "Columns that are not used: 'subject_id' ('patient' is)."}


def test_an_empty_column_of_the_right_name_is_as_none(read):
    table = read({"patient": lambda row: "NA", "split": lambda row: "", "patient_id": patient, "subset": split})
    assert (table.patients[2], table.splits[2]) == ("P1", "test")


@pytest.mark.parametrize("name", ["pateint", "patinet_id", "deidentified_patient_id"])
def test_slips_are_pointed_at(read, name):
    table = read({name: patient})
    assert table.patients is None
    assert f"--patient-column {name}" in said(table)["columns_not_used"]


def test_a_patient_is_one_whether_written_as_a_whole_number_or_not(read):
    table = read({"patient_id": lambda row: ["12", "12.0", "", "nan", "NA", "7.0", "8", "8"][row % 8]})
    assert table.patients.tolist()[:6] == ["12", "12", "", "", "", "7"]


def test_columns_about_patients_are_no_ids(read):
    found = read(
        {
            "patient_age": lambda row: row % 9,
            "Patient position": lambda row: row % 4,
            "mRNA": patient,
            "Patient Sex": lambda row: "MF"[row % 2],
            "inpatient": lambda row: row % 5,
        }
    )
    assert said(found) == {
        "columns_for_groups": "Columns by which subgroups could be judged: --groups patient_age 'Patient Sex' tells figures "
        "and gaps of each."
    }


def test_ids_that_differ_in_leading_zeros_are_pointed_at(read):
    text = said(read({"patient": lambda row: ["007", "7", "7.0", "1", "10", "100"][row % 6]}))["patients_look_alike"]
    assert "leading zeros" in text
    assert "'007' and '7'. Write" in text


@pytest.mark.parametrize("name", ["-1", "0", "999"])
def test_a_patient_with_far_more_images_than_any_other_is_doubted(read, name):
    text = said(read({"patient": lambda row: name if row % 2 else f"P{row // 4}"}))["patient_perhaps_missing"]
    assert f"The patient '{name}' has 12 images, and no other more than 2." in text
    assert "patient_perhaps_missing" not in said(read({"patient": lambda row: name if row % 3 else "P"}))


# -- splits -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["subset", "Set", "partition", "phase", "fold", "data_split", "group"])
def test_splits_by_nearly_the_right_name(read, name):
    table = read({name: lambda row: ["Training", "dev", "eval", ""][row % 4]})
    assert table.splits.tolist()[:4] == ["train", "val", "test", ""]
    assert repr(name) in said(table)["columns_by_name"]


@pytest.mark.parametrize("name", ["dataset_split", "cohort", "train_val", "Aufteilung", "split (official)"])
def test_splits_by_any_other_name_are_pointed_at_by_their_cells(read, name):
    table = read({name: split})
    assert set(table.splits) == {""}
    assert f"{name!r}: --split-column" in said(table)["columns_not_used"]
    assert not read({name: lambda row: "test"}).findings  # one word tells nothing apart
    assert not read({name: lambda row: split(row) if row % 2 else "other"}).findings
    assert not read({name: split, "split": split}).findings


def test_folds_are_pointed_at(read):
    table = read({"fold": lambda row: row % 5})
    assert set(table.splits) == {""}
    (finding,) = table.findings
    assert (finding.level, finding.code) == ("warning", "columns_not_used")
    text = finding.text
    assert "'fold' holds 0, 1, 2, 3, 4" in text
    assert "--split-column fold" in text


@pytest.mark.parametrize("name", ["fold_1", "kfold split", "Split (5 parts)"])
def test_folds_by_longer_names_are_pointed_at_where_they_are_few_numbers(read, name):
    assert f"{name!r} holds 0, 1, 2, 3, 4" in said(read({name: lambda row: row % 5}))["columns_not_used"]
    assert not read({name: lambda row: f"{row / 7:.3f}", "manifold": lambda row: row % 5}).findings


@pytest.mark.parametrize("name", ["phase", "stage", "set", "mode"])
def test_a_name_that_often_means_something_else_is_told_by_its_cells(read, name):
    assert not read({name: lambda row: ["arterial", "venous"][row % 2]}).findings


def test_unknown_words_are_named_with_their_counts(read):
    words = ["train", "test", "train", "test", "train", "spare", "Spare", "odd"]
    for name in ("split", "subset"):
        message = refused(read, {name: lambda row: words[row % 8]})
        assert f"row 7, column {name!r}: 'spare' is not a split" in message
        assert "of 24 rows: 'spare' 3, 'Spare' 3, 'odd' 3" in message
        assert "--split-column none" in message


def test_two_splits(read):
    other = {"subset": split, "partition": lambda row: split(row + 1)}
    message = refused(read, other)
    assert "'subset', 'partition'" in message
    assert "--split-column subset, or none" in message
    assert set(read(other, split_column="none").splits) == {""}
    assert read({"subset": split, "set": lambda row: split(row).upper()}).splits[1] == "val"


# -- labels, paths, masks -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["diagnosis", "dx", "Finding", "class", "target", "Finding Labels"])
def test_a_label_by_nearly_the_right_name(read, name):
    table = read({"label": None, name: lambda row: "xy"[row % 2]})
    assert table.task.classes == ("x", "y")
    assert repr(name) in said(table)["columns_by_name"]


def test_labels_that_may_be_meant(read):
    one = {"label": None, "diagnosis": lambda row: "xy"[row % 2]}
    message = refused(read, one | {"grade": lambda row: row % 3})
    assert "'diagnosis', 'grade'" in message
    assert "--label-column diagnosis." in message
    assert "'diagnosis', 'class'" in refused(read, one | {"class": lambda row: row % 2})  # says the same by other names
    assert read(one | {"dx": one["diagnosis"]}).task.classes == ("x", "y")
    message = refused(read, {"label": None, "finding": lambda row: f"free text {row}"})
    assert "no column 'label'" in message
    assert "24 different texts in 24 rows" in message


@pytest.mark.parametrize("name", ["filename", "image_path", "Image Index", "file"])
def test_a_path_by_nearly_the_right_name(read, name):
    table = read({"path": None, name: lambda row: f"images/{row}.png", "image": lambda row: f"number {row}"})
    assert table.ids[3] == "images/3.png"
    assert repr(name) in said(table)["columns_by_name"]


def test_a_path_by_name_that_names_no_files(read):
    message = refused(read, {"path": None, "filename": lambda row: f"elsewhere/{row}.png"})
    assert "no column 'path'" in message
    assert "24 of its files do not exist, such as " in message
    assert "elsewhere/0.png" in message


def test_masks_by_nearly_the_right_name(read):
    table = read({"mask_path": lambda row: f"images/{row}.png" if row < 3 else "none"})
    assert [len(masks) for masks in table.reader.masks[:5]] == [1, 1, 1, 0, 0]
    lost = read({"segmentation": lambda row: "done"})
    assert not lost.has_masks
    assert "'segmentation' (no masks that exist)" in said(lost)["columns_passed_over"]


# -- names --------------------------------------------------------------------------------------------------------
def test_names_by_their_letters_alone():
    assert {
        plain_name(name) for name in ("Patient ID", "patient_id", "PatientID", "patient-id", "\ufeffpatient.Id")
    } == {"patientid"}
    assert named_like(["age", "Patient-ID", "subj"], "patient") == ["Patient-ID", "subj"]
    assert nearly_like(["spilt", "split", "splitting"], "split") == ["spilt"]
