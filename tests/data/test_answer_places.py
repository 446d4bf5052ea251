"""Which image a row of a table of answers is about, in the ways that users name images."""

import os
from pathlib import Path

import numpy as np
import pytest

from stillroom import DataSettings, UsageError
from stillroom.data.answer_places import place
from stillroom.data.answers import Answers
from stillroom.data.load import open_source


@pytest.fixture
def table(tmp_path):
    """Four images: left/1.png, left/2.png, right/1.png, right/scan.v2.png. They need not be readable."""
    for name in ("left/1.png", "left/2.png", "right/1.png", "right/scan.v2.png"):
        path = tmp_path / "pics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return open_source(tmp_path / "pics", DataSettings())


def about(names, where, *, readers=(), naming="path", digests=()):
    count = len(names)
    values = np.arange(count, dtype=float)[:, None].repeat(2, axis=1)
    numbers = tuple(range(2, count + 2))
    path = Path(where) / "a.csv"
    return Answers(path, "", "logits", naming, tuple(names), tuple(digests), values, tuple(readers), numbers)


@pytest.mark.parametrize(
    "name",
    [
        "left/2.png",
        "left\\2.png",
        "pics/left/2.png",
        "./pics/left/2.png",
        "2.png",
        "2",
        "left/2",
        "/old/machine/left/2.png",
    ],
)
def test_a_path_names_its_image_however_it_is_written(table, tmp_path, name):
    found = place(about([name], tmp_path), table)
    assert table.ids[found.images].tolist() == ["left/2.png"]
    assert found.unknown == ()


def test_a_name_finds_its_image_in_either_unicode_form(tmp_path):
    composed, apart = "M\u00e9ni\u00e8re", "Me\u0301nie\u0300re"
    for folder, name in (("a", composed), ("b", apart)):
        for number in (1, 2):
            path = tmp_path / "pics" / folder / f"{name} {number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    table = open_source(tmp_path / "pics", DataSettings())
    names = [f"a/{apart} 1.png", f"b/{composed}\u00a02.png", f"a/{composed} 2"]
    found = place(about(names, tmp_path), table)
    assert found.images.tolist() == [0, 3, 1]
    assert found.unknown == ()


def test_a_path_may_be_absolute_or_relative_to_the_table(table, tmp_path):
    elsewhere = tmp_path / "tables" / "deep"
    elsewhere.mkdir(parents=True)
    absolute = tmp_path / "pics" / "right" / "1.png"
    relative = os.path.relpath(absolute, elsewhere)
    for name in (str(absolute), relative):
        assert table.ids[place(about([name], elsewhere), table).images].tolist() == ["right/1.png"]


def test_one_file_name_in_two_folders_is_refused(table, tmp_path):
    with pytest.raises(UsageError, match=r"row 3: '1.png' may be any of 2 images, such as left/1.png, right/1.png"):
        place(about(["2.png", "1.png"], tmp_path), table)


def test_a_dot_in_a_name_is_no_ending(table, tmp_path):
    for name in ("scan.v2.png", "scan.v2"):
        assert table.ids[place(about([name], tmp_path), table).images].tolist() == ["right/scan.v2.png"]
    assert place(about(["2.png", "scan"], tmp_path), table).unknown == (1,)


def test_rows_of_other_images_are_counted_and_all_of_them_refused(table, tmp_path):
    found = place(about(["x.png", "2.png", "left/3.png"], tmp_path), table)
    assert found.unknown == (0, 2)
    assert found.values.tolist() == [[1, 1]]
    with pytest.raises(UsageError, match=r"none of the 4 images of pics: its first path is 'x.png', .* 'left/1.png'"):
        place(about(["x.png"], tmp_path), table)


def test_several_rows_of_an_image_are_readers_by_name_or_in_turn(table, tmp_path):
    named = place(about(["2.png", "left/2.png", "left/1.png"], tmp_path, readers=("Z", "A", "A")), table)
    assert (named.names, named.readers.tolist()) == (("Z", "A"), [0, 1, 1])
    turns = place(about(["2.png", "left/1.png", "left/2.png", "2"], tmp_path), table)
    assert (turns.names, turns.readers.tolist()) == (("1", "2", "3"), [0, 0, 1, 2])
    with pytest.raises(UsageError, match=r"rows 2 and 3: A answers twice about left/2.png"):
        place(about(["2.png", "left/2.png"], tmp_path, readers=("A", "A")), table)


def test_a_digest_names_every_image_of_equal_pixels(table, tmp_path):
    digests = np.array(["d0", "d1", "d1", "d3"])
    found = place(about(["d1", "d9", "d0"], tmp_path, naming="digest"), table, digests)
    assert (found.images.tolist(), found.unknown) == ([1, 2, 0], (1,))
    assert place(about(["d1"], tmp_path, naming="digest"), table).images.tolist() == []  # before anything is decoded
    with pytest.raises(UsageError, match="'d8', an image's digest is 'd0'"):
        place(about(["d8"], tmp_path, naming="digest"), table, digests)


def test_a_name_whose_pixels_are_others_is_refused(table, tmp_path):
    digests = np.array(["d0", "d1", "d2", "d3"])
    right = about(["left/1.png"], tmp_path, naming="id", digests=("d0",))
    assert place(right, table, digests).images.tolist() == [0]
    with pytest.raises(UsageError, match=r"row 2: 'left/1.png' .* other images"):
        place(about(["left/1.png"], tmp_path, naming="id", digests=("d1",)), table, digests)
