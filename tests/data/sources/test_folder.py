"""Folders as people lay them out, and the one clear line they get when the layout cannot be understood."""

from __future__ import annotations

import os
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from stillroom.data.sources.folder import read_folder
from stillroom.data.table import UnreadableImage
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

AUTO = DataSettings()


@pytest.fixture
def lay(tmp_path):
    """``lay("a/1.png", ...)`` writes small images under a root and returns it; a trailing slash makes a folder."""
    root = tmp_path / "scans"

    def write(*names):
        for number, name in enumerate(names):
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), number).save(path, format="PNG")
        return root

    return write


def error(root, settings=AUTO):
    with pytest.raises(UsageError) as caught:
        read_folder(root, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_without_split(lay):
    root = lay("grade10/a.png", "grade2/b.PNG", "grade2/deep/er/c.jpeg", "grade2/.hidden.png", "__MACOSX/grade2/b.png")
    (root / "grade2" / "notes.txt").write_text("not an image")
    table = read_folder(root, AUTO)
    assert table.name == "scans"
    assert table.task.classes == ("grade2", "grade10")
    assert table.ids.tolist() == ["grade2/b.PNG", "grade2/deep/er/c.jpeg", "grade10/a.png"]
    assert table.targets.tolist() == [0, 0, 1]
    assert table.splits.tolist() == ["", "", ""]
    assert table.splits.dtype == np.dtype("<U5")  # wide enough for what is assigned later
    assert table.patients is None
    assert not table.has_masks
    assert [int(table.reader.read(int(row))[0, 0]) for row in table.rows] == [1, 2, 0]


def test_folders_whose_names_look_alike_are_one_class(lay):
    composed, apart = "M\u00e9ni\u00e8re", "Me\u0301nie\u0300re"
    root = lay(f"{composed}/1.png", f"{apart}/1.png", "well/1.png", "well\u00a0/2.png", "odd/1.png")
    table = read_folder(root, AUTO)
    assert table.task.classes == (composed, "odd", "well")
    assert sorted(table.targets.tolist()) == [0, 0, 1, 2, 2]
    (finding,) = table.findings
    assert finding.code == "classes_spelled_alike"
    assert f"{composed} (2 ways, 2 images), well (2 ways, 2 images)" in finding.text
    named = read_folder(root, DataSettings(classes=("well", apart), merge=(f"odd={apart}",)))
    assert named.task.classes == ("well", apart)
    assert "'odd' and 'ODD', which differ only in case" in error(lay("ODD/2.png")).replace(
        "'ODD' and 'odd'", "'odd' and 'ODD'"
    )


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "val", "test"), ["train", "val", "test"]),
        (("Training", "VALID", "Testing"), ["train", "val", "test"]),
        (("TRAIN", "validation"), ["train", "val"]),
        (("train", "dev"), ["train", "val"]),
        (("train", "test"), ["train", "test"]),
        (("train",), ["train"]),
        (("test",), ["test"]),
    ],
)
def test_splits_above_classes(lay, names, splits):
    table = read_folder(lay(*(f"{name}/{kind}/1.png" for name in names for kind in ("no", "yes"))), AUTO)
    assert Counter(table.splits.tolist()) == dict.fromkeys(splits, 2)
    for split, name in zip(splits, names, strict=True):
        assert sorted(table.ids[table.splits == split]) == [f"{name}/no/1.png", f"{name}/yes/1.png"]


def test_masks_belong_to_the_image_beside_them(lay):
    root = lay("a/1.png", "a/1_mask.png", "a/1_mask_1.tif", "a/2.png", "b/1.png", "b/1_MASK.png")
    table = read_folder(root, AUTO)
    assert table.ids.tolist() == ["a/1.png", "a/2.png", "b/1.png"]
    assert table.has_masks
    assert [[path.name for path in masks] for masks in table.reader.masks] == [
        ["1_mask.png", "1_mask_1.tif"],
        [],
        ["1_MASK.png"],
    ]
    assert table.reader.read_mask(0).all()
    assert table.reader.read_mask(1) is None


