import json
from dataclasses import replace

import numpy as np
import pytest

from stillroom.data.audit import LISTED, Audit, audit_data, audit_lines
from stillroom.data.duplicates import DuplicatePairs, find_duplicates
from stillroom.data.store import Quarantined, build_store
from stillroom.data.table import Finding
from stillroom.task import MultiClass, MultiLabel


@pytest.fixture
def audit(make_table, tmp_path):
    def audit(images, pairs=None, quarantined=(), dropped=0, size=32, stamp="", **columns):
        table = make_table(images, stamp=f"{stamp} {columns}", **columns)
        store, table, broken = build_store(table, size=size, fit="pad", cache=tmp_path, progress=False)
        return audit_data(table, store, [*broken, *quarantined], pairs or find_duplicates(store), dropped=dropped)

    return audit


def codes(audit, level="warning"):
    return [finding.code for finding in audit.warnings if finding.level == level]


def test_leaks_and_conflicts_are_listed_with_names(audit, scene):
    brighter = (scene(1).astype(int) + 15).clip(0, 255).astype(np.uint8)
    images = [scene(0), scene(1), scene(2), brighter, scene(0), scene(0), scene(3)]
    found = audit(
        images,
        splits=["train", "train", "train", "val", "test", "train", "test"],
        targets=[0, 1, 0, 1, 1, 0, 0],
    )
    kinds = [(pair.first, pair.second, pair.kind) for pair in found.cross_split_duplicates]
    assert kinds == [
        ("image0.png", "image4.png", "exact"),
        ("image4.png", "image5.png", "exact"),
        ("image1.png", "image3.png", "near"),
    ]
    first = found.to_dict()["cross_split_duplicates"][0]
    assert first == {
        "first": "image0.png",
        "second": "image4.png",
        "first_split": "train",
        "second_split": "test",
        "first_label": "ill",
        "second_label": "well",
        "kind": "exact",
        "similarity": 1.0,
    }
    assert found.leaked["test"] == {"exact": 1, "images": 1}
    assert found.leaked["train"] == {"exact": 2, "images": 3}
    assert found.within_split_duplicates["train"] == {"exact": 1, "near": 0, "moved": 0}
    assert {(pair.first, pair.second) for pair in found.label_conflicts} == {
        ("image0.png", "image4.png"),
        ("image4.png", "image5.png"),
    }
    text = {finding.code: finding.text for finding in found.warnings}
    assert "1 of the 2 test images are found again" in text["duplicates_across_splits"]
    assert "image0.png (ill) and image4.png (well)" in text["label_conflicts"]


def test_a_clean_set_has_nothing_to_warn_of(audit, scene):
    splits = np.repeat(["train", "val", "test"], [40, 20, 20])
    found = audit([scene(seed, 40, 40) for seed in range(80)], splits=splits, patients=[f"p{i}" for i in range(80)])
    assert codes(found) == []
    assert "Nothing to warn of." in audit_lines(found)
    assert found.patients == 80


def test_what_the_source_had_to_say_is_part_of_the_audit(make_table, scene, tmp_path):
    said = (Finding("note", "column_guessed", "said"), Finding("warning", "passed_over", "warned"))
    table = replace(make_table([scene(0), scene(1)], splits=["train", "test"]), findings=said)
    store, table, _ = build_store(table, size=32, fit="pad", cache=tmp_path, progress=False)
    found = audit_data(table, store, [], find_duplicates(store))
    assert set(said) <= set(found.warnings)
    assert "Warning: warned" in audit_lines(found)


@pytest.mark.parametrize("task", [MultiClass(("a", "b")), MultiLabel(("a", "b"))])
def test_a_set_without_any_pair(audit, scene, task):
    targets = np.array([[0, 1], [1, 0]], np.uint8) if task.kind == "multilabel" else [0, 1]
    found = audit([scene(0), scene(1)], splits=["train", "test"], targets=targets, task=task)
    assert found.cross_split_duplicates == found.label_conflicts == ()


