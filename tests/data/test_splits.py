"""What a split promises: kept where given, whole patients, close to the fractions, fixed by ids and seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stillroom.data.splits import assign_splits, take_fold
from stillroom.data.table import Table
from stillroom.errors import UsageError
from stillroom.task import MultiClass, MultiLabel


class NoPixels:
    def read(self, index):
        raise AssertionError("a split needs no pixels")

    read_mask = made_of = read


def make(targets, splits="", patients=None, ids=None, classes=None):
    targets = np.asarray(targets)
    n = len(targets)
    if targets.ndim == 2:
        task = MultiLabel(classes or tuple(f"l{k}" for k in range(targets.shape[1])))
    else:
        task = MultiClass(classes or tuple(f"c{k}" for k in range(int(targets.max()) + 1)))
    return Table(
        name="toy",
        source="toy images",
        task=task,
        ids=np.array([f"{i}.png" for i in range(n)] if ids is None else ids),
        targets=targets,
        splits=np.array([splits] * n if isinstance(splits, str) else splits),
        rows=np.arange(n),
        reader=NoPixels(),
        patients=None if patients is None else np.array(patients),
    )


def cut(table, val=0.15, test=0.2, seed=0, groups=None):
    return assign_splits(table, val_fraction=val, test_fraction=test, seed=seed, groups=groups)


def sides(table, labels):
    """Which splits each value of ``labels`` is found in."""
    return {label: set(table.splits[labels == label]) for label in np.unique(labels)}


def test_fractions_are_exact_without_groups():
    table = cut(make(np.repeat([0, 1, 2], [600, 300, 100])))
    assert "test (20%) and val (15%) cut from it with seed 0" in table.source
    for k, n in enumerate([600, 300, 100]):
        per = {s: int((table.targets[table.splits == s] == k).sum()) for s in ("train", "val", "test")}
        assert per == {"test": n * 20 // 100, "val": n * 12 // 100, "train": n * 68 // 100}


def test_same_ids_and_seed_give_the_same_split_in_any_row_order():
    rng = np.random.default_rng(1)
    table = make(rng.integers(0, 3, 400), patients=[f"p{i}" for i in rng.integers(0, 120, 400)])
    groups = np.where(np.arange(400) < 60, np.arange(400) // 3, np.arange(400))
    order = rng.permutation(400)
    straight = cut(table, groups=groups)
    shuffled = cut(table.take(order), groups=900 - groups[order] * 2)  # other numbers, the same partition
    assert dict(zip(straight.ids, straight.splits, strict=True)) == dict(
        zip(shuffled.ids, shuffled.splits, strict=True)
    )
    assert (cut(table, groups=groups).splits == straight.splits).all()
    assert (cut(table, groups=groups, seed=1).splits != straight.splits).any()


def test_the_draw_does_not_follow_the_names():
    """Ids in order of time must not put the last ones into the test split."""
    table = cut(make(np.arange(2000) % 2))
    position = np.flatnonzero(table.splits == "test") / 2000
    assert abs(position.mean() - 0.5) < 0.05
    assert abs(position.std() - np.sqrt(1 / 12)) < 0.03


@pytest.mark.parametrize("trial", range(25))
def test_random_groups_stay_whole_and_close_to_the_fractions(trial):
    rng = np.random.default_rng(trial)
    classes = int(rng.integers(2, 7))
    patient_count = int(rng.integers(60, 400))
    sizes = rng.integers(1, 6, patient_count)
    own = rng.choice(classes, patient_count, p=rng.dirichlet(np.full(classes, 3.0)))
    own[: 4 * classes] = np.tile(np.arange(classes), 4)  # at least four patients each
    patients = np.repeat(np.arange(patient_count), sizes)
    targets = np.repeat(own, sizes)
    mixed = rng.random(len(targets)) < (0.1 if trial % 2 else 0.0)  # some patients have several classes
    targets = np.where(mixed, rng.integers(0, classes, len(targets)), targets)
    table = cut(make(targets, patients=patients.astype(str)), seed=trial)

    assert all(len(found) == 1 for found in sides(table, patients).values())
    total = np.bincount(targets, minlength=classes)
    test = np.bincount(targets[table.splits == "test"], minlength=classes)
    val = np.bincount(targets[table.splits == "val"], minlength=classes)
    assert (test >= 1).all()
    assert (val >= 1).all()
    assert (total - test - val >= 1).all()
    assert abs(test.sum() / total.sum() - 0.2) < 0.02
    assert abs(val.sum() / (total - test).sum() - 0.15) < 0.02
    # Within a couple of percent, or within one small patient where a class has few images.
    assert (np.abs(test - 0.2 * total) <= np.maximum(0.02 * total, 3)).all()
    assert (np.abs(val - 0.15 * (total - test)) <= np.maximum(0.02 * total, 3)).all()


@pytest.mark.parametrize("trial", range(40))
def test_every_class_reaches_every_side_where_its_groups_go_round(trial):
    """Against a brute count: pure patients, few per class, of any size."""
    rng = np.random.default_rng(1000 + trial)
    per_class = rng.integers(1, 6, 4)
    per_class[0] = 8
    own = np.repeat(np.arange(4), per_class)
    sizes = rng.integers(1, 30, len(own))
    patients, targets = np.repeat(np.arange(len(own)), sizes), np.repeat(own, sizes)
    table = cut(make(targets, patients=patients.astype(str)), seed=trial)
    for k, count in enumerate(per_class):
        found = set(table.splits[targets == k])
        assert found >= ({"train"} if count == 1 else {"train", "val"} if count == 2 else {"train", "val", "test"})


def test_patients_are_not_chosen_by_their_size():
    """A test split of the largest patients (or the smallest) would not be like the rest."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 21, 500)
    patients = np.repeat(np.arange(500), sizes)
    own = np.arange(500) % 3
    means = []
    for seed in range(5):
        table = cut(make(own[patients], patients=patients.astype(str)), seed=seed)
        means.append(sizes[np.unique(patients[table.splits == "test"])].mean())
    assert abs(np.mean(means) - sizes.mean()) < 1


