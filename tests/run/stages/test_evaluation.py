import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from stillroom.data.duplicates import SIMILAR, find_pairs
from stillroom.data.load import load_data
from stillroom.run.stages.evaluation import _each_once
from stillroom.settings.sections import DataSettings

SHOWN = 20


@pytest.fixture
def data_with(tmp_path):
    """A data set of 20 test images: 7 is 2 saved again, 9 is the next frame of 4, 12 and 15 are strangers of each other."""

    def load(patients):
        rng = np.random.default_rng(0)
        pictures = gaussian_filter(rng.uniform(0, 255, (SHOWN + 4, 64, 64)), (0, 3, 3))
        pictures = (pictures - pictures.mean()) * 6 + 128
        pictures[7] = pictures[2] + rng.normal(0, 2, (64, 64))
        pictures[9] = shift(pictures[4], (0.8, 1.6), mode="nearest") + rng.normal(0, 24, (64, 64))
        names = [f"{number:02}.png" for number in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / name)
        splits = ["test"] * SHOWN + ["train", "train", "val", "val"]
        table = pd.DataFrame({"path": names, "label": ["ill", "well"] * (len(names) // 2), "split": splits})
        if patients:
            table["patient"] = [f"p{patients.get(number, number)}" for number in range(len(names))]
        table.to_csv(tmp_path / "table.csv", index=False)
        return load_data(tmp_path / "table.csv", DataSettings(size=64), cache=tmp_path / "cache", show_progress=False)

    return load


def kept(data, wrong):
    rows, more = _each_once(data.table, data.store, np.array(wrong, np.int64), data.table.indices("test"))
    return rows.tolist(), more.tolist()


def test_of_a_picture_the_surest_wrong_answer_is_kept_the_next_frame_of_a_film_included(data_with):
    data = data_with(None)
    pairs = find_pairs(data.store.digests[:SHOWN], data.store.thumbnails[:SHOWN], similar=0.9)
    alike = dict(zip(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True), pairs.similarity, strict=True))
    assert set(alike) == {(2, 7), (4, 9)}
    assert 0.95 < alike[4, 9] < SIMILAR  # no copy
    assert kept(data, [9, 12, 2, 4, 15, 7]) == ([9, 12, 2, 15], [1, 0, 1, 0])
    assert kept(data, []) == ([], [])


def test_of_a_patient_the_surest_wrong_answer_is_kept(data_with):
    data = data_with({15: 12, 18: 12})
    assert kept(data, [15, 1, 12, 2, 18, 7]) == ([15, 1, 2], [2, 0, 1])
