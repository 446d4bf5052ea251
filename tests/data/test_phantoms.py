"""The phantoms: the same for ever, honest masks, and not solvable by their pixels' values alone."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from stillroom.data.sources.phantom_brushes import SIDE
from stillroom.data.sources.phantom_drawing import sample_anatomy
from stillroom.data.sources.phantoms import BLOCK, CLASSES, VERSION, read_phantoms
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings


def table(count: int = 120, seed: int = 0, **settings):
    return read_phantoms(f"phantoms:{count}", DataSettings(**settings), seed)


def pixels(phantoms) -> np.ndarray:
    return np.stack([phantoms.reader.read(int(row)) for row in phantoms.rows])


def test_table_says_what_it_is():
    phantoms = table(120)
    assert (phantoms.name, phantoms.synthetic, phantoms.has_masks) == ("phantoms", True, True)
    assert "synthetic" in phantoms.source
    assert "120" in phantoms.source
    assert phantoms.task.classes == CLASSES
    assert phantoms.task.kind == "multiclass"
    assert len(phantoms) == len(set(phantoms.ids)) == 120
    assert phantoms.ids[0] == "P0001/0"
    assert phantoms.patients[0] == "P0001"
    assert (phantoms.splits == "").all()
    assert phantoms.targets.dtype == np.int64
    assert len(read_phantoms("phantoms", DataSettings())) == 1200


@pytest.mark.parametrize(
    "source", ["phantoms:", "phantoms:0", "phantoms:-3", "phantoms:many", "phantoms:1.5", "phantom"]
)
def test_bad_sources_are_refused(source):
    with pytest.raises(UsageError, match="phantoms:1200"):
        read_phantoms(source, DataSettings())


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="multilabel"):
        table(task="multilabel")
    with pytest.raises(UsageError, match="effusion"):
        table(classes=("normal", "nodule"))


def test_classes_may_be_reordered():
    turned = table(60, classes=CLASSES[::-1])
    assert turned.task.names(turned.targets) == table(60).task.names(table(60).targets)
    assert table(60, task="ordinal").task.kind == "ordinal"


def test_images_are_grey_bytes_and_masks_are_of_their_size():
    phantoms = table(60)
    for row, target in zip(phantoms.rows, phantoms.targets, strict=True):
        image, mask = phantoms.reader.read(int(row)), phantoms.reader.read_mask(int(row))
        assert image.shape == (SIDE, SIDE)
        assert image.dtype == np.uint8
        assert image.std() > 10
        if CLASSES[target] == "normal":
            assert mask is None
        else:
            assert mask.shape == image.shape
            assert mask.dtype == bool
            assert 20 < mask.sum() < SIDE * SIDE / 4


def test_same_seed_same_bytes_in_any_order_and_any_count():
    first, second = table(80, seed=3), table(140, seed=3)
    forwards = pixels(first)
    backwards = [second.reader.read(row) for row in range(79, -1, -1)]
    assert np.array_equal(forwards, backwards[::-1])
    assert (first.ids == second.ids[:80]).all()
    assert (first.targets == second.targets[:80]).all()
    assert first.reader.made_of(5) == second.reader.made_of(5)


def test_no_two_films_are_alike_and_seeds_differ():
    one, other = table(100, seed=0), table(100, seed=1)
    assert len({image.tobytes() for table_ in (one, other) for image in pixels(table_)}) == 200
    assert (one.targets != other.targets).any()


def test_what_it_is_made_of_changes_with_all_that_changes_pixels():
    reader = table(10).reader
    assert len({reader.made_of(0), reader.made_of(1), replace(reader, seed=1).made_of(0)}) == 3
    assert f"size {SIDE}" in reader.made_of(0)


def test_pixels_do_not_change_without_a_new_version():
    """Stored arrays are known by their reader's word: whoever changes the drawing raises VERSION, and then this picture."""
    image = table(40).reader.read(4)
    blocks = image.reshape(4, 32, 4, 32).mean((1, 3))
    known = [[82, 140, 140, 101], [126, 133, 129, 125], [113, 163, 176, 105], [163, 207, 211, 190]]
    assert VERSION == 2
    np.testing.assert_allclose(blocks, known, atol=1)