def test_patients_and_duplicate_groups_join_into_one():
    patients = np.array(["a", "a", "", "", "b", "b"] + [""] * 60)
    groups = np.array([0, 1, 1, 2, 2, 3, *range(10, 70)])  # a - 1 - image 2 | image 3 - 2 - b
    chained = np.array([0, 0, 0, 1, 1, 1])
    seen = set()
    for seed in range(40):
        table = cut(make(np.arange(66) % 2, patients=patients), seed=seed, groups=groups)
        found = sides(table.take(np.arange(6)), chained)
        assert all(len(side) == 1 for side in found.values())
        seen |= {(*found[0], *found[1])}
    assert len(seen) > 2  # they move, and not together


def test_unknown_patients_are_not_one_patient():
    table = cut(make(np.arange(100) % 2, patients=[""] * 100))
    assert (table.splits == "test").sum() == 20


def test_given_splits_are_kept_and_only_missing_ones_cut():
    given = ["train"] * 200 + ["test"] * 50
    table = cut(make(np.arange(250) % 2, given))
    assert (table.splits[200:] == "test").all()
    assert {s: int((table.splits[:200] == s).sum()) for s in ("train", "val")} == {"train": 170, "val": 30}
    assert table.source == "toy images; val (15%) cut from train with seed 0"

    table = cut(make(np.arange(250) % 2, ["train"] * 200 + ["val"] * 50))
    assert (table.splits[200:] == "val").all()
    assert (table.splits[:200] == "test").sum() == 40
    assert table.source == "toy images; test (20%) cut from train with seed 0"