def test_patients_on_two_sides(audit, scene):
    images = [scene(seed) for seed in range(6)]
    splits = ["train", "train", "val", "test", "test", "test"]
    found = audit(images, splits=splits, patients=["a", "b", "b", "a", "c", ""])
    assert [(one.patient, one.splits, one.images) for one in found.patients_on_two_sides] == [
        ("a", {"train": 1, "test": 1}, 2),
        ("b", {"train": 1, "val": 1}, 2),
    ]
    assert "patients_on_two_sides" in codes(found)
    assert "patients_partly_unknown" in codes(found, "note")
    assert found.patients == 3
    unknown = audit(images, splits=splits)
    assert unknown.patients is None
    assert "patients_unknown" in codes(unknown, "note")


def test_small_and_missing_classes(audit, scene):
    splits = np.repeat(["train", "val", "test"], [42, 20, 12])
    targets = np.concatenate([np.repeat([0, 1], [21, 21]), np.repeat([0, 1], [9, 11]), np.zeros(12, int)])
    task = MultiClass(("none", "mild", "severe"))
    found = audit([scene(seed, 20, 20) for seed in range(74)], splits=splits, targets=targets, task=task)
    assert found.class_counts["val"] == {"none": 9, "mild": 11, "severe": 0}
    assert [(cell.split, cell.name, cell.images) for cell in found.small_classes] == [("val", "none", 9)]
    missing = {(cell.split, cell.name) for cell in found.missing_classes}
    assert missing == {("train", "severe"), ("val", "severe"), ("test", "severe"), ("test", "mild")}
    assert codes(found) == ["missing_classes", "small_classes"]


def test_multi_label_counts_labels(audit, scene):
    targets = np.array([[1, 1], [0, 0], [1, 0], [1, 0]], np.uint8)
    found = audit(
        [scene(0), scene(1), scene(0), scene(3)],
        splits=["train", "train", "test", "test"],
        targets=targets,
        task=MultiLabel(("fluid", "air")),
    )
    assert found.class_counts == {"train": {"fluid": 1, "air": 1}, "test": {"fluid": 2, "air": 0}}
    (pair,) = found.label_conflicts
    assert (pair.first_label, pair.second_label) == ("fluid;air", "fluid")


def test_pixels_and_broken_files(audit, scene):
    images = [scene(0, 20, 30), scene(1, 64, 64)[..., 0].astype(np.uint16) * 200, "torn", scene(2, 50, 50)]
    found = audit(images, quarantined=[Quarantined("lost.png", "the file does not exist")])
    assert found.quarantined == (
        {"path": "image2.png", "reason": "torn"},
        {"path": "lost.png", "reason": "the file does not exist"},
    )
    assert found.image_sizes == {
        "min": [20, 30],
        "median": [50, 50],
        "max": [64, 64],
        "non_square": 1,
        "enlarged": 1,
    }
    assert (found.bit_depth, found.channels, found.images) == (16, 3, 3)
    assert {"quarantined", "mixed_bit_depths"} <= set(codes(found))
    assert {"non_square", "enlarged"} <= set(codes(found, "note"))


def test_blank_images_are_counted_by_class(audit, scene):
    images = [scene(seed, 24, 24) for seed in range(40)]
    for row in (0, 2, 4):  # class ill
        images[row] = np.full((24, 24), 40 * row, np.uint8)
    images[1] = np.full((24, 24, 3), (90, 10, 10), np.uint8)
    images[1][3, 3] = (92, 9, 10)  # what JPEG leaves
    found = audit(images)
    assert found.blank == ("image0.png", "image1.png", "image2.png", "image4.png")
    text = {one.code: one.text for one in found.warnings}["blank_images"]
    assert "4 images are blank" in text
    assert "by class: ill 3, well 1" in text
    assert "Most are" not in text
    images[1] = scene(1, 24, 24)
    for row in range(0, 16, 2):
        images[row] = np.zeros((24, 24), np.uint8)
    text = {one.code: one.text for one in audit(images, splits=["train"] * 40).warnings}["blank_images"]
    assert "by class: ill 8. " in text
    assert "Most are ill" in text  # eight of eight where half are ill: below .01
    images[3][0, 0] += 60
    assert audit(images[1:2] + images[3:4] * 2, targets=[0, 1, 1]).blank == ()