def test_classes_keep_their_shares_and_patients_their_class():
    phantoms = table(1200)
    shares = np.bincount(phantoms.targets, minlength=4) / 1200
    assert np.abs(shares - np.array(BLOCK) / sum(BLOCK)).max() < 0.05
    assert (np.bincount(table(120).targets, minlength=4) >= 5).all()
    names, films = np.unique(phantoms.patients, return_counts=True)
    assert set(films) == {1, 2, 3}
    for name in names:
        assert len(set(phantoms.targets[phantoms.patients == name])) == 1


def test_films_of_one_patient_show_one_anatomy():
    """Two films of a patient resemble each other more than films of two patients do."""
    phantoms = table(200)
    images = pixels(phantoms)[:, ::4, ::4].reshape(200, -1).astype(np.float64)
    alike = np.corrcoef(images)
    same = (phantoms.patients[:, None] == phantoms.patients) & ~np.eye(200, dtype=bool)
    assert alike[same].mean() > alike[phantoms.patients[:, None] != phantoms.patients].mean() + 0.03
    assert sample_anatomy(np.random.default_rng(5)) == sample_anatomy(np.random.default_rng(5))


def test_mask_is_where_the_lesion_changes_the_film():
    phantoms = table(200)
    inside, outside, kept = [], [], []
    for row in np.flatnonzero(phantoms.targets > 0):
        image, mask = phantoms.reader.draw(int(row))
        healthy, nothing = phantoms.reader.draw(int(row), with_lesion=False)
        assert nothing is None
        change = np.abs(image.astype(int) - healthy)
        near = _grown(mask, 6)
        inside.append(change[mask].mean())
        outside.append(change[~near].max())
        kept.append(change[near].sum() / max(change.sum(), 1))
    assert np.median(inside) > 15
    assert np.mean(np.array(inside) > 2) > 0.95  # a few lesions are almost invisible on purpose
    assert np.median(outside) <= 1
    assert np.median(kept) > 0.98


def test_a_healthy_film_has_no_lesion_to_take_away():
    phantoms = table(40)
    row = int(np.flatnonzero(phantoms.targets == 0)[0])
    assert np.array_equal(phantoms.reader.read(row), phantoms.reader.draw(row, with_lesion=False)[0])


@pytest.mark.slow
def test_brightness_and_contrast_say_little_of_the_class():
    phantoms = table(1200)
    images = pixels(phantoms)
    for figure in (
        images.mean((1, 2)),
        images.std((1, 2)),
        np.median(images, (1, 2)),
        images[:, :16].mean((1, 2)),
    ):
        for target in range(len(CLASSES)):
            auc = roc_auc_score(phantoms.targets == target, figure)
            assert max(auc, 1 - auc) < 0.65


@pytest.mark.slow
def test_a_linear_model_on_pixels_fails():
    phantoms = table(1200)
    cut = int(np.flatnonzero(phantoms.patients == phantoms.patients[900])[0])  # no patient on both sides
    small = pixels(phantoms).reshape(1200, 32, 4, 32, 4).mean((2, 4)).reshape(1200, -1)
    train, test = small[:cut], small[cut:]
    scaler = StandardScaler().fit(train)
    scores = []
    for penalty in (1e-5, 1e-4, 1e-3, 1e-2):
        model = LogisticRegression(C=penalty, max_iter=300).fit(scaler.transform(train), phantoms.targets[:cut])
        chances = model.predict_proba(scaler.transform(test))
        scores.append(roc_auc_score(phantoms.targets[cut:], chances, multi_class="ovr"))
    assert 0.45 < max(scores) < 0.75


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """The mask and all within ``reach`` pixels of it, along rows and columns."""
    for axis in (0, 1):
        mask = np.any([np.roll(mask, shift, axis) for shift in range(-reach, reach + 1)], axis=0)
    return mask
