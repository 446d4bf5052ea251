"""Masks that no name tells are known by their pixels, and no picture is taken for one."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stillroom.data.masks_by_pixels import few_valued, find_masks_by_pixels
from stillroom.data.sources.folder import read_folder
from stillroom.data.store import build_store
from stillroom.settings.sections import DataSettings
from stillroom.task import MultiClass

PAIRS = 8


def disc(seed, values=(0, 255), side=96):
    """A mask: one value, another in a disc, a third in a smaller one."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    far = np.hypot(*(axis - centre for axis, centre in zip((y, x), rng.integers(35, 60, 2), strict=True)))
    mask = np.full((side, side), values[0], np.uint8)
    for radius, value in zip((22, 11), values[1:], strict=False):
        mask[far < radius] = value
    return mask


@pytest.fixture
def look(make_table, tmp_path):
    """``look(images, names, targets, size, **columns)``: names that are told as masks, and the findings."""

    def look(images, names, targets, size=48, **columns):
        table = replace(make_table(images, targets=targets, **columns), ids=np.array(names))
        cache = tmp_path / str(len(list(tmp_path.iterdir())))
        store, table, _ = build_store(table, size=size, fit="pad", cache=cache, progress=False)
        rows, found = find_masks_by_pixels(table, store)
        return table.ids[rows].tolist(), found

    return look


@pytest.fixture
def pairs(scene):
    """Pictures and masks by turns."""
    return [image for seed in range(PAIRS) for image in (scene(seed), disc(seed))]


TWO = np.arange(2 * PAIRS) // 2 % 2


@pytest.mark.parametrize(
    "pair", [("{0}.jpg", "{0}.png"), ("x/{0}.png", "y/{0}.png"), ("{0}.png", "{0}_m.png"), ("a{0}.png", "b{0}.tif")]
)
@pytest.mark.parametrize("size", [32, 64])
def test_masks_beside_pictures_of_their_names(look, pairs, pair, size):
    names = [f"{'ab'[row // 2 % 2]}/" + pair[row % 2].format(row // 2) for row in range(2 * PAIRS)]
    masks, (finding,) = look(pairs, names, TWO, size)
    assert masks == sorted(names[1::2], key=names.index)
    assert (finding.level, finding.code) == ("warning", "images_like_masks")
    assert finding.text.startswith(
        f"8 images look like masks, not pictures, beside pictures of their names or numbers, such as {names[1]} beside"
    )
    assert "by class: ill 4, well 4" in finding.text


def test_a_single_mask_is_told_by_the_very_name_alone(look, scene):
    pictures = [scene(seed) for seed in range(6)]
    masks, _ = look([*pictures, disc(0)], [*(f"a/{n}.png" for n in range(6)), "b/3.png"], [0] * 7)
    assert masks == ["b/3.png"]
    assert look([*pictures, disc(0)], [*(f"a/{n}.png" for n in range(6)), "b/no3.png"], [0] * 7) == ([], [])
    assert look([*pictures, disc(0)], [*(f"a/{n}.png" for n in range(6)), "b/3.png"], [0] * 6 + [1]) == ([], [])


@pytest.mark.parametrize("values", [(0, 128), (255, 0), (0, 255, 128), (20, 60)])
def test_masks_of_other_values(look, scene, values):
    images = [image for seed in range(4) for image in (scene(seed), disc(seed, values))]
    names = [f"{'xy'[row % 2]}/{row // 2}.png" for row in range(8)]
    assert look(images, names, [0, 0, 1, 1] * 2)[0] == names[1::2]


def test_masks_saved_as_jpeg_or_in_16_bits_or_colour(look, scene, tmp_path):
    def as_jpeg(mask):
        Image.fromarray(mask).save(tmp_path / "mask.jpg", quality=75)
        return np.asarray(Image.open(tmp_path / "mask.jpg"))

    red = [np.stack([disc(seed), disc(seed) * 0, disc(seed) * 0], axis=-1) for seed in range(4)]
    deep = [disc(seed).astype(np.uint16) * 257 for seed in range(4)]
    films = [scene(seed)[..., 0].astype(np.uint16) * 200 for seed in range(4)]
    names = [f"{'xy'[row % 2]}/{row // 2}.png" for row in range(8)]
    for pictures, masks in (
        (map(scene, range(4)), map(as_jpeg, map(disc, range(4)))),
        (map(scene, range(4)), red),
        (films, deep),
    ):
        images = [image for pair in zip(pictures, masks, strict=True) for image in pair]
        assert look(images, names, [0, 0, 1, 1] * 2)[0] == names[1::2]


def test_a_class_of_masks(look, pairs):
    names = [f"{'ab'[row % 2]}/{name}.png" for row, name in enumerate(np.random.default_rng(0).permutation(2 * PAIRS))]
    masks, (finding,) = look(pairs, names, np.arange(2 * PAIRS) % 2, task=MultiClass(("raw", "target")))
    assert masks == names[1::2]
    assert finding.code == "class_of_masks"
    assert "The images of target look like masks" in finding.text
    assert "--drop-class target" in finding.text


def test_pictures_are_no_masks(look, scene):
    """Blobs on black, blank pages, noise, frames with text, drawings of few values in every class: not one word."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    inside = np.hypot(y, x) < 0.6
    slices = [(inside * (90 + 80 * rng.random((96, 96)))).astype(np.uint8) for _ in range(8)]
    smooth = [
        (inside * 200 * (1 - y**2 * rng.uniform(0.5, 1) - x**2 * rng.uniform(0.5, 1))).clip(0, 255).astype(np.uint8)
        for _ in range(8)
    ]
    spots = [
        np.where(rng.random((96, 96)) < 0.01, rng.integers(30, 255, (96, 96)), 0).astype(np.uint8) for _ in range(8)
    ]
    blank = [np.full((96, 96), value, np.uint8) for value in (0, 255) * 4]
    cells = [np.where(scene(seed, 96, 96)[..., 0] > 70, 255, 0).astype(np.uint8) for seed in range(8)]
    names = [f"{kind}/{number}.png" for kind in "pq" for number in range(8)]
    for one in (slices, smooth, spots, blank):
        assert look([*map(scene, range(8)), *one], names, [0, 1] * 8) == ([], [])
    digits = [disc(seed) for seed in range(16)]
    assert look(digits, names, [0, 1] * 8) == ([], [])
    assert look([*cells, *digits[:8]], [f"{row}.png" for row in range(16)], [0, 1] * 8) == ([], [])


def test_real_pictures_are_no_masks_and_real_masks_are(look, real_data, tmp_path):
    table = read_folder(real_data("breast_ultrasound"), DataSettings())
    store, table, _ = build_store(
        table.take(np.arange(0, 148, 7)), size=64, fit="pad", cache=tmp_path / "s", progress=False
    )
    assert not few_valued(store).any()
    marked = table.rows[store.has_mask & (store.facts.flat_masks == 0)].tolist()
    masks = [table.reader.read_mask(row).astype(np.uint8) * 255 for row in marked]
    pictures = [table.reader.read(row) for row in marked]
    names = [f"{kind}/{number}.png" for kind in "ab" for number in range(len(masks))]
    found, _ = look([*masks, *pictures], names, np.tile(np.arange(len(masks)) % 2, 2), 64)
    assert len(found) > 0.7 * len(masks)
    assert all(name.startswith("a/") for name in found)
