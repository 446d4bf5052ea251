"""A table of answers: what each form means, and that nothing unclear or damaged is guessed at."""

import unicodedata

import numpy as np
import pandas as pd
import pytest

from stillroom import UsageError
from stillroom.data.answers import read_answers
from stillroom.task import MultiClass, MultiLabel

TASK = MultiClass(("benign", "malignant"))
THREE = MultiClass(("a", "b", "c"))
LABELS = MultiLabel(("mass", "fluid", "nodule"))


@pytest.fixture
def write(tmp_path):
    """``write(text)`` writes a CSV and gives its path; of a frame or of arrays a Parquet or an npz file."""

    def make(content, name=None):
        path = tmp_path / (name or {str: "answers.csv", dict: "answers.npz"}.get(type(content), "answers.parquet"))
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, dict):
            np.savez(path, **content)
        else:
            content.to_parquet(path, index=False)
        return path

    return make


def refused(path, task=TASK, **how):
    with pytest.raises(UsageError) as error:
        read_answers(path, task, **how)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what is understood -------------------------------------------------------------------------------------------
def test_probabilities_are_known_by_their_sums_and_brought_to_one(write):
    found = read_answers(write("path,malignant,benign,age\na.png,0.3,0.705,61\nb.png,1,0,4\n"), TASK)
    assert (found.kind, found.naming, found.names) == ("probabilities", "path", ("a.png", "b.png"))
    np.testing.assert_allclose(found.values, [[0.705 / 1.005, 0.3 / 1.005], [0, 1]])
    assert found.passed_over == ("age",)
    assert found.numbers == (2, 3)


def test_numbers_below_zero_are_logits(write):
    found = read_answers(write("id;benign;malignant\nx;-1.5;0.25\ny;2;3\n"), TASK)
    assert found.kind == "logits"
    np.testing.assert_array_equal(found.values, [[-1.5, 0.25], [2, 3]])


def test_several_labels_are_each_a_probability_of_its_own(write):
    found = read_answers(write("path,mass,fluid,nodule\na,.9,.8,.1\n"), LABELS)
    assert found.kind == "probabilities"
    np.testing.assert_array_equal(found.values, [[0.9, 0.8, 0.1]])


def test_votes_in_their_column_and_as_zeros_and_ones_are_the_same(write):
    long = read_answers(write("path,reader,vote\na,R1,malignant\na,R2,benign\n"), TASK)
    label = read_answers(write("path,reader,label\na,R1,malignant\na,R2,benign\n"), TASK)
    wide = read_answers(write("path,reader,benign,malignant\na,R1,0,1\na,R2,1,0\n"), TASK)
    for found in (long, label, wide):
        assert (found.kind, found.readers) == ("votes", ("R1", "R2"))
        np.testing.assert_array_equal(found.values, [[0, 1], [1, 0]])


def test_votes_for_several_labels_may_be_empty(write):
    found = read_answers(write("path,reader,vote\na,R1,mass;nodule\na,R2,\n"), LABELS)
    np.testing.assert_array_equal(found.values, [[1, 0, 1], [0, 0, 0]])


def test_votes_that_are_numbers_with_gaps_are_classes(write):
    frame = pd.DataFrame({"path": ["a", "b"], "vote": [1.0, 0.0]})
    np.testing.assert_array_equal(read_answers(write(frame), MultiClass(("0", "1"))).values, [[0, 1], [1, 0]])


def test_counted_votes_are_shares_where_they_are_said_to_be_votes(write):
    path = write("path,a,b,c\nx,3,1,0\ny,0,0,5\n")
    assert "--answers-kind" in refused(path, THREE)
    found = read_answers(path, THREE, kind="votes")
    np.testing.assert_array_equal(found.values, [[0.75, 0.25, 0], [0, 0, 1]])


@pytest.mark.parametrize("names", [("0", "1", "2"), ("e0", "e1", "e2")])
def test_numbered_columns_are_an_embedding(write, names):
    found = read_answers(write(f"path,{','.join(names)}\nx,0.5,-2,7\n"), TASK)
    assert found.kind == "embedding"
    np.testing.assert_array_equal(found.values, [[0.5, -2, 7]])