def test_mask_without_image_is_no_image(lay):
    assert "a/2_mask.png is named like a mask" in error(lay("a/1.png", "a/2_mask.png", "b/1.png"))


def notes(table):
    return {finding.code: finding.text for finding in table.findings}


def test_masks_in_a_folder_of_their_own(lay):
    names = [f"{kind}/{part}/{number}.png" for kind in "ab" for part in ("images", "masks") for number in range(3)]
    table = read_folder(lay(*names), AUTO)
    assert table.ids.tolist() == [name for name in names if "images" in name]
    for path, masks in zip(table.reader.paths, table.reader.masks, strict=True):
        assert masks == (path.parent.with_name("masks") / path.name,)
    assert notes(table) == {"masks_taken": "6 files are taken for masks of 6 images: 3 in a/masks, 3 in b/masks."}


def test_masks_known_by_name_are_told(lay):
    table = read_folder(lay("a/1.png", "a/1_seg.png", "a/2.png", "b/1.png", "b/1-mask.png"), AUTO)
    text = "2 files are taken for masks of 2 images: 2 by name, such as a/1_seg.png."
    assert notes(table) == {"masks_taken": text}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("img/1.png", "mask/1.png"), r"^img and mask in .* are images and their masks, not classes\. Masks go into"),
        (("train/img/1.png", "train/mask/1.png", "test/img/1.png", "test/mask/1.png"), "test/img and test/mask in"),
        (("images/a.png", "masks/b.png"), "images and masks in .* are images and their masks"),
        (
            ("images/ill/1.png", "images/well/1.png", "masks/ill/1.png"),
            r"ill\b|inside images are the classes, pass .*images",
        ),
        (("ill/1.png", "well/2.png", "masks/1.png", "masks/2_mask.png"), "ill and well and masks in .*not classes"),
        (("ill/1.png", "ill_masks/1.png", "well/2.png"), "ill and well and ill_masks"),
        (("ill/1.png", "well/1.png", "masks/ill/1.png", "masks/well/1.png"), "ill and well and masks in .*not classes"),
        (("val/ill/1.png", "val/well/1.png", "val/masks/ill/1.png"), "val/ill and val/well and val/masks in"),
        (("ill/a.png", "well/b.png", "masks/ill/MASK1.png"), "ill and well and masks in .*not classes"),
        (("ill/1.png", "mask_ill/1.png", "well/2.png"), "ill and well and mask_ill"),
        (("ill/7/t1.png", "ill/7/t2.png", "ill/7/seg.png", "well/1.png"), "ill/7/seg.png is named like a mask"),
        (("img/1.png", "msk/1.png"), "img and msk in .*not classes"),
        (("mask/1.png", "bare/1.png"), "If mask is a class, pass --classes bare mask"),
        (
            ("a/images/1.png", "a/masks/1.png", "a/masks/2.png", "b/1.png"),
            "a/masks/2.png is named like a mask, or",
        ),
    ],
)
def test_masks_are_no_class(lay, names, message):
    assert re.search(message, error(lay(*names)))


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        (("mask/1.png", "no_mask/1.png"), AUTO),
        (("with_mask/with_mask_1.jpg", "without_mask/without_mask_1.jpg", "mask_worn_wrongly/1.png"), AUTO),
        (("mask/m1.png", "bare/b1.png"), AUTO),
        (("mask/1.png", "unmasked/1.png"), AUTO),
        (("mask/1.png", "bare/1.png"), DataSettings(classes=("bare", "mask"))),
        (("seg/s1.png", "band/b1.png", "lymph/l1.png"), AUTO),
        (("photo/p1.png", "mask/m1.png", "live/l1.png"), AUTO),
        (("mask/1.png", "tube/1.png", "bare/2.png"), DataSettings(merge=("mask=tube",))),
    ],
)
def test_a_class_may_be_called_mask(lay, names, settings):
    table = read_folder(lay(*names), settings)
    assert sorted(table.ids) == sorted(names)
    assert not table.has_masks