def test_complete_split_is_untouched():
    splits = ["train", "train", "val", "test"] * 5
    table = make(np.arange(20) // 4 % 2, splits, patients=["same"] * 20)  # on all sides, as given
    result = cut(table)
    assert result.splits.tolist() == splits
    assert result.source == table.source


def test_given_leak_is_kept_and_not_spread():
    """A patient in train and test stays so; the validation split is cut from others."""
    patients = ["leak"] * 40 + [f"p{i}" for i in range(100)]
    splits = ["train"] * 20 + ["test"] * 20 + ["train"] * 100
    table = cut(make(np.arange(140) % 2, splits, patients=patients))
    assert table.splits[:40].tolist() == splits[:40]
    assert (table.splits[40:] == "val").sum() == 15


def test_rows_without_a_split_join_train_or_their_patient():
    splits = np.array(["test"] * 10 + ["val"] * 10 + ["train"] * 10 + [""] * 9)
    patients = ["t"] * 10 + ["v"] * 10 + ["x"] * 10 + ["t", "v", "x", "", "new", "new", "t", "", ""]
    table = cut(make(np.arange(39) % 2, splits, patients=patients))
    assert table.splits[30:].tolist() == ["test", "val", "train", "train", "train", "train", "test", "train", "train"]
    assert (table.splits[:30] == splits[:30]).all()


def test_a_test_column_alone_leaves_the_rest_to_be_cut():
    table = cut(make(np.arange(120) % 2, ["test"] * 20 + [""] * 100))
    assert {s: int((table.splits == s).sum()) for s in ("train", "val", "test")} == {
        "train": 85,
        "val": 15,
        "test": 20,
    }


def test_no_training_images_is_an_error():
    with pytest.raises(UsageError, match="toy has test images only"):
        cut(make([0, 1, 0, 1], "test"))
    with pytest.raises(UsageError, match="toy has val and test images only"):
        cut(make([0, 1, 0, 1], ["val", "val", "test", "test"]))


def test_class_without_training_image_is_an_error():
    with pytest.raises(UsageError, match="no training image of 'c2'"):
        cut(make([0, 1] * 10 + [2], ["train"] * 20 + ["test"]))


def test_too_few_to_cut_is_an_error():
    with pytest.raises(UsageError, match="too few images or patients to cut a test split"):
        cut(make([0, 1] * 20, patients=["one"] * 40))
    table = replace(make([0, 1] * 20, patients=["one", "two"] * 20), patient_column="who")
    with pytest.raises(UsageError, match=r"The column 'who' makes 2 patients of them: .*`--patient-column none`"):
        cut(table)
    with pytest.raises(UsageError, match="Near duplicates, which stay together, make 1 group of them"):
        cut(table, groups=np.zeros(40, np.int64))
    with pytest.raises(UsageError, match="too few"):
        cut(make([0, 0, 1, 1]))


@pytest.mark.parametrize("fraction", [0, -0.1, 0.9, 1, float("nan")])
def test_fractions_out_of_range(fraction):
    table = make(np.arange(40) % 2)
    with pytest.raises(UsageError, match="`val_fraction`"):
        cut(table, val=fraction)
    with pytest.raises(UsageError, match="`test_fraction`"):
        cut(table, test=fraction)


def test_rare_labels_are_spread_in_multi_label():
    rng = np.random.default_rng(5)
    targets = (rng.random((3000, 4)) < [0.4, 0.2, 0.05, 0.02]).astype(np.uint8)
    table = cut(make(targets))
    share = targets[table.splits == "test"].sum(axis=0) / targets.sum(axis=0)
    assert np.abs(share - 0.2).max() < 0.04
    assert abs((table.splits == "test").mean() - 0.2) < 0.005


# -- folds ------------------------------------------------------------------------------------------------------------
def folds(table, count, **more):
    return [take_fold(table, number, count, val_fraction=0.15, seed=0, **more) for number in range(1, count + 1)]


def test_every_image_is_tested_in_one_fold_with_its_patient_and_its_copies():
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 3, 300)
    patients, copies = np.array([f"p{i}" for i in rng.integers(0, 90, 300)]), np.arange(300)
    copies[rng.permutation(300)[:20]] = np.repeat(np.arange(300, 310), 2)  # ten pairs, most of two patients
    tables = folds(make(targets, patients=patients), 5, groups=copies)
    tested = np.stack([table.splits == "test" for table in tables])
    assert (tested.sum(axis=0) == 1).all()
    for table in tables:
        assert all(len(found) == 1 for found in sides(table, patients).values())
        assert all(len(found) == 1 for found in sides(table, copies).values())
        assert set(table.splits) == {"train", "val", "test"}


def test_folds_hold_equal_shares_of_each_class():
    for table in folds(make(np.repeat([0, 1, 2], [100, 50, 10])), 5):
        assert np.bincount(table.targets[table.splits == "test"]).tolist() == [20, 10, 2]


def test_a_split_that_the_source_gives_is_set_aside_and_said_so():
    table = make(np.repeat([0, 1], 30), splits=["train"] * 50 + ["test"] * 10)
    first, second = folds(table, 2)
    assert (first.splits == "test").sum() == 30
    assert "fold 1 of 2, in place of its own split, cut with seed 0" in first.source
    assert ((first.splits == "test") ^ (second.splits == "test")).all()


def test_too_few_for_so_many_folds():
    with pytest.raises(UsageError, match="too few images or patients for 5 folds"):
        folds(make(np.repeat([0, 1], 20), patients=["a"] * 20 + ["b"] * 20), 5)
    with pytest.raises(UsageError, match="too few images or patients of 'c1' for 3 folds"):
        folds(make(np.repeat([0, 1], [30, 1])), 3)
