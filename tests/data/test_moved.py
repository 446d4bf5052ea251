"""Moved copies: what is planted is found, strangers are not, and turns are told by circular harmonics."""

import numpy as np
import pytest
from PIL import Image

from stillroom.data.audit import audit_data
from stillroom.data.disks import WHOLE, Disk, crops, harmonics, invariants, turned
from stillroom.data.duplicates import duplicate_groups, find_duplicates
from stillroom.data.fitting import agreement, coarsely, finely, first_fit, laid, passed
from stillroom.data.moved import SAME, find_moved
from stillroom.data.store import build_store


def thumbnail(image):
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(image)).convert("L").resize((32, 32), Image.Resampling.BICUBIC)
    )


def rotated(image, degrees, share):
    picture = Image.fromarray(image).rotate(degrees, resample=Image.Resampling.BICUBIC)
    height, width = image.shape[:2]
    side = [round(full * share) for full in (width, height)]
    left, top = (width - side[0]) // 2, (height - side[1]) // 2
    return np.asarray(picture.crop((left, top, left + side[0], top + side[1])))


MOVES = {
    "quarter turn": lambda image: np.rot90(image),
    "half turn": lambda image: np.rot90(image, 2),
    "mirrored": lambda image: image[:, ::-1],
    "turned and mirrored": lambda image: np.rot90(image)[:, ::-1],
    "cropped to 90 %": lambda image: image[12:-6, 2:-10],
    "cropped to 75 %": lambda image: image[40:-8, 10:-38],
    "cropped and turned": lambda image: np.rot90(image[20:-8, 6:-24], 3),
    "turned by 20 degrees": lambda image: rotated(image, 20, 0.78),
}


@pytest.mark.parametrize("move", MOVES)
def test_moved_copies_are_found_among_strangers_and_nothing_else(scene, move):
    pictures = [scene(seed, 192, 192) for seed in range(24)]
    copies = [MOVES[move](picture) for picture in pictures[::4]]
    pairs, similarity = find_moved(np.stack([thumbnail(image) for image in pictures + copies]))
    assert pairs.tolist() == [[4 * number, 24 + number] for number in range(6)]
    assert (similarity >= SAME).all()


def test_films_of_one_anatomy_are_strangers_however_they_lie(scene):
    """Turning and cropping strangers must not make them alike: they share a strong structure and differ in detail."""
    anatomy = scene(0, 128, 128)[..., 0].astype(float)
    films = [anatomy + 0.3 * (scene(seed, 128, 128)[..., 1] - 70.0) for seed in range(1, 41)]
    films = [film.clip(0, 255).astype(np.uint8) for film in films]
    films = [np.rot90(film, number % 4) if number % 2 else film[8:-4, 4:-8] for number, film in enumerate(films)]
    shown = np.stack([thumbnail(film) for film in films])
    assert find_moved(shown)[0].tolist() == []
    copy = thumbnail(films[7][::-1])
    assert find_moved(np.concatenate([shown, copy[None]]))[0].tolist() == [[7, 40]]


def test_empty_frames_and_tiny_sets_give_nothing(scene):
    frames = np.stack([np.full((32, 32), shade, np.uint8) for shade in (0, 3, 200)])
    for shown in (frames, frames[:0], frames[:1], np.concatenate([frames, thumbnail(scene(0))[None]])):
        pairs, similarity = find_moved(shown)
        assert pairs.shape == (0, 2)
        assert similarity.shape == (0,)


def test_a_mirrored_copy_across_splits_is_told_and_kept_in_one_group(make_table, scene, tmp_path):
    images = [scene(seed, 96, 120) for seed in range(12)]
    images.append(np.ascontiguousarray(images[3][:, ::-1]))
    splits = ["train"] * 8 + ["test"] * 5
    table = make_table(images, splits=splits)
    store, table, _ = build_store(table, size=32, fit="pad", cache=tmp_path, progress=False)
    pairs = find_duplicates(store)
    assert list(zip(pairs.first, pairs.second, pairs.kinds, strict=True)) == [(3, 12, "moved")]
    group = duplicate_groups(pairs, 13)
    assert group[3] == group[12]
    audit = audit_data(table, store, [], pairs)
    assert [pair.kind for pair in audit.cross_split_duplicates] == ["moved"]
    (text,) = [finding.text for finding in audit.warnings if finding.code == "duplicates_across_splits"]
    assert text.startswith(
        "1 pair of identical or near-identical images stand in different splits (1 turned, mirrored or"
    )
    # A part may lack what the whole is named after, so that two labels are no contradiction.
    assert audit.label_conflicts == ()


