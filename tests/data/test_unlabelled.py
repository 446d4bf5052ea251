"""Images without labels: decoded like the others, and never those that validation or test show again."""

import numpy as np
import pytest
from PIL import Image

from stillroom.data.geometry import as_stored
from stillroom.data.load import load_data
from stillroom.data.unlabelled import load_unlabelled
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings

SETTINGS = DataSettings(size=32)


@pytest.fixture
def dataset(picture_folder):
    return load_data(picture_folder, SETTINGS, show_progress=False)


def save(folder, name, pixels):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


def strangers(folder, count=6):
    rng = np.random.default_rng(9)
    for number in range(count):
        coarse = rng.integers(0, 255, (6, 6), dtype=np.uint8)
        save(
            folder, f"deep/{number}.png", np.asarray(Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC))
        )


def test_images_that_are_held_out_are_left_out(dataset, picture_folder, tmp_path):
    strangers(tmp_path)
    table = dataset.table
    held_out = [str(table.ids[np.flatnonzero(table.splits == split)[0]]) for split in ("val", "test", "train")]
    for number, name in enumerate(held_out):
        save(tmp_path, f"copy{number}.png", np.asarray(Image.open(picture_folder / name)))
    save(tmp_path, "deep/3_mask.png", np.eye(40, dtype=np.uint8))
    found = load_unlabelled(tmp_path, table, dataset.store, show_progress=False)
    assert found.held_out == ("copy0.png", "copy1.png")  # the training image may stay
    assert len(found.store) == 7
    assert found.store.size == 32
    assert found.to_dict()["notes"] == [f"Masks of images in {tmp_path} are left out: 1."]
    assert found.to_dict()["left_out_because_held_out"] == ["copy0.png", "copy1.png"]


def test_every_one_of_many_equal_copies_is_left_out(dataset, picture_folder, tmp_path):
    strangers(tmp_path)
    held_out = str(dataset.table.ids[dataset.table.splits == "test"][0])
    near = np.clip(np.asarray(Image.open(picture_folder / held_out)).astype(int) + 3, 0, 255).astype(np.uint8)
    for number in range(60):  # more than the search for near pairs lists
        save(tmp_path, f"copy{number}.png", near)
    found = load_unlabelled(tmp_path, dataset.table, dataset.store, show_progress=False)
    assert len(found.held_out) == 60
    assert len(found.store) == 6


def test_broken_files_are_named(dataset, tmp_path):
    strangers(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    found = load_unlabelled(tmp_path, dataset.table, dataset.store, show_progress=False)
    assert [row.id for row in found.quarantined] == ["broken.png"]
    assert len(found.store) == 6


@pytest.mark.parametrize("top", [900, 3000])
def test_white_is_that_of_the_labelled_images(tmp_path, top):
    """Darker films stay darker, those of 8 bits have their own full range, and what is brighter is set aside by name."""
    rng = np.random.default_rng(0)
    for number in range(12):
        film = rng.integers(0, 4096, (32, 32), dtype=np.uint16)
        save(tmp_path / "labelled", f"{'ab'[number % 2]}/{number}.png", film)
    dark, eight = rng.integers(0, top, (40, 32), dtype=np.uint16), rng.integers(0, 256, (32, 32), dtype=np.uint8)
    hot = dark.copy()
    hot[4, 5] = 65535
    films = {"dark.png": dark, "eight.png": eight, "hot.png": hot, "bright.png": dark * 20}
    for name, film in films.items():
        save(tmp_path / "more", name, film)
    dataset = load_data(tmp_path / "labelled", SETTINGS, show_progress=False)
    assert dataset.store.white == 4095
    found = load_unlabelled(tmp_path / "more", dataset.table, dataset.store, show_progress=False)
    (broken,) = found.quarantined
    assert (broken.id, "white is 4095" in broken.reason) == ("bright.png", True)
    for side in (32, 48):
        store = found.store_at(side, show_progress=False)
        assert (store.white, store.facts.clipped.tolist()) == (4095, [0, 0, 1])
        for row, film in enumerate([dark, eight, np.minimum(hot, 4095)]):
            expected = as_stored(film, side, "pad", colour=False, white=4095)
            np.testing.assert_array_equal(store.batch(np.array([row]))[0], expected)


def test_a_folder_without_use_is_refused(dataset, picture_folder, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        load_unlabelled(tmp_path / "none", dataset.table, dataset.store, show_progress=False)
    with pytest.raises(UsageError, match="holds no image"):
        load_unlabelled(tmp_path, dataset.table, dataset.store, show_progress=False)
    test = dataset.table.ids[dataset.table.splits == "test"][0]
    save(tmp_path, "only.png", np.asarray(Image.open(picture_folder / str(test))))
    with pytest.raises(UsageError, match="every image"):
        load_unlabelled(tmp_path, dataset.table, dataset.store, show_progress=False)
