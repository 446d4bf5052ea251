"""Files are found whatever Unicode form their names have in the table and on the disk."""

import unicodedata

import pytest

from stillroom.data.sources.paths import file_finder, is_file

NFC, NFD = (unicodedata.normalize(form, "M\u00e9ni\u00e8re") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        (f"{NFD}/1.png", f"{NFC}/1.png"),
        (f"{NFC}/1.png", f"{NFD}/1.png"),
        (f"{NFD}/a/{NFC}.png", f"./{NFC}/b/../a/{NFD}.png"),
        (f"{NFD}/1.png", f"{NFC}\\1.png"),
        ("very ill/1.png", "very\u00a0ill/1.png"),
        ("very\u00a0ill/1.png", "very ill/1.png"),
        ("a/1.png", "a/1.png\u200b"),
        ("a\\1.png", "a\\1.png"),
        ("a/1.png", "a\\1.png"),
    ],
)
def test_found_in_either_form(tmp_path, on_disk, in_table):
    path = tmp_path / on_disk
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    find = file_finder(tmp_path)
    assert find(in_table) == path
    assert find(str(tmp_path / in_table)) == path


def test_the_same_form_goes_first_and_two_others_are_not_chosen_from(tmp_path):
    for name in ("a\u00a0b", "a\u2009b"):
        (tmp_path / name).write_bytes(b"x")
    find = file_finder(tmp_path)
    assert find("a\u00a0b").name == "a\u00a0b"
    assert find("a b").name == "a b"
    assert not is_file(find("a b"))


def test_names_that_no_file_can_have(tmp_path):
    find = file_finder(tmp_path)
    for name in ("x" * 5000, "x/" * 3000, "no/such/file.png"):
        assert not is_file(find(name))
