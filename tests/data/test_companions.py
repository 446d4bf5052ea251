"""Masks beside images are known by folder and name together; a name alone makes nothing a mask."""

from pathlib import Path

import pytest

from stillroom.data.companions import find_masks

TOP = Path("class")


def found(*names):
    """Masks by image, lone and unclear files, all as text below the class."""
    companions = find_masks({TOP: [TOP / name for name in names]})

    def text(paths):
        return [path.relative_to(TOP).as_posix() for path in paths]

    return {text([image])[0]: text(masks) for image, masks in companions.masks.items()}, *map(
        text, (companions.lone, companions.unclear)
    )


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        *(
            ("x.png", f"x{mark}.png")
            for mark in ("_mask", "_Mask", "-mask", ".mask", " mask", "_mask_1", "_mask2", "_masks")
        ),
        *(
            ("x.png", f"x{mark}.tif")
            for mark in ("_seg", "_segmentation", "-label", "_gt", "_annotation", "_ground_truth")
        ),
        ("x.png", "mask_x.png"),
        ("image_07.png", "mask_07.png"),
        ("07_img.png", "07_seg.png"),
        ("benign (1).png", "benign (1)_mask.png"),
        ("x.png", "x_seg_mask.png"),
        *(
            ("images/x.png", f"{folder}/x.png")
            for folder in (
                "mask",
                "masks",
                "Masks",
                "labels",
                "label maps",
                "GT",
                "seg",
                "segmentations",
                "annotations",
            )
        ),
        *(("img/x.jpg", f"{folder}/x.png") for folder in ("ground_truth", "Groundtruth", "lung masks", "masks_png")),
        ("JPEGImages/x.jpg", "SegmentationClass/x.png"),
        ("images/x.png", "masks/x_mask.png"),
        ("images/x.png", "masks/x_1.png"),
        ("images/image_7.png", "masks/mask_7.png"),
        ("x.png", "masks/x.png"),
        ("patient/7/images/x.png", "patient/7/masks/x.png"),
        ("images/7/x.png", "masks/7/x.png"),
        ("7/images/7.png", "7/masks/5f3a.png"),
    ],
)
def test_masks_of_an_image(image, mask):
    assert found(image, mask) == ({image: [mask]}, [], [])


def test_several_masks_and_a_mask_of_several():
    masks, lone, unclear = found("1.jpg", "1.png", "1_mask.png", "1_mask_1.png", "2.png")
    assert masks == {"1.jpg": ["1_mask.png", "1_mask_1.png"], "1.png": ["1_mask.png", "1_mask_1.png"]}
    assert lone == unclear == []
    assert found("images/1.png", "masks/1_1.png", "masks/1_2.png")[0] == {
        "images/1.png": ["masks/1_1.png", "masks/1_2.png"]
    }


@pytest.mark.parametrize(
    "names",
    [
        ("with_mask_1.jpg", "with_mask_2.jpg"),
        ("mask/1.png", "no_mask/1.png"),
        ("mask/1.png", "bare/1.png"),
        ("mask/a.png", "images/b.png", "images/c.png"),
        ("neutrophil_seg_1.png", "neutrophil_band_1.png"),
        ("unmasked_1.png", "1.png"),
        ("masked.png", "masked1.png"),
        ("gestalt.png", "gestaltgt.png"),
    ],
)
def test_a_name_alone_makes_no_mask(names):
    masks, lone, _ = found(*names)
    assert (masks, lone) == ({}, [])


def test_what_is_named_like_a_mask_without_one_is_told():
    assert found("with_mask_1.jpg", "with_mask_2.jpg")[2] == ["with_mask_1.jpg", "with_mask_2.jpg"]
    assert found("mask/a.png", "images/b.png", "images/c.png")[2] == ["mask/a.png"]
    assert found("cells_1.png", "unmasked_1.png")[2] == []


def test_what_is_a_mask_itself_has_none():
    masks, lone, unclear = found("x.png", "x_seg.png", "x_seg_mask.png")
    assert (masks, lone, unclear) == ({"x.png": ["x_seg.png", "x_seg_mask.png"]}, [], [])
    assert found("with_mask_1.png", "with_mask_1_mask.png")[0] == {"with_mask_1.png": ["with_mask_1_mask.png"]}


def test_a_mask_without_its_image_where_others_have_theirs_is_lone():
    assert found("1.png", "1_seg.png", "2_seg.png")[1:] == (["2_seg.png"], [])
    assert found("images/1.png", "masks/1.png", "masks/2.png")[1:] == (["masks/2.png"], [])
    assert found("1.png", "2_mask.png")[1:] == (["2_mask.png"], [])


def test_a_mask_that_may_be_of_two_images_is_lone():
    assert found("1.png", "images/1.png", "images/2.png", "masks/1.png", "masks/2.png")[1] == ["masks/1.png"]


def test_masks_are_not_sought_in_another_class():
    a, b = Path("a"), Path("b")
    files = {a: [a / "images/1.png"], b: [b / "images/2.png", b / "masks/1.png", b / "masks/2.png"]}
    companions = find_masks(files)
    assert dict(companions.masks) == {b / "images/2.png": (b / "masks/2.png",)}
    assert companions.lone == (b / "masks/1.png",)