def test_images_named_like_masks_are_told(lay):
    table = read_folder(lay("on/with_mask_1.jpg", "on/with_mask_2.jpg", "off/1.png"), AUTO)
    assert len(table) == 3
    assert [finding.level for finding in table.findings] == ["warning"]
    assert "2 files are named like masks" in notes(table)["named_like_masks"]
    assert "on/with_mask_1.jpg" in notes(table)["named_like_masks"]


def test_a_single_name_does_not_refuse_a_set(lay):
    names = [*(f"{kind}/{number}.png" for kind in ("bare", "worn") for number in range(8)), "worn/face_mask.png"]
    table = read_folder(lay(*names), AUTO)
    assert sorted(table.ids) == sorted(names)
    assert "worn/face_mask.png" in notes(table)["named_like_masks"]


def test_what_is_called_after_an_image_or_a_class_is_told(lay):
    root = lay("ill/1.png", "ill/1_roi.png", "well/1.png", "well/2.png", "well_annotated/1.png", "msk/1.png")
    table = read_folder(root, AUTO)
    assert {finding.code: finding.level for finding in table.findings} == {
        "called_after_images": "warning",
        "class_named_after": "warning",
    }
    assert "ill/1_roi.png" in notes(table)["called_after_images"]
    assert "pass --drop-class well_annotated" in notes(table)["class_named_after"]
    named = read_folder(root, DataSettings(classes=("ill", "well", "well_annotated", "msk")))
    assert list(notes(named)) == ["called_after_images"]


def test_masks_beside_the_classes_may_be_dropped_by_name(lay):
    root = lay("ill/1.png", "well/2.png", "masks/1.png", "masks/2.png")
    assert read_folder(root, DataSettings(drop_class=("masks",))).ids.tolist() == ["ill/1.png", "well/2.png"]


def test_files_of_other_endings_are_counted_by_class(lay):
    root = lay("ill/1.png", "ill/2.jfif", "ill/3.JPE", "well/1.png", "README.md")
    for name in ("well/a.mha", "well/b.MHA", "ill/c.nii.gz", "ill/1.2.840.113", "well/note.txt"):
        (root / name).touch()
    table = read_folder(root, AUTO)
    assert table.ids.tolist() == ["ill/1.png", "ill/2.jfif", "ill/3.JPE", "well/1.png"]
    assert {finding.code: finding.level for finding in table.findings} == {
        "files_passed_over": "warning",
        "other_files": "note",
    }
    assert notes(table)["files_passed_over"] == (
        "Passed over, for such files are not read: 2 .mha (well 2), 1 file without an ending (ill 1), 1 .nii.gz (ill 1). "
        "Save images as PNG, TIFF or JPEG."
    )
    assert notes(table)["other_files"] == (
        "Passed over as no images: 1 .md (beside the class folders 1), 1 .txt (well 1)."
    )
    (root / "well" / "1.png").unlink()
    assert "without any image in" in (message := error(root))
    assert "well (there are .mha, .txt files, which are not read)" in message


def test_many_endings_are_cut_with_their_counts_and_none_is_lost(lay):
    root = lay("a/1.png", "b/1.png")
    for number, ending in enumerate(("heic", "mha", "nrrd", "vms", "svs", "czi", "ndpi")):
        for copy in range(8 - number):
            (root / "ab"[copy % 2] / f"{copy}.{ending}").touch()
    table = read_folder(root, AUTO)
    assert table.passed_over[".mha"] == {"a": 4, "b": 3}
    assert len(table.passed_over) == 7
    text = notes(table)["files_passed_over"]
    assert "8 .heic (a 4, b 4), 7 .mha (a 4, b 3)" in text
    assert "4 .svs (a 2, b 2) and 5 of 2 more endings: 35 in all (--json names each)." in text
    for number in range(8):
        (root / f"c{number}").mkdir()
        for name in ("1.png", "1.heic"):
            (root / f"c{number}" / name).touch()
    assert (
        "16 .heic (a 4, b 4, c0 1, c1 1, c2 1 and 5 in 5 more)" in notes(read_folder(root, AUTO))["files_passed_over"]
    )