# -- disks ------------------------------------------------------------------------------------------------------------
def test_no_turn_and_no_mirror_changes_the_invariants(scene):
    shown = thumbnail(scene(1, 128, 128))
    others = np.stack([np.rot90(shown, number) for number in range(4)] + [shown[:, ::-1], shown[::-1], shown.T])
    found = invariants(harmonics(others, WHOLE))
    assert found == pytest.approx(np.broadcast_to(found[0], found.shape), abs=1e-5)
    strange = invariants(harmonics(thumbnail(scene(2, 128, 128))[None], WHOLE))
    assert np.abs(strange - found[0]).max() > 0.05


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("mirror", [False, True])
def test_turns_are_told_and_the_first_fit_undoes_them(scene, number, mirror):
    shown = thumbnail(scene(1, 128, 128))
    other = np.rot90(shown[::-1] if mirror else shown, number)
    one, two = harmonics(shown[None], WHOLE), harmonics(np.ascontiguousarray(other)[None], WHOLE)
    angle, mirrored, alike = turned(one, two)
    assert (bool(mirrored[0]), alike[0]) == (mirror, pytest.approx(1, abs=1e-4))
    picture, inside = laid(shown[None].astype(np.float32), first_fit([WHOLE], angle, mirrored))
    assert inside.all()
    assert picture[0] == pytest.approx(other, abs=0.5)


def test_squares_lie_inside_and_cover_what_is_promised():
    found = crops()
    assert (len(found), found[0]) == (55, WHOLE)
    for disk in found:
        for centre in (disk.down, disk.right):
            assert -0.5 - 1e-6 <= centre - disk.half <= centre + disk.half <= 31.5 + 1e-6
    assert min(disk.half for disk in found) == pytest.approx(0.72 * 16)


# -- fitting ----------------------------------------------------------------------------------------------------------
def test_a_known_crop_is_fitted_from_a_square_beside_it(scene):
    whole = scene(5, 256, 256)[..., 0]
    part = whole[40:232, 48:240]  # 0.75 of each side
    first, second = (thumbnail(image)[None].astype(np.float32) for image in (whole, part))
    start = first_fit([Disk(17.6, 15.0, 0.72 * 16)], np.zeros(1), np.zeros(1, bool))
    fits, _ = coarsely(passed(first), passed(second), start)
    fits = finely(first, passed(second), fits)
    expected = [[0.75, 0, (40 + 96) / 8 - 0.5], [0, 0.75, (48 + 96) / 8 - 0.5]]
    assert fits[0] == pytest.approx(np.array(expected), abs=0.15)
    assert fits[0, :, :2] == pytest.approx(0.75 * np.eye(2), abs=0.02)
    assert agreement(first, second, fits)[0] > 0.97 > agreement(first, second, start)[0]


def test_partial_agreement_is_that_of_what_a_regression_leaves(scene):
    first, second, common = (thumbnail(scene(seed, 96, 96))[None].astype(np.float32) for seed in (1, 2, 3))
    fit = first_fit([WHOLE], np.zeros(1), np.zeros(1, bool))
    rows = [passed(one).ravel() - passed(one).mean() for one in (first, second, common)]
    left = [row - rows[2] * (row @ rows[2]) / (rows[2] @ rows[2]) for row in rows[:2]]
    assert agreement(first, second, fit)[0] == pytest.approx(np.corrcoef(rows[0], rows[1])[0, 1], abs=1e-4)
    assert agreement(first, second, fit, common)[0] == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-3)
