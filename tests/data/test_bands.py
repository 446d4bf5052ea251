import numpy as np
import pytest

from stillroom.data.bands import band_names, grouped, is_age, number_of, thirds
from stillroom.data.table import GroupColumn


def parted(name, cells, edges=(), learnt=None, **more):
    cells = np.array(cells)
    learnt = np.ones(len(cells), dtype=bool) if learnt is None else np.array(learnt)
    found = grouped(GroupColumn(name, cells, edges), learnt, **more)
    return {group: np.flatnonzero(found.members == k).tolist() for k, group in enumerate(found.groups)}, found


def test_values_are_subgroups_and_what_is_missing_is_one():
    found, grouping = parted("sex", ["F", "m", "", "f", "F", "M", "m"])
    assert found == {"F": [0, 3, 4], "m": [1, 5, 6], "not known": [2]}
    assert grouping.how == ""


def test_ages_are_cut_where_registries_cut_them_however_they_are_written():
    cells = ["17", "18", "039Y", "40 years", "64", "65", "79.5", "90+", "", "414"]
    found, grouping = parted("Patient Age", cells)
    assert found == {
        "under 18": [0], "18 to under 40": [1, 2], "40 to under 65": [3, 4], "65 to under 80": [5, 6],
        "80 and over": [7], "not known": [8, 9],
    }  # fmt: skip
    assert grouping.how == "Ages cut at 18, 40, 65, 80. Ages below 0 or above 120 count as not known (1)."
    assert "18 to 39" in parted("age", ["17", "20", "50"])[0]


def test_edges_that_are_given_come_first():
    found, grouping = parted("age", ["10", "49", "50", "70"], edges=(50.0,))
    assert found == {"under 50": [0, 1], "50 and over": [2, 3]}
    assert grouping.edges == (50.0,)
    assert parted("dose", ["1", "2", "3", ""], edges=(1.5,))[0] == {
        "under 1.5": [0],
        "1.5 and over": [1, 2],
        "not known": [3],
    }


def test_other_numbers_are_cut_into_thirds_of_the_training_images_and_few_are_values():
    cells = [str(n / 10) for n in range(90)] + ["100"] * 9
    found, grouping = parted("dose", cells, learnt=[True] * 90 + [False] * 9)
    assert [len(rows) for rows in found.values()] == [30, 30, 39]
    assert grouping.edges == pytest.approx((8.9 / 3, 17.8 / 3))
    assert grouping.how == "Cut into thirds of the training images."
    again = grouped(GroupColumn("dose", np.array(cells)), np.zeros(99, dtype=bool), (4.0,))
    assert again.edges == (4.0,)
    assert list(parted("grade", ["3", "1", "2", "10", "1"])[0]) == ["1", "2", "3", "10"]


def test_of_many_values_the_commonest_are_subgroups():
    cells = [f"site {n}" for n in range(30) for _ in range(31 - n)]
    found, grouping = parted("site", cells)
    assert len(found) == 13
    assert len(found["other"]) == sum(31 - n for n in range(12, 30))
    assert grouping.how == "The 12 commonest of 30 values; the others count as one."


def test_a_part_of_the_images_has_the_subgroups_that_are_in_it():
    _, grouping = parted("site", ["a", "b", "c", "b"])
    part = grouping.take(np.array([3, 2]))
    assert (part.groups, part.members.tolist()) == (("b", "c"), [0, 1])


def test_names_of_bands_and_edges_of_thirds():
    assert band_names((), True) == ("all",)
    assert band_names((0.5, 1.0), False) == ("under 0.5", "0.5 to under 1", "1 and over")
    assert thirds(np.array([])) == ()
    assert thirds(np.full(9, 3.0)) == ()


@pytest.mark.parametrize(
    ("name", "age"),
    [
        ("age", True),
        ("AgeAtScan", True),
        ("patient_age", True),
        ("image", False),
        ("bone age", False),
        ("stage", False),
    ],
)
def test_what_speaks_of_ages(name, age):
    assert is_age(name) == age


def test_numbers():
    assert number_of("age", ">89") == 89
    assert number_of("dose", "58Y") is None
    assert number_of("dose", "inf") is None
    assert number_of("dose", "-1.5e3") == -1500
