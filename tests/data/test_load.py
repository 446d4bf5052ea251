"""From a source's name to images that are split and audited, and the one line for a source that cannot be used."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from stillroom import DataSettings, UsageError, load_data
from stillroom.data.load import is_named_set, open_source, prepare

SMALL = DataSettings(size=32)


@pytest.fixture
def pictures(picture_folder, tmp_path):
    """A copy of the picture folder that a test may spoil."""
    return shutil.copytree(picture_folder, tmp_path / "pictures")


@pytest.fixture
def load(tmp_path):
    return lambda source, settings=SMALL: load_data(source, settings, cache=tmp_path / "cache", show_progress=False)


def error(source, settings=SMALL):
    """What a user reads, before any image is decoded."""
    with pytest.raises(UsageError) as caught:
        open_source(source, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_and_images_belong_together(load, pictures):
    data = load(pictures)
    assert len(data.table) == len(data.store) == 120
    assert set(data.table.splits) == {"train", "val", "test"}
    for row in (0, 59, 60, 119):
        with Image.open(pictures / data.table.ids[row]) as image:
            assert np.array_equal(data.store.batch(np.array([row]))[0, 0], np.asarray(image))
    again = load(pictures)
    assert np.array_equal(again.table.splits, data.table.splits)
    assert again.store.fingerprint == data.store.fingerprint


def test_prepare_is_the_second_half(load, pictures, tmp_path):
    table = open_source(pictures, SMALL)
    second = prepare(table, SMALL, cache=tmp_path / "cache", show_progress=False)
    assert second.audit.to_dict() == load(pictures).audit.to_dict()


def test_each_kind_of_source(pictures, tmp_path, monkeypatch):
    (pictures / "labels.csv").write_text("path,label\nleft/000.png,a\nright/000.png,b\n")
    assert open_source(pictures / "labels.csv", SMALL).name == "labels"
    assert open_source("phantoms:40", SMALL).synthetic
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_source("~/pictures", SMALL)) == 120


def test_names_of_sets_and_paths():
    assert all(is_named_set(name) for name in ("phantoms", "phantoms:40", "breastmnist"))
    assert not any(is_named_set(name) for name in ("./phantoms", "my/breastmnist", "phantom", "BreastMNIST"))


def test_broken_files_are_named_and_the_rest_goes_on(load, pictures):
    (pictures / "left" / "000.png").write_bytes(b"")
    whole = (pictures / "right" / "007.png").read_bytes()
    (pictures / "right" / "007.png").write_bytes(whole[:200])
    data = load(pictures)
    assert len(data.table) == len(data.store) == 118
    assert not {"left/000.png", "right/007.png"} & set(data.table.ids)
    named = {entry["path"]: entry["reason"] for entry in data.audit.to_dict()["quarantined"]}
    assert named.keys() == {"left/000.png", "right/007.png"}
    assert "0 bytes" in named["left/000.png"]
    assert "truncated" in named["right/007.png"]


def test_a_file_that_does_not_exist_is_told_once(load, pictures):
    names = [f"{side}/{number:03d}.png" for number in range(60) for side in ("left", "right")]
    (pictures / "table.csv").write_text("path,label\n" + "".join(f"{name},{name[0]}\n" for name in names))
    (pictures / names[0]).unlink()
    found = {one.code: one.text for one in load(pictures / "table.csv").audit.warnings}
    assert "1 of 120 files in the column 'path' do not exist" in found["files_missing"]
    assert "quarantined" not in found
    (pictures / names[1]).write_bytes(b"")
    audit = load(pictures / "table.csv").audit
    text = {one.code: one.text for one in audit.warnings}["quarantined"]
    assert text.startswith(f"1 more of 120 images could not be used and are left out, the first: {names[1]}")
    assert [one["path"] for one in audit.quarantined] == names[:2]


def test_leaks_are_dropped_where_asked(load, pictures, tmp_path):
    names = [f"{side}/{number:03d}.png" for number in range(60) for side in ("left", "right")]
    splits = ["train"] * 80 + ["val"] * 20 + ["test"] * 20
    shutil.copy(pictures / names[119], pictures / names[0])  # in train and test
    rows = "".join(f"{name},{name[0]},{split}\n" for name, split in zip(names, splits, strict=True))
    (pictures / "table.csv").write_text("path,label,split\n" + rows)
    kept = load(pictures / "table.csv")
    assert len(kept.table) == 120
    assert len(kept.audit.cross_split_duplicates) == 1
    clean = load(pictures / "table.csv", DataSettings(size=32, drop_leaks=True))
    assert len(clean.table) == len(clean.store) == 119
    assert names[0] not in clean.table.ids
    assert names[119] in clean.table.ids
    assert not clean.audit.cross_split_duplicates


def test_sources_that_do_not_exist(tmp_path):
    assert "no folder or file 'breastmnits', and no data set of that name. Did you mean breastmnist" in error(
        "breastmnits"
    )
    assert "nowhere.csv does not exist" in error(tmp_path / "nowhere.csv")
    (tmp_path / "notes.txt").touch()
    assert "notes.txt is a file of another kind: give a folder, or a table (.csv, .tsv, .parquet)" in error(
        tmp_path / "notes.txt"
    )


@pytest.mark.parametrize("name", ["pipe", "pipe.csv", "pipe.parquet"])
def test_a_pipe_is_no_source_and_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name} is a named pipe"):
        open_source(tmp_path / name, DataSettings())


def test_an_empty_folder_and_a_single_class(pictures, tmp_path):
    (tmp_path / "bare").mkdir()
    assert "bare holds no class folders and no images. Lay it out as" in error(tmp_path / "bare")
    shutil.rmtree(pictures / "right")
    message = error(pictures)
    assert "one class" in message or "two classes" in message
    assert "left" in message


def test_a_class_that_only_the_test_has(pictures):
    for split in ("train", "test"):
        for side in ("left", "right"):
            shutil.copytree(pictures / side, pictures / split / side)
    shutil.copytree(pictures / "left", pictures / "test" / "unseen")
    shutil.rmtree(pictures / "left")
    shutil.rmtree(pictures / "right")
    message = error(pictures)
    assert "unseen" in message
    assert "train" in message


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("path,remark\nleft/000.png,a\n", {}, ["labels.csv", "'label'", "remark"]),
        ("place,label\nleft/000.png,a\n", {}, ["labels.csv", "'path'", "place"]),
        ("path,label\nleft/000.png,a\nright/000.png,c\n", {"classes": ("a", "b")}, ["row 3", "'c'", "a, b"]),
        ("path,label\nleft/000.png,a\nright/000.png,\n", {}, ["row 3", "'label'", "empty"]),
        ("path,label\nleft/000.png,a\nright/000.png,a\n", {}, ["labels.csv", "a"]),
        ("path,label\n", {}, ["labels.csv"]),
        ("", {}, ["labels.csv"]),
        ("path,label\nx.png,a\ny.png,b\n", {}, ["2 of 2 files", "do not exist", "x.png"]),
    ],
)
def test_tables_that_cannot_be_used(pictures, text, settings, words):
    (pictures / "labels.csv").write_text(text)
    message = error(pictures / "labels.csv", DataSettings(**settings))
    assert all(word in message for word in words), message


def test_a_class_whose_files_are_all_set_aside_is_named_with_their_number_and_why(load, pictures):
    folder = sorted(path for path in pictures.iterdir() if path.is_dir())[0]
    files = sorted(folder.rglob("*.png"))
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        load(pictures)
    assert f"{folder.name!r} that can be used: {len(files)} were set aside; the first, " in str(caught.value)
    assert "empty" in str(caught.value)