@pytest.mark.parametrize(
    ("names", "flag"),
    [
        (("seg/1.png", "band/1.png"), "--classes band seg."),
        (("mask/1.png", "face/1.png", "bare head/2.png"), "--classes 'bare head' face mask."),
    ],
)
def test_the_refusal_of_an_honest_class_names_the_flag_that_settles_it(lay, names, flag):
    root = lay(*names)
    assert error(root).endswith(flag)
    assert sorted(read_folder(root, DataSettings(classes=tuple({name.split("/")[0] for name in names}))).ids) == sorted(
        names
    )


def test_a_mask_of_nearly_the_right_name_is_refused_with_the_right_one(lay):
    message = error(lay("a/Image/001.png", "a/Mask/1.png", "b/1.png"))
    assert "a/Mask/1.png" in message
    assert "masks/007.png for images/007.png" in message


def test_what_systems_leave_behind_is_no_class_and_no_image(lay):
    root = lay("a/1.png", "b/1.png", "@eaDir/x/SYNOPHOTO_THUMB_M.jpg", "a/@eaDir/1.png/SM.jpg", "#recycle/a/2.png")
    (root / "Thumbs.db").touch()
    table = read_folder(root, AUTO)
    assert table.ids.tolist() == ["a/1.png", "b/1.png"]
    assert notes(table) == {
        "system_folders": "Folders of a system or program were not entered: #recycle (1), @eaDir (2)."
    }


def test_links_back_are_no_classes(lay):
    root = lay("a/1.png", "b/1.png", "far/c/1.png")
    for name in ("back", "a/back"):
        (root / name).symlink_to(root, target_is_directory=True)
    (root.parent / "away").mkdir()
    (root / "far").rename(root.parent / "away" / "far")
    (root / "c").symlink_to(root.parent / "away" / "far" / "c", target_is_directory=True)
    table = read_folder(root, AUTO)
    assert table.ids.tolist() == ["a/1.png", "b/1.png", "c/1.png"]
    assert table.task.classes == ("a", "b", "c")
    assert notes(table)["circular_links"].endswith("were not followed: back, a/back.")
    (root / "twin").symlink_to(root / "a", target_is_directory=True)
    assert "The classes a and twin in" in error(root)


def test_a_pipe_among_images_is_set_aside_by_name(lay):
    root = lay("a/1.png", "b/1.png")
    os.mkfifo(root / "a" / "2.png")
    table = read_folder(root, AUTO)
    with pytest.raises(UnreadableImage, match="it is a named pipe, not a file"):
        table.reader.read(table.ids.tolist().index("a/2.png"))


def test_order_of_classes_is_the_users(lay):
    root = lay("mild/1.png", "severe/1.png", "none/1.png")
    wanted = ("none", "mild", "severe")
    table = read_folder(root, DataSettings(classes=wanted, task="ordinal"))
    assert table.task.classes == wanted
    assert table.task.kind == "ordinal"
    assert dict(zip(table.ids.tolist(), table.targets.tolist(), strict=True)) == {
        "none/1.png": 0,
        "mild/1.png": 1,
        "severe/1.png": 2,
    }
    message = error(root, DataSettings(classes=("none", "mild", "sever")))
    assert "'severe', which is not among the classes given: none, mild, sever. Did you mean sever?" in message
    assert "no image of 'fatal'" in error(root, DataSettings(classes=(*wanted, "fatal")))


def test_grades_without_visible_order_must_be_named(lay):
    root = lay("mild/1.png", "none/1.png", "severe/1.png")
    assert "names do not show their order" in error(root, DataSettings(task="ordinal"))
    assert read_folder(root, AUTO).task.kind == "multiclass"


