import io
import time

import numpy as np
import pytest
from PIL import Image

from stillroom.data.duplicates import SIMILAR, DuplicatePairs, duplicate_groups, find_duplicates
from stillroom.data.store import build_store


@pytest.fixture
def find(make_table, tmp_path):
    """Duplicates among images: ``{(first, second): kind}``."""

    def find(images):
        store = build_store(make_table(images), size=32, fit="pad", cache=tmp_path, progress=False)[0]
        pairs = find_duplicates(store)
        assert (pairs.first < pairs.second).all()
        assert (pairs.similarity[pairs.exact] == 1).all()
        assert (pairs.similarity[~pairs.exact] >= SIMILAR).all()
        return {(int(a), int(b)): str(kind) for a, b, kind in zip(pairs.first, pairs.second, pairs.kinds, strict=True)}

    return find


def jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(image, scale):
    return np.asarray(Image.fromarray(image).resize((int(image.shape[1] * scale), int(image.shape[0] * scale))))


COPIES = {
    "jpeg": lambda image: jpeg(image, 40),
    "smaller": lambda image: resized(image, 0.5),
    "larger and grey": lambda image: np.asarray(Image.fromarray(resized(image, 2.0)).convert("L")),
    "brighter": lambda image: (image.astype(int) + 20).clip(0, 255).astype(np.uint8),
    "less contrast": lambda image: (image * 0.85).astype(np.uint8),
    "cropped": lambda image: image[4:-2, 1:-6],
    "16 bit": lambda image: np.asarray(Image.fromarray(image).convert("L")).astype(np.uint16) * 257,
}


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_found_among_strangers_and_nothing_else(find, scene, change):
    originals = [scene(seed, 192, 240) for seed in range(40)]
    copies = [COPIES[change](image) for image in originals[::4]]
    expected = {(4 * number, 40 + number): "near" for number in range(10)}
    assert find(originals + copies) == expected


def test_a_much_darker_picture_is_not_called_the_same(find, scene):
    bright = scene(0).clip(100, 255)
    assert find([bright, (bright * 0.3).astype(np.uint8), *(scene(seed) for seed in range(1, 20))]) == {}


def test_exact_pairs_are_all_pairs_of_a_group(find, scene):
    images = [scene(seed) for seed in (0, 1, 0, 2, 0)]
    assert find(images) == {(0, 2): "exact", (0, 4): "exact", (2, 4): "exact"}


def test_a_near_copy_is_near_to_every_exact_copy(find, scene):
    first = scene(0)
    assert find([first, first, scene(1), jpeg(first, 60)]) == {(0, 1): "exact", (0, 3): "near", (1, 3): "near"}


def test_a_long_series_of_near_copies_is_listed_in_full(find, scene):
    series = [(scene(0).astype(int) + shade).clip(0, 255).astype(np.uint8) for shade in range(16)]
    assert len(find(series + [scene(seed) for seed in range(1, 20)])) == 16 * 15 // 2


def test_common_anatomy_is_no_copy(find, scene):
    """Films that share a strong common structure and differ in their own detail only: raw correlation says 0.97."""
    anatomy = scene(0, 128, 128)[..., 0].astype(float)
    films = [anatomy + 0.15 * (scene(seed, 128, 128)[..., 1] - 70.0) for seed in range(1, 40)]
    films = [film.clip(0, 255).astype(np.uint8) for film in films]
    raw = np.corrcoef([resized(film, 0.25).ravel() for film in films])
    assert np.median(raw) > 0.95
    copy = jpeg(films[7], 70)
    assert find([*films, copy]) == {(7, 39): "near"}


def test_empty_frames_are_equal_or_nothing(find, scene):
    frames = [np.full((50, 50), shade, np.uint8) for shade in (0, 0, 3, 200)]
    assert find([*frames, scene(0)]) == {(0, 1): "exact"}
    assert find([scene(0)]) == {}
    x = np.linspace(-1, 1, 50)
    vignettes = [(shade - 3 * x**2 - 3 * x[:, None] ** 2).astype(np.uint8) for shade in (20, 21)]
    assert find([*vignettes, *(scene(seed) for seed in range(20))]) == {}
    many = [np.zeros((8, 8), np.uint8)] * 300
    assert duplicate_groups_of(find(many), 300) == {0}


