import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from stillroom.data.quality import by_quality, edges_of, learnt_rows, quality_of
from stillroom.data.store import build_store
from stillroom.data.table import Table
from stillroom.task import MultiClass

KERNEL = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])


class Arrays:
    def __init__(self, images):
        self.images = images

    def read(self, index):
        return self.images[index]

    def read_mask(self, index):
        return None

    def made_of(self, index):
        return f"quality{hash(self.images[index].tobytes())}"


def stored(images, tmp_path, size=32, fit="pad"):
    count = len(images)
    table = Table(
        name="toy",
        source="toy",
        task=MultiClass(("a", "b")),
        ids=np.array([str(n) for n in range(count)]),
        targets=np.zeros(count, dtype=np.int64),
        splits=np.array(["train"] * count),
        rows=np.arange(count),
        reader=Arrays(images),
    )
    return build_store(table, size=size, fit=fit, cache=tmp_path, progress=False)[0]


@pytest.mark.parametrize(("white", "dtype"), [(255, np.uint8), (65535, np.uint16)])
def test_each_figure_is_that_of_its_definition(tmp_path, white, dtype):
    generator = np.random.default_rng(0)
    images = [(generator.random((32, 32)) * white).astype(dtype) for _ in range(5)]
    images += [(gaussian_filter(generator.random((32, 32)), 2) * white).astype(dtype)]
    store = stored(images, tmp_path)
    found = quality_of(store, np.arange(6))
    for row, image in enumerate(images):
        grey = image / white
        curved = convolve(grey, KERNEL)[1:-1, 1:-1]
        assert found["sharpness"][row] == pytest.approx(curved.var(), rel=1e-4)
        assert found["contrast"][row] == pytest.approx(grey.std(), rel=1e-4)
        assert found["brightness"][row] == pytest.approx(grey.mean(), rel=1e-5)
        assert found["size"][row] == 32
    assert found["sharpness"][5] < found["sharpness"][:5].min() / 10


def test_colour_counts_as_grey_and_borders_do_not_count(tmp_path):
    generator = np.random.default_rng(1)
    colour = generator.integers(0, 256, (20, 40, 3), dtype=np.uint8)
    flat = np.full((40, 10), 200, dtype=np.uint8)
    store = stored([colour, flat, np.full((2, 64), 90, dtype=np.uint8)], tmp_path)
    found = quality_of(store, np.array([1, 0, 2]))
    assert found["size"].tolist() == [10, 20, 2]
    assert found["brightness"][0] == pytest.approx(200 / 255)
    assert found["contrast"][0] == pytest.approx(0, abs=1e-6)
    assert found["sharpness"][[0, 2]].tolist() == pytest.approx([0, 0], abs=1e-9)
    grey = store.batch(np.array([0]))[0, :, 8:24].transpose(1, 2, 0) @ [0.299, 0.587, 0.114] / 255
    assert found["contrast"][1] == pytest.approx(grey.std(), rel=1e-4)
    assert found["sharpness"][1] == pytest.approx(convolve(grey, KERNEL)[1:-1, 1:-1].var(), rel=1e-4)


def test_images_are_parted_into_thirds_of_those_that_were_learnt_from():
    learnt = {"sharpness": np.arange(90.0), "size": np.full(90, 28.0), "contrast": np.array([0.0] * 60 + [1.0] * 30)}
    edges = edges_of(learnt)
    assert edges["sharpness"] == pytest.approx((89 / 3, 2 * 89 / 3))
    assert edges["size"] == ()
    seen = {
        "sharpness": np.array([80.0, 5.0, 40.0, 70.0]),
        "size": np.full(4, 28.0),
        "contrast": np.array([0, 1.0, 0, 0]),
    }
    sharp, contrast = by_quality(seen, edges)
    assert (sharp.groups, sharp.members.tolist()) == (("blurred", "middling", "sharp"), [2, 0, 1, 2])
    assert (contrast.groups, contrast.members.tolist()) == (("low", "high"), [0, 1, 0, 0])


def test_a_sample_of_many_training_images_is_the_same_every_time():
    rows = np.arange(10_000)
    assert len(learnt_rows(rows)) == 3000
    assert np.array_equal(learnt_rows(rows), learnt_rows(rows))
    assert learnt_rows(np.array([4, 7])).tolist() == [4, 7]
