"""Slices of the labelled images: disjoint, of the size wanted, with every class, and nested where they should be."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.data.images import endless
from stillroom.data.slices import stratified_slices
from stillroom.errors import UsageError


def one_hot(kinds):
    return np.eye(kinds.max() + 1, dtype=int)[kinds]


@given(
    sizes=st.lists(st.integers(8, 60), min_size=2, max_size=4),
    count=st.integers(1, 4),
    share=st.floats(0.05, 1.0),
    seed=st.integers(0, 5),
)
def test_slices_are_disjoint_and_stratified(sizes, count, share, seed):
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.arange(len(kinds)) * 3 + 1
    slices = stratified_slices(one_hot(kinds), rows, count, share / count, (seed,))
    joined = np.concatenate(slices)
    assert len(slices) == count
    assert len(np.unique(joined)) == len(joined)
    assert np.isin(joined, rows).all()
    for part in slices:
        assert (np.diff(part) > 0).all() or len(part) == 1
        for kind, size in enumerate(sizes):
            found = (kinds[(part - 1) // 3] == kind).sum()
            assert 1 <= found <= max(1, np.ceil(size * share / count))


def test_a_smaller_fraction_is_part_of_a_larger_one():
    kinds, rows = np.arange(300) % 3, np.arange(300)
    parts = [set(stratified_slices(one_hot(kinds), rows, 1, share, (4,))[0]) for share in (0.01, 0.05, 0.1, 0.5, 1.0)]
    assert all(small < large for small, large in pairwise(parts))
    assert [len(part) for part in parts] == [3, 15, 30, 150, 300]


def test_another_seed_deals_other_rows():
    kinds, rows = np.arange(100) % 2, np.arange(100)
    first, second = (stratified_slices(one_hot(kinds), rows, 1, 0.2, (seed,))[0].tolist() for seed in (0, 1))
    assert first != second


def test_rows_of_several_labels_are_dealt_by_their_rarest_and_rows_of_none_too():
    labels = np.zeros((40, 3), dtype=int)
    labels[:30, 0] = 1  # common
    labels[:4, 2] = 1  # rare, beside the common one
    slices = stratified_slices(labels, np.arange(40), 2, 0.5, (0,))
    for part in slices:
        assert labels[part, 2].sum() == 2
        assert (labels[part].sum(axis=1) == 0).sum() == 5


@pytest.mark.parametrize(("count", "fraction"), [(3, 0.5), (1, 0.0), (1, 1.5)])
def test_slices_that_do_not_fit_are_refused(count, fraction):
    with pytest.raises(UsageError, match="do not fit"):
        stratified_slices(one_hot(np.arange(20) % 2), np.arange(20), count, fraction, (0,))


def test_a_class_smaller_than_the_number_of_slices_is_refused():
    with pytest.raises(UsageError, match=r"Class number 2 has 2 labelled training images, too few for 3 slices"):
        stratified_slices(one_hot(np.array([0] * 20 + [1] * 2)), np.arange(22), 3, 0.1, (0,))


@given(count=st.integers(1, 20), size=st.integers(1, 30), seed=st.integers(0, 3))
def test_endless_rows_come_round_evenly(count, size, seed):
    found = np.concatenate([endless(count, size, step, seed) for step in range(12)])
    for turn in range(len(found) // count):
        assert sorted(found[turn * count : (turn + 1) * count]) == list(range(count))
    assert (endless(count, size, 5, seed) == found[5 * size : 6 * size]).all()