def test_parquet_holds_numbers_and_lists(write):
    frame = pd.DataFrame({"id": ["x", "y"], "benign": [-1.0, 2.0], "malignant": np.float32([0.5, 0.25])})
    np.testing.assert_array_equal(read_answers(write(frame), TASK).values, [[-1, 0.5], [2, 0.25]])
    frame = pd.DataFrame({"id": ["x", "y"], "embedding": [[1.0, 2.0], [3.0, 4.5]]})
    found = read_answers(write(frame), TASK)
    assert found.kind == "embedding"
    np.testing.assert_array_equal(found.values, [[1, 2], [3, 4.5]])


def test_an_npz_file_says_its_classes_order_and_who_did_not_answer(write):
    said = np.array([[[0.0, 1.0], [1.0, 0.0]], [[0.25, 0.75], [np.nan, np.nan]]])
    found = read_answers(write({"id": ["x", "y"], "probabilities": said, "classes": ["malignant", "benign"]}), TASK)
    assert (found.names, found.readers) == (("x", "x", "y"), ("1", "2", "1"))
    np.testing.assert_array_equal(found.values, [[1, 0], [0, 1], [0.75, 0.25]])
    named = {"id": ["x"], "logits": [[[1.0, -2.0]]], "classes": ["benign", "malignant"], "readers": ["UNI"]}
    assert read_answers(write(named), TASK).readers == ("UNI",)
    assert read_answers(write({"path": ["x"], "embedding": np.ones((1, 4))}), TASK).values.shape == (1, 4)
    assert "--answers-of" in refused(write(named), of="teacher")


def test_the_predictions_of_a_run_answer_for_the_network_that_is_named(write):
    frame = pd.DataFrame({"id": ["x"], "digest": ["d1"], "target": ["benign"]})
    for role, values in {"student": (0.9, 0.1), "teacher": (0.2, 0.8)}.items():
        frame[f"{role}:benign"], frame[f"{role}:malignant"] = values
    path = write(frame)
    assert "--answers-of student" in refused(path)
    assert "student, teacher" in refused(path, of="control")
    found = read_answers(path, TASK, of="teacher")
    np.testing.assert_array_equal(found.values, [[0.2, 0.8]])
    assert (found.naming, found.digests) == ("id", ("d1",))
    np.testing.assert_array_equal(
        read_answers(write(frame.drop(columns=["student:benign"])), TASK).values, [[0.2, 0.8]]
    )


def test_columns_of_nearly_the_right_name_are_read_and_told(write):
    found = read_answers(write("Image Path,Radiologist,Rating\na.png,1.0,malignant\na.png,2,benign\n"), TASK)
    assert (found.kind, found.naming, found.readers) == ("votes", "path", ("1", "2"))
    assert found.read_as == (("Image Path", "path"), ("Radiologist", "reader"), ("Rating", "vote"))
    assert read_answers(write("path,reader,vote\na,R1,benign\n"), TASK).read_as == ()
    assert read_answers(write("file,benign,malignant\nx,1,0\n"), TASK).names == ("x",)
    classes = MultiClass(("image", "scan"))
    assert read_answers(write("file,image,scan\nx,1,0\n"), classes).read_as == (("file", "path"),)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_classes_are_found_in_either_unicode_form(write, form):
    name = unicodedata.normalize(form, "M\u00e9ni\u00e8re")
    for own in ("M\u00e9ni\u00e8re", "Me\u0301nie\u0300re"):
        task = MultiClass((own, "well"))
        np.testing.assert_array_equal(
            read_answers(write(f"path,{name},well\nx,.25,.75\n"), task).values, [[0.25, 0.75]]
        )
        np.testing.assert_array_equal(read_answers(write(f"path,vote\nx,{name}\u200b\n"), task).values, [[1, 0]])