def test_numbers_are_ordered_by_value(lay):
    root = lay("10/1.png", "-1/1.png", "2/1.png")
    assert read_folder(root, DataSettings(task="ordinal")).task.classes == ("-1", "2", "10")


def test_several_labels_need_a_table(lay):
    assert "CSV table with columns path and label" in error(lay("a/1.png", "b/1.png"), DataSettings(task="multilabel"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "scans does not exist"),
        (("./",), "holds no class folders and no images. Lay it out as"),
        (("1.png", "2.png"), r"Images lie directly in .*scans \(1.png, 2.png\), so their class is unknown. Lay it"),
        (("a/1.png", "b/1.png", "stray.png"), r"Images lie directly in .*scans \(stray.png\)"),
        (("train/1.png", "train/a/2.png"), r"Images lie directly in .*train \(1.png\)"),
        (("a/1.png", "a/2.png"), "has only one class, 'a'"),
        (("otoscopy/a/1.png", "otoscopy/b/1.png"), r"the folders inside it \(a, b\) are the classes, pass .*otoscopy"),
        (("a/1.png", "b/", "c/"), r"Class folders without any image in .*: b, c. Fill them or remove them"),
        (("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/"), r"without any image in .*: test/b"),
        (("a/", "b/"), r"holds no images: its class folders \(a, b\) have no file ending in \.png"),
        (("train/a/1.png", "train/b/1.png", "test/c/1.png"), "has 'c' in its test split but not among its training"),
        (("train/a/1.png", "train/b/1.png", "val/c/1.png"), "has 'c' in its val split but not among its training"),
        (("train/a/1.png", "other/1.png"), r"split folders and others beside them \(other\)"),
        (("val/a/1.png", "Valid/a/1.png"), "val and Valid in .* both mean val; merge them"),
        (
            ("a/train/1.png", "a/test/1.png", "b/train/1.png"),
            "holds the split folders test, train, below where a class",
        ),
        (("train/", "test/"), "split folders in .* hold no class folders"),
        (("Normal/1.png", "normal/1.png"), "differ only in case"),
    ],
)
def test_unclear_layouts_are_explained(lay, tmp_path, names, message):
    root = lay(*names) if names else tmp_path / "scans"
    if len(list(root.glob("*"))) < len({name.split("/")[0] for name in names if name != "./"}):
        pytest.skip("this file system does not tell upper case from lower")
    assert re.search(message, error(root))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "scans.zip").touch()
    assert "is not a folder" in error(tmp_path / "scans.zip")


def test_real_folder_with_given_test(real_data):
    table = read_folder(real_data("otoscopy"), AUTO)
    assert table.task.classes == ("Chronic otitis media", "Earwax plug", "Myringosclerosis", "Normal")
    assert Counter(table.splits.tolist()) == {"train": 720, "test": 160}
    assert set(np.unique(table.targets, return_counts=True)[1]) == {220}


def test_real_folder_with_masks(real_data):
    table = read_folder(real_data("breast_ultrasound"), AUTO)
    assert Counter(table.targets.tolist()) == {0: 49, 1: 50, 2: 50}
    assert not any("mask" in name for name in table.ids)
    for row in (0, 60, 120):
        mask = table.reader.read_mask(int(table.rows[row]))
        assert mask.shape == table.reader.read(int(table.rows[row])).shape[:2]
        assert mask.any() == (table.task.classes[table.targets[row]] != "normal")
    assert [len(masks) for masks in table.reader.masks].count(2) == 2


def test_real_folder_with_mixed_files(real_data):
    """Grey, RGB, RGBA and palette images; PNG files called .jpg."""
    table = read_folder(real_data("brain_mri"), AUTO)
    assert Counter(table.targets.tolist()) == {0: 98, 1: 155}
    for row in table.rows:
        pixels = table.reader.read(int(row))
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] in ((), (3,))
