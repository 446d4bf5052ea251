"""Sets where a property of the files goes with the class, and sets where none does."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from stillroom.data.shortcuts import _compared, find_shortcuts
from stillroom.data.store import build_store
from stillroom.task import MultiClass, MultiLabel

ILL, WELL = np.zeros(40, int), np.ones(40, int)
TARGETS = np.stack([ILL, WELL], axis=1).ravel()  # by turns


@pytest.fixture
def found(make_table, tmp_path):
    """``found(images, names=None, **columns)``: shortcuts by property."""

    def found(images, names=None, **columns):
        table = make_table(images, stamp=str(len(list(tmp_path.iterdir()))), **({"targets": TARGETS} | columns))
        if names is not None:
            table = replace(table, ids=np.array(names))
        store, table, _ = build_store(table, size=16, fit="pad", cache=tmp_path / str(id(images)), progress=False)
        return {one.property: one for one in find_shortcuts(table, store)}

    return found


def films(rng, sides=None, targets=TARGETS):
    """Noise of 16 x 16, or of sides given by class."""
    return [rng.integers(60, 200, (sides or (lambda ill: (16, 16)))(target == 0), dtype=np.uint8) for target in targets]


def test_nothing_is_said_where_nothing_goes_with_the_class(found):
    """Sizes, kinds, colour and borders vary freely: ten sets, not one word."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        images = films(rng, lambda ill, rng=rng: tuple(rng.integers(12, 24, 2)))
        for row in np.flatnonzero(rng.random(80) < 0.3):
            images[row] = np.stack([images[row], images[row] // 2, images[row]], axis=-1)
        for row in np.flatnonzero(rng.random(80) < 0.3):
            images[row] = np.pad(images[row], [(8, 8), (8, 8), (0, 0)][: images[row].ndim])
        names = [f"{row}{rng.choice(['.png', '.jpg', '.tif'])}" for row in range(80)]
        assert found(images, names) == {}


def test_size_and_shape(found):
    rng = np.random.default_rng(0)
    shortcuts = found(films(rng, lambda ill: (16, 32 if ill else 16)))
    assert set(shortcuts) == {"size", "shape"}
    size = shortcuts["size"]
    assert (size.what, size.name, size.inside, size.outside) == ("are wider than 16 pixels", "ill", 1.0, 0.0)
    assert shortcuts["shape"].what == "are more than 1 times as wide as high"


def test_kind_of_file(found):
    images = films(np.random.default_rng(0))
    names = [f"{row}.{'PNG' if target else ('jpg', 'jpeg')[row % 4 // 2]}" for row, target in enumerate(TARGETS)]
    (kind,) = found(images, names).values()
    assert (kind.property, kind.inside, kind.outside) == ("file kind", 1.0, 0.0)
    assert (kind.what, kind.name) in (("are JPEG files", "ill"), ("are PNG files", "well"))


def test_colour_and_depth(found):
    rng = np.random.default_rng(0)
    images = [
        image if target else np.stack([image, image, image // 2], -1)
        for image, target in zip(films(rng), TARGETS, strict=True)
    ]
    assert set(found(images)) == {"colour", "brightness"}
    deep = [
        image.astype(np.uint16) * (200 if target else 15) for image, target in zip(films(rng), TARGETS, strict=True)
    ]
    (depth,) = found(deep).values()
    assert (depth.property, depth.what, depth.name, depth.inside) == ("depth", "hold values above 4095", "well", 1.0)


@pytest.mark.parametrize("value", [0, 255])
def test_borders(found, value):
    """Half the side, so a quarter of the area, stands in a frame of black or of white: what WhiteIsZero looks like."""
    images = films(np.random.default_rng(0))
    framed = [
        image if target else np.pad(image[:8, :8], 4, constant_values=value)
        for image, target in zip(images, TARGETS, strict=True)
    ]
    (border,) = found(framed).values()
    assert border.property == {0: "black border", 255: "white border"}[value]
    assert (border.name, border.inside, border.outside) == ("ill", 1.0, 0.0)


def test_images_of_one_patient_count_as_one(found):
    """Two patients with forty images each say nothing, eighty patients do."""
    images = films(np.random.default_rng(0), lambda ill: (16, 32 if ill else 16))
    two = [f"p{target}" for target in TARGETS]
    assert found(images, patients=two) == {}
    assert found(images, patients=[f"p{row}" for row in range(80)])
    assert found(images, patients=[""] * 80)


def test_the_strongest_class_of_several_is_named(found):
    targets = np.arange(120) % 3
    images = films(np.random.default_rng(0), lambda ill: (32, 16) if ill else (16, 16), targets)
    shortcuts = found(images, targets=targets, task=MultiClass(("flu", "cold", "none")))
    assert {(one.name, abs(one.inside - one.outside)) for one in shortcuts.values()} == {("flu", 1.0)}
    labels = np.stack([targets == 0, targets == 1], axis=1).astype(np.uint8)
    shortcuts = found(images, targets=labels, task=MultiLabel(("fluid", "air")))
    assert {one.name for one in shortcuts.values()} == {"fluid"}


def test_the_distance_is_that_of_kolmogorov_and_smirnov():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, chosen = rng.integers(0, 12, 70) / 4, rng.random(70) < 0.4
        inside, outside, limit = _compared(values, chosen)
        expected = ks_2samp(values[chosen], values[~chosen])
        assert abs(inside - outside) == pytest.approx(expected.statistic)
        assert (inside, outside) == tuple(pytest.approx((values[part] > limit).mean()) for part in (chosen, ~chosen))
    assert _compared(values, np.ones(70, bool))[:2] == (0, 0)


def test_a_border_is_never_more_than_all_of_an_image(found):
    specks = [np.zeros((64, 64), np.uint8) for _ in TARGETS]
    for row, (image, target) in enumerate(zip(specks, TARGETS, strict=True)):
        image[: 64 if row % 4 == 1 else 2, :2] = 200 * target
    assert found(specks)["black border"].what.endswith("more than 99%")


@pytest.mark.parametrize("marked", [True, False])
def test_no_border_is_looked_for_where_contrast_is_lost(found, marked):
    """Under a mark of 16 bits on every film, and where the films of one class have 12 bits and those of the other 16."""
    images = films(np.random.default_rng(0))
    dark = [image.astype(np.uint16) * 10 + 1500 * int(target) for image, target in zip(images, TARGETS, strict=True)]
    for image, target in zip(dark, TARGETS, strict=True):
        if marked:
            image[:3, :2] = 65535
        elif target:
            image *= 18
    assert "black border" not in found(dark)


def test_a_negative_is_named_by_whatever_class_it_is(found):
    """Noise over a bright field: one class inverted, with the same mean, is found; nothing is, where both are alike."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    field = np.cos(np.pi * x) * np.cos(np.pi * y / 2)
    field = 127.5 + 60 * (field - field.mean())
    films = [(field + rng.normal(0, 25, (16, 16))).clip(0, 255).astype(np.uint8) for _ in TARGETS]
    assert found(films) == {}
    for inverted in (0, 1):
        images = [255 - image if target == inverted else image for image, target in zip(films, TARGETS, strict=True)]
        shortcut = found(images)["brightness"]
        assert (shortcut.inside, shortcut.outside) == (1.0, 0.0)
    several = np.arange(120) % 3
    images = [255 - films[0] if target == 1 else films[row % 80] for row, target in enumerate(several)]
    (shortcut,) = found(images, targets=several, task=MultiClass(("flu", "{cold}", "none"))).values()
    assert (shortcut.name, shortcut.what.split(",")[0]) == ("{cold}", "are dark where flu is bright")


def test_brightness_is_named_where_it_tells_nearly_every_image(found):
    images = films(np.random.default_rng(0))
    brighter = [image if target else image // 2 for image, target in zip(images, TARGETS, strict=True)]
    assert found(brighter)["brightness"].what.startswith("are brighter than ")
    some = [images[row] if row % 8 == 0 else brighter[row] for row in range(80)]
    assert found(some) == {}