def test_few_bright_pixels_are_named(audit, scene):
    images = [scene(seed, 24, 24)[..., 0].astype(np.uint16) * 12 for seed in range(4)]
    assert not {"hot_pixels", "white_of_few"} & set(codes(audit(images)))
    images[3][0, :2] = 65535
    found = audit(images, splits=["train"] * 4)
    text = {one.code: one.text for one in found.warnings}["hot_pixels"]
    assert text.startswith("2 pixels of 1 image (image3.png) are brighter than 4095")
    assert [(one.path, one.pixels) for one in found.clipped] == [("image3.png", 2)]
    assert found.bit_depth == 16


def test_an_image_that_says_alone_what_white_is_is_named(audit, scene):
    images = [scene(seed, 24, 24)[..., 0].astype(np.uint16) * 12 for seed in range(4)]
    images[1] *= 20
    found = audit(images)
    text = {one.code: one.text for one in found.warnings}["white_of_few"]
    assert "1 image alone (image1.png): the other 3 hold nothing above 4095 and are shown in the lowest 6%" in text
    assert "white_of_few" not in codes(audit(images[:2]))  # one of two is no exception
    images[2] *= 20  # nor two of four
    assert "white_of_few" not in codes(audit(images, splits=["train"] * 4))


def test_a_mark_on_every_film_that_darkens_them_all_is_told(audit, scene):
    """Twelve bits under a mark of sixteen that is more than a handful of pixels."""
    films = [scene(seed, 96, 96)[..., 0].astype(np.uint16) * 12 for seed in range(4)]
    marked = [film.copy() for film in films]
    for film in marked:
        film[2:5, 2:5] = 65535
    text = {one.code: one.text for one in audit(marked).warnings}["low_contrast"]
    assert "of the range from black (0) to white (65535)" in text
    assert "Only copies that are equal pixel for pixel can be found" in text
    for light in (films, [film * 16 for film in films], [(film // 16).astype(np.uint8) for film in films]):
        assert "low_contrast" not in codes(audit(light, stamp=light[0].max()))


@pytest.mark.parametrize(("factor", "offset"), [(6, 32768), (2, 32768), (-12, 65535), (1, 0)])
def test_contrast_that_is_lost_anywhere_in_the_range_is_told(audit, scene, factor, offset):
    """CT with an offset; twelve bits inverted in sixteen. Such images are not blank, and 10 bits from 0 are well shown."""
    films = [(scene(seed, 24, 24)[..., 0].astype(int) * factor + offset).astype(np.uint16) for seed in range(6)]
    found = audit(films, size=16)
    assert found.blank == ()
    assert ("low_contrast" in codes(found)) == bool(offset)


def test_a_mark_on_a_quarter_of_the_films_that_darkens_the_rest_is_told(audit, scene):
    films = [scene(seed, 24, 24)[..., 0].astype(np.uint16) * 12 for seed in range(8)]
    for film in films[::4]:
        film[:5, :5] = 65535
    assert "low_contrast" in codes(audit(films, size=16))


def test_films_without_contrast_are_no_copies_of_one_another(audit, scene):
    films = [scene(seed, 24, 24)[..., 0].astype(np.uint16) * 12 for seed in range(8)]
    for film in films:
        film[:, 0] = 65535
    found = audit([*films, films[0]], targets=[0] * 9, splits=["train"] * 9)
    assert found.within_split_duplicates["train"] == {"exact": 1, "near": 0, "moved": 0}


def test_images_of_hardly_any_levels_and_black_backgrounds(audit, scene):
    flat = [scene(seed, 24, 24)[..., 0] // 40 for seed in range(4)]
    assert "Save them in the whole range" in {one.code: one.text for one in audit(flat).warnings}["low_contrast"]
    cells = [np.pad(scene(seed, 16, 16)[..., 0], 40) for seed in range(4)]  # 97 of 100 pixels are black
    assert "low_contrast" not in codes(audit(cells, stamp="cells"))


def test_a_set_that_is_wholly_blank_is_not_told_to_leave_them_out(audit):
    found = audit([np.full((8, 8), 90 + seed, np.uint8) for seed in range(4)])
    text = {one.code: one.text for one in found.warnings}["all_blank"]
    assert text.startswith("All 4 images are blank")
    assert not {"blank_images", "low_contrast"} & set(codes(found))


@pytest.mark.parametrize(("least", "blank"), [(2, True), (3, False)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blank_is_two_counts_whatever_the_bits(audit, scene, dtype, least, blank):
    page = np.full((8, 8), 100, dtype)
    page[4:] += least
    assert (audit([page, scene(0)[..., 0].astype(dtype)], stamp=dtype).blank == ("image0.png",)) == blank


def test_white_that_no_image_is_left_to_say(make_table, scene, tmp_path):
    images = [scene(seed, 24, 24)[..., 0].astype(np.uint16) * 12 for seed in range(4)]
    images[1] *= 20
    store, table, _ = build_store(make_table(images), size=32, fit="pad", cache=tmp_path, progress=False)
    rows = np.array([0, 2, 3])
    part, some = store.take(rows), table.take(rows)
    assert "white_of_few" not in codes(audit_data(some, part, [], find_duplicates(part)))


def test_scaled_masks_are_told(audit, scene):
    masks = [np.ones((12, 12), bool), np.ones((24, 24), bool), None]
    found = audit([scene(seed, 24, 24) for seed in range(3)], masks=masks)
    text = {one.code: one.text for one in found.warnings}["scaled_masks"]
    assert text.startswith("1 mask (image0.png)")


def test_masks_that_mark_nothing_or_everything_are_counted(audit, scene):
    half = np.arange(24) < 12
    masks = [np.zeros((24, 24), bool), np.ones((24, 24), bool), np.zeros((24, 24), bool), half & np.ones((24, 1), bool)]
    texts = [one.text for one in audit([scene(seed, 24, 24) for seed in range(4)], masks=masks).warnings]
    assert any(text.startswith("2 masks of 4 (image0.png, image2.png) are all black") for text in texts)
    assert any(text.startswith("1 mask of 4 (image1.png) is wholly white") for text in texts)


def test_an_older_audit_is_read(audit, scene):
    content = audit([scene(0), scene(1)]).to_dict()
    older = {key: value for key, value in content.items() if key not in ("blank", "clipped", "shortcuts")}
    assert Audit.from_dict(older) == Audit.from_dict(content)


def test_phantoms_and_dropped_rows_are_named(audit, scene):
    found = audit([scene(0), scene(1)], synthetic=True, dropped=7)
    assert found.to_dict()["synthetic"] is True
    assert {"synthetic", "dropped_leaks"} <= set(codes(found, "note"))
    assert found.dropped == 7


def test_json_comes_back_whole(audit, scene):
    images = [scene(0), scene(0), "torn", scene(1)]
    found = audit(images, splits=["train", "test", "val", "test"], patients=["a", "a", "", "b"])
    assert found.cross_split_duplicates
    assert found.patients_on_two_sides
    assert Audit.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_long_lists_are_cut_in_json_alone(audit, scene):
    splits = ["train"] * 40 + ["test"] * 40
    first, second = (side.ravel() for side in np.meshgrid(np.arange(40), np.arange(40, 80)))
    pairs = DuplicatePairs(first, second, np.zeros(1600, bool), np.full(1600, 0.99))
    found = audit([scene(seed, 16, 16) for seed in range(80)], pairs=pairs, splits=splits)
    content = found.to_dict()
    assert len(found.cross_split_duplicates) == 1600
    assert len(content["cross_split_duplicates"]) == LISTED
    assert content["totals"]["cross_split_duplicates"] == 1600
    assert "1,600 pairs" in content["warnings"][0]["text"]
    assert any("1,595 pairs more" in line for line in audit_lines(found))


def test_the_text_fits_a_terminal(audit, scene):
    task = MultiClass(tuple(f"class {number}" for number in range(30)))
    images = [scene(seed % 9, 20, 24) for seed in range(60)] + ["torn"] * 5
    splits = (["train", "val", "test"] * 22)[:65]
    found = audit(images, splits=splits, targets=np.arange(65) % 30, task=task, patients=["p1", "p2"] * 32 + [""])
    assert len(audit_lines(found)) <= 25
    assert "and 22 more" in "\n".join(audit_lines(found))
