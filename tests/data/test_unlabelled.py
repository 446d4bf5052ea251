"""Images without labels: decoded like the others, and never those that validation or test show again."""

import numpy as np
import pytest
from PIL import Image

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
    found = load_unlabelled(tmp_path, table, dataset.store, show_progress=False)
    assert found.held_out == ("copy0.png", "copy1.png")  # the training image may stay
    assert len(found.store) == 7
    assert found.store.size == 32
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


def test_a_folder_without_use_is_refused(dataset, picture_folder, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        load_unlabelled(tmp_path / "none", dataset.table, dataset.store, show_progress=False)
    with pytest.raises(UsageError, match="holds no image"):
        load_unlabelled(tmp_path, dataset.table, dataset.store, show_progress=False)
    test = dataset.table.ids[dataset.table.splits == "test"][0]
    save(tmp_path, "only.png", np.asarray(Image.open(picture_folder / str(test))))
    with pytest.raises(UsageError, match="every image"):
        load_unlabelled(tmp_path, dataset.table, dataset.store, show_progress=False)
