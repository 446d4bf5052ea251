"""What is an image in a folder without classes, and what is said of the rest."""

import pytest
from PIL import Image

from stillroom.data.listing import ending_of, list_images, list_pictures


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "a_mask.png", "sub/images/b.jfif", "sub/masks/b.png", "sub/@eaDir/b.jfif/SM.jpg", "c.DIB"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name, format="PNG")
    return tmp_path


def test_masks_are_no_pictures_and_are_told(folder):
    pictures, notes = list_pictures(folder)
    assert [path.relative_to(folder).as_posix() for path in pictures] == ["a.png", "c.DIB", "sub/images/b.jfif"]
    assert notes == [f"Masks of images in {folder} are left out: 2."]
    assert len(list_images(folder)) == 5


def test_masks_in_doubt_are_named(tmp_path):
    for name in ("1/image.png", "1/mask.png", "2/mask.png", "3/image.png", "3/image_roi.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "2" / "t1.png").touch()
    (tmp_path / "2" / "t2.png").touch()
    pictures, notes = list_pictures(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in pictures] == [
        *("1/image.png", "2/t1.png", "2/t2.png", "3/image.png", "3/image_roi.png")
    ]
    assert notes == [
        f"Masks of images in {tmp_path} are left out: 1.",
        f"Masks without their image in {tmp_path} are left out: 2/mask.png.",
        f"Files in {tmp_path} that may be masks by their names are taken for images: 3/image_roi.png.",
    ]


def test_what_may_be_an_image_and_is_not_read_is_told(folder):
    for name in ("a_mask.png", "sub/masks/b.png"):
        (folder / name).unlink()
    for name in ("d.mha", "e.mha", "f", "notes.txt"):
        (folder / name).touch()
    assert list_pictures(folder)[1] == [
        f"Some files in {folder} are passed over, for such are not read: .mha, without an ending."
    ]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.DCM", ".dcm"),
        ("a.nii.gz", ".nii.gz"),
        ("a.b.svs", ".svs"),
        ("1.2.840.10008", ""),
        ("a", ""),
        ("a.b c", ".b c"),
    ],
)
def test_endings(tmp_path, name, ending):
    assert ending_of(tmp_path / name) == ending
