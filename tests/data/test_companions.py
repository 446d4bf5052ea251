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
            ("7.png", f"7{mark}.png")
            for mark in ("mask", "_Mask_left", "_mask_1_2", "_Maske", "_masque", "_msk", "seg")
        ),
        *(("7/image.png", f"7/{name}.png") for name in ("mask", "label", "seg", "GT", "mask1")),
        ("7/img.png", "7/seg.png"),
        ("image.png", "mask.png"),
        *((f"{name}1.png", "mask1.png") for name in ("scan", "img", "IMG_", "")),
        ("images/IMG7.png", "masks/MASK7.png"),
        ("img/7.png", "msk/7.png"),
        ("7.png", "Masken/7.png"),
        ("7.png", "masque/7.png"),
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
        ("7.png", "7.png.mask.png"),
        ("7.jpg", "7.jpg_mask.png"),
        ("7.png", "mask/left/7.png"),
        ("images/7.png", "masks/right/7.png"),
        ("images/left/7.png", "masks/left/7.png"),
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
        ("face_mask.png", "1.png", "2.png", "3.png", "4.png"),
        ("mask.png", "1.png", "2.png", "3.png", "4.png"),
        ("seg1.png", "seg2.png", "seg3.png"),
        ("seg_1.png", "band_1.png", "seg_2.png", "band_2.png"),
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
    assert found("face_mask.png", *(f"{number}.png" for number in range(4)))[2] == ["face_mask.png"]
    assert found("face_mask.png", *(f"{number}.png" for number in range(3)))[1] == ["face_mask.png"]
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


def test_each_numbered_mask_has_its_own_image():
    names = [f"7/{kind}{number}.png" for kind in ("scan", "mask") for number in (1, 2)]
    assert found(*names) == ({f"7/scan{n}.png": [f"7/mask{n}.png"] for n in (1, 2)}, [], [])


def test_the_image_of_the_very_name_goes_before_another():
    assert found("1.png", "scan1.png", "mask1.png", "scan1_mask.png")[0] == {
        "1.png": ["mask1.png"],
        "scan1.png": ["scan1_mask.png"],
    }


@pytest.mark.parametrize(
    ("names", "lone"),
    [
        (("7/t1.png", "7/t2.png", "7/seg.png"), ["7/seg.png"]),
        (("7/a.png", "7/b.png", "7/mask3.png"), ["7/mask3.png"]),
        (("mask/a.png", "images/b.png", "images/c.png"), ["mask/a.png"]),
        (("images/in/x_1.png", "images/in/x_2.png", "masks/in/y_1.png"), ["masks/in/y_1.png"]),
    ],
)
def test_masks_that_go_with_no_image_are_lone(names, lone):
    assert found(*names) == ({}, lone, [])


@pytest.mark.parametrize(
    ("image", "other"),
    [
        *(("7.png", f"7_{word}.png") for word in ("roi", "lesion", "superpixels", "overlay", "ROI_2")),
        *(("7.png", f"{folder}/7.png") for folder in ("roi", "overlays")),
        ("images/7.png", "ROI/7.png"),
        ("7/image.png", "7/contour.png"),
    ],
)
def test_what_may_be_a_mask_or_a_crop_is_an_image_in_doubt(image, other):
    companions = find_masks({TOP: [TOP / image, TOP / other]})
    assert (dict(companions.masks), companions.lone, companions.doubtful) == ({}, (), (TOP / other,))


@pytest.mark.parametrize("names", [("7_lesion.png", "8.png"), ("lesion.png", "8.png"), ("roi/7.png", "8.png")])
def test_images_of_lesions_are_not_in_doubt(names):
    assert find_masks({TOP: [TOP / name for name in names]}).doubtful == ()


def test_a_long_chain_of_marks_costs_little():
    names = [f"x{'_gt' * count}.png" for count in range(60)]
    assert found(*names)[0] == {"x.png": names[1:]}
