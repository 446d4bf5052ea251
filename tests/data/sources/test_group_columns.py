"""Columns of a table by which subgroups are judged: those that are named, and what is said of those that cannot be used."""

import pytest
from PIL import Image

from stillroom.data.load import open_source
from stillroom.data.sources.manifest import read_manifest
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

COUNT = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    for number in range(COUNT):
        Image.new("L", (4, 4), number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def read(folder):
    """``read(groups, **columns)``: the table with these columns, each a function of the row."""

    def make(groups, **columns):
        columns = {"path": lambda row: f"{row}.png", "label": lambda row: "ab"[row % 2]} | columns
        lines = [",".join(columns)]
        lines += [",".join(str(cell(row)) for cell in columns.values()) for row in range(COUNT)]
        (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
        return read_manifest(folder / "t.csv", DataSettings(groups=groups))

    return make


def site(row):
    return ["North", "south", "N/A"][row % 3]


def test_columns_are_found_in_any_case_and_travel_with_their_rows(read):
    table = read(("SITE,age=40,65",), site=site, age=lambda row: f"{row % 90}.0")
    assert [(one.name, one.edges) for one in table.groups] == [("site", ()), ("age", (40.0, 65.0))]
    assert table.groups[0].cells[:4].tolist() == ["North", "south", "", "North"]
    assert table.groups[1].cells[3] == "3"
    part = table.take([5, 0])
    assert part.groups[0].cells.tolist() == ["", "North"]
    assert not [finding for finding in table.findings if finding.code == "columns_for_groups"]


def test_no_column_is_used_unasked_and_those_that_could_be_are_pointed_at(read):
    table = read(
        (), Sex=lambda row: "FM"[row % 2], age=lambda row: row % 90, scanner=lambda row: row, site=lambda row: "one"
    )
    assert table.groups == ()
    (finding,) = table.findings
    assert (finding.level, finding.code) == ("note", "columns_for_groups")
    assert (
        finding.text == "Columns by which subgroups could be judged: --groups Sex age tells figures and gaps of each."
    )


@pytest.mark.parametrize(
    ("wish", "column", "message"),
    [
        ("nosuch", site, "has no column 'nosuch' to part images by; its columns are path, label, x. Name those"),
        ("x", lambda row: "", "every cell is empty"),
        ("x", lambda row: row, "150 different values in 150 rows, such as '0', and looks like ids"),
        ("x", lambda row: f"2020-{row % 12 + 1:02d}-{row % 28 + 1}", "looks like dates"),
        ("x", lambda row: f"remark {row}", "ids, dates and remarks are no groups"),
        ("x", lambda row: row / 7 if row else "much", "'much'"),
        ("x=3", site, "'North' is no number, so that no edges can cut it"),
    ],
)
def test_what_cannot_part_images_is_refused_in_one_line(read, wish, column, message):
    with pytest.raises(UsageError) as caught:
        read((wish,), x=column)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ids_are_told_by_their_columns_name_where_they_are_many(read):
    with pytest.raises(UsageError, match="looks like ids"):
        read(("patient",), patient=lambda row: f"p{row // 3}")
    assert read(("eye",), eye=lambda row: "LR"[row % 2]).groups[0].name == "eye"


def test_a_source_without_columns_has_no_groups(folder):
    with pytest.raises(UsageError, match="names columns of a table"):
        open_source(str(folder), DataSettings(groups=("site",)))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (("age=x",), "numbers in ascending order"),
        (("age=50,50",), "numbers in ascending order"),
        (("age=nan",), "numbers in ascending order"),
        (("site", "Site"), "twice"),
        ((",",), "names no column"),
        ("site", r"groups takes a list, such as \['site'\]"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(groups, message):
    with pytest.raises(UsageError, match=message):
        DataSettings(groups=groups)
