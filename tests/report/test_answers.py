"""What the pages say of a teacher that is a table of answers."""

from types import SimpleNamespace

import pytest

from stillroom.report.answers import answers_notes


@pytest.fixture
def notes():
    """``notes(readers=..., ...)``: the sentences of a run with these facts in its manifest."""

    def make(**changed):
        facts = {
            "file": "votes.csv",
            "digest": "0" * 64,
            "kind": "votes",
            "images": 120,
            "splits": {"train": [80, 80], "val": [16, 16], "test": [24, 24]},
            "readers": {"Kim": 1.2, "Sato": 0.8},
            "per_image": [1, 2],
            "weights": "equal",
            "unknown_rows": 0,
            "unread_columns": [],
        }
        return answers_notes(SimpleNamespace(manifest={"answers": facts | changed}))

    return make


def test_readers_are_counted_and_what_a_table_cannot_give_is_said(notes):
    first, second = notes()
    assert "votes.csv: the votes of 2 readers, 1 to 2 an image, about 120 images" in first
    assert "one answer" in first
    assert "no heat map, no size" in first
    assert second == "Every reader of an image counts alike."


def test_weights_by_confidence_are_told_by_name_and_only_so_many(notes):
    assert notes(weights="confidence")[1].endswith("Kim 1.20, Sato 0.80.")
    many = {f"R{number}": 1.0 for number in range(20)}
    assert notes(weights="confidence", readers=many)[1].endswith("R11 1.00 and 8 more.")


def test_images_without_an_answer_unknown_rows_and_unread_columns_are_counted(notes):
    said = notes(splits={"train": [80, 80], "val": [0, 16], "test": [3, 24]}, unknown_rows=1, unread_columns=["age"])
    assert said[2] == (
        "The teacher's own figures are left out: the table answers 0 of 16 validation images and 3 of 24 test images."
    )
    assert said[3] == "1 row of the table is about no image of this data set."
    assert said[4].endswith("not read: age.")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("probabilities", "the probabilities about 120"), ("embedding", "a head fitted"), ("votes", "one vote each")],
)
def test_one_reader_is_no_panel(notes, kind, words):
    said = notes(kind=kind, readers={"1": 1.0}, per_image=[1, 1])
    assert len(said) == 1
    assert words in said[0]
    assert "readers" not in said[0]


def test_other_teachers_have_no_such_notes():
    assert answers_notes(SimpleNamespace(manifest={})) == []