def duplicate_groups_of(found, n):
    rows = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    pairs = DuplicatePairs(rows[:, 0], rows[:, 1], np.ones(len(rows), bool), np.ones(len(rows)))
    return set(duplicate_groups(pairs, n).tolist())


def test_groups_follow_chains(find):
    first, second = np.array([0, 3, 5]), np.array([3, 4, 6])
    pairs = DuplicatePairs(first, second, np.zeros(3, bool), np.ones(3))
    group = duplicate_groups(pairs, 8)
    assert group.dtype == np.int64
    assert group[0] == group[3] == group[4]
    assert group[5] == group[6]
    assert len(np.unique(group)) == 8 - 3


def test_pairs_of_a_part_are_renumbered():
    pairs = DuplicatePairs(
        np.array([0, 1, 2]), np.array([3, 4, 4]), np.array([True, False, True]), np.array([1, 0.98, 1])
    )
    part = pairs.take(np.array([1, 2, 4]), 5)
    assert list(zip(part.first, part.second, part.exact, part.similarity, strict=True)) == [
        (0, 2, False, 0.98),
        (1, 2, True, 1.0),
    ]
    assert len(pairs.take(np.array([], dtype=np.int64), 5)) == 0


def test_strangers_alone_and_tiny_sets_give_nothing(find, scene):
    for count in (1, 2, 3, 20):
        assert find([scene(seed) for seed in range(count)]) == {}


@pytest.mark.prove
def test_many_images_take_no_quadratic_time(make_table, tmp_path):
    rng, seconds = np.random.default_rng(0), {}
    for count in (1_000, 4_000):
        noise = rng.integers(0, 255, (count, 8, 8), dtype=np.uint8)
        noise[-50:] = (noise[:50].astype(int) + rng.integers(-3, 4, (50, 8, 8))).clip(0, 255)
        store = build_store(make_table(list(noise)), size=8, fit="pad", cache=tmp_path / str(count), progress=False)[0]
        start = time.process_time()
        pairs = find_duplicates(store)
        seconds[count] = time.process_time() - start
        assert {(row, count - 50 + row) for row in range(50)} == set(
            zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
        )
    assert seconds[4_000] < 8 * seconds[1_000]  # 4 where time grows with the images, 16 with their pairs


def test_otoscopy_repeats_are_found(make_table, real_data, tmp_path):
    root = real_data("otoscopy")
    files = sorted(root.rglob("*.jpg"))
    images = [np.asarray(Image.open(file)) for file in files]
    store = build_store(make_table(images), size=32, fit="pad", cache=tmp_path, progress=False)[0]
    pairs = find_duplicates(store)
    test = np.array([file.relative_to(root).parts[0] == "test" for file in files])
    across = test[pairs.first] != test[pairs.second]
    # Confirmed on contact sheets of the pairs: look at the pictures before changing these numbers.
    assert (int(pairs.exact.sum()), int((across & pairs.exact).sum())) == (72, 68)
    seen = np.concatenate([pairs.first[across], pairs.second[across]])
    assert len(np.unique(seen[test[seen]])) == pytest.approx(82, abs=2)
    labels = np.array([file.parent.name for file in files])
    assert (labels[pairs.first] == labels[pairs.second]).all()


@pytest.mark.prove
def test_chest_films_of_different_children_are_not_copies(make_table, real_data, tmp_path):
    films = np.load(real_data("medmnist") / "pneumoniamnist.npz")["train_images"]
    store = build_store(make_table(list(films)), size=28, fit="pad", cache=tmp_path, progress=False)[0]
    pairs = find_duplicates(store)
    assert (int(pairs.exact.sum()), int((~pairs.exact).sum())) == (18, 0)