# -- what is refused ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("path,benign,malignant\n", ["no rows"]),
        ("place,benign,malignant\nx,1,0\n", ["path, id or digest", "place, benign"]),
        ("file,image_path,benign,malignant\nx,x,1,0\n", ["'file', 'image_path'", "Rename the one meant to path"]),
        ("path,benign,malignant\nNA,1,0\n", ["row 2", "'path'", "'NA', which says nothing"]),
        ("path,reader,vote\nx,-,benign\n", ["row 2", "'reader'", "'-', which says nothing"]),
        ("path,reader,vote\nx,R1,N/A\n", ["row 2", "'N/A'", "Leave the row out"]),
        ("path,benign,benign\nx,1,0\n", ["2 columns named 'benign'"]),
        ("path,benign,malignant\nx,1,0\ny,0.5,oops\n", ["row 3", "'malignant'", "'oops'"]),
        ("path,benign,malignant\nx,1,0\ny,0.5,\n", ["row 3", "'malignant'", "empty"]),
        ("path,benign,malignant\nx,inf,0\n", ["row 2", "'benign'", "'inf'"]),
        ("path,benign,malignant\nx,nan,0\n", ["row 2", "'benign'"]),
        ("path,benign,malignant\n,1,0\n", ["row 2", "'path'", "empty"]),
        ("path,benign,malignnt\nx,1,0\n", ["malignant", "benign, malignnt", "Did you mean malignnt?"]),
        ("path,Benign,Malignant\nx,1,0\n", ["Did you mean Benign?"]),
        ("path,benign,malignant\nx,.5,.2\n", ["not every row sums to 1", "--answers-kind"]),
        ("path,benign,malignant\nx,70,30\n", ["some above 1", "--answers-kind"]),
        ("path,reader,vote\nx,R1,malign\n", ["row 2", "'vote'", "'malign'", "Did you mean malignant?"]),
        ("path,reader,vote\nx,R1,\n", ["row 2", "empty", "Leave the row out"]),
        ("path,label\nx,benign\n", ["'vote'", "'reader'"]),
        ("path,vote,benign,malignant\nx,benign,1,0\n", ["leave one of them out"]),
        ("path,benign,malignant,0,1\nx,1,0,3,4\n", ["classes or an embedding", "--answers-kind"]),
    ],
)
def test_a_file_that_is_unclear_or_damaged_is_refused_by_its_row_and_column(write, text, words):
    said = refused(write(text))
    assert "answers.csv" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("probabilities", "path,benign,malignant\nx,1,0\ny,.5,.2\n", ["row 3", "sum to 0.7"]),
        ("probabilities", "path,benign,malignant\nx,1.5,0\n", ["row 2", "'benign'", "1.5"]),
        ("votes", "path,benign,malignant\nx,1.5,0\n", ["row 2", "'benign'", "1.5"]),
        ("votes", "path,benign,malignant\nx,0,0\n", ["row 2", "nobody voted"]),
        ("embedding", "path,benign,malignant\nx,1,0\n", ["no embedding"]),
        ("logits", "path,vote\nx,benign\n", ["lacks columns of the classes"]),
    ],
)
def test_what_is_not_what_it_is_said_to_be_is_refused(write, kind, text, words):
    said = refused(write(text), kind=kind)
    for word in words:
        assert word in said


def test_grades_that_are_numbers_are_probabilities_or_unclear(write):
    grades = MultiClass(("0", "1", "2"), ordinal=True)
    assert read_answers(write("path,0,1,2\nx,.2,.3,.5\n"), grades).kind == "probabilities"
    assert "logits or an embedding" in refused(write("path,0,1,2\nx,-2,.3,.5\n"), grades)
    assert read_answers(write("path,0,1,2\nx,-2,.3,.5\n"), grades, kind="logits").kind == "logits"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"logits": np.zeros((1, 2)), "classes": ["benign", "malignant"]}, ["path, id or digest"]),
        ({"id": ["x"], "logits": np.zeros((1, 2))}, ["no array classes"]),
        ({"id": ["x"], "logits": np.zeros((1, 2)), "classes": ["benign", "Malignant"]}, ["Did you mean Malignant?"]),
        ({"id": ["x", "y"], "logits": np.zeros((1, 2)), "classes": ["benign", "malignant"]}, ["1 rows, id 2"]),
        ({"id": ["x"], "logits": [[0.0, np.inf]], "classes": ["benign", "malignant"]}, ["row 0", "malignant", "inf"]),
        ({"id": ["x"], "logits": [["a", "b"]], "classes": ["benign", "malignant"]}, ["must hold numbers"]),
        ({"id": ["x"], "embedding": np.zeros((1, 2)), "logits": np.zeros((1, 2))}, ["logits and embedding"]),
        ({"id": ["x"]}, ["no answers"]),
        ({"id": np.array([{}], dtype=object)}, ["plain arrays"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(write, arrays, words):
    said = refused(write(arrays))
    for word in words:
        assert word in said


def test_damaged_and_strange_files_are_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.csv")
    assert "folder" in refused(tmp_path)
    for name in ("answers.parquet", "answers.npz"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 no such thing")
        assert "not a readable" in refused(tmp_path / name)
    (tmp_path / "answers.xlsx").write_bytes(b"x")
    assert ".parquet" in refused(tmp_path / "answers.xlsx")
