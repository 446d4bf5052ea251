import numpy as np
import pytest

from stillroom.explanation.sampling import sampling_order


@pytest.mark.parametrize("cut", [8, 24, 64, 200])
def test_three_of_four_are_positive_however_rare_it_is(cut):
    decided = (np.arange(400) < 150).astype(int)
    order = sampling_order(decided, decided == 1, seed=0)
    assert sorted(order) == list(range(400))
    assert decided[order[:cut]].mean() == pytest.approx(0.75, abs=1 / cut)


def test_what_runs_out_is_filled_up():
    few = (np.arange(100) < 8).astype(int)
    order = sampling_order(few, few == 1, seed=0)
    assert few[order[:12]].sum() == 8
    assert len(order[:32]) == 32
    none = np.zeros(20, dtype=int)
    assert sorted(sampling_order(none, none == 1, seed=0)) == list(range(20))
    every = np.ones(20, dtype=int)
    assert sorted(sampling_order(every, every == 1, seed=0)) == list(range(20))


def test_classes_take_turns_and_luck_decides_within_them():
    decided = np.repeat([0, 1, 2, 3], [200, 60, 30, 5])
    order = sampling_order(decided, np.ones(295, dtype=bool), seed=0)
    assert np.bincount(decided[order[:16]]).tolist() == [4, 4, 4, 4]
    assert np.bincount(decided[order[:32]]).tolist() == [9, 9, 9, 5]
    grades = sampling_order(decided, decided > 0, seed=0)
    assert np.bincount(decided[grades[:20]]).tolist() == [5, 5, 5, 5]
    assert sampling_order(decided, decided > 0, seed=0).tolist() == grades.tolist()
    assert sampling_order(decided, decided > 0, seed=1).tolist() != grades.tolist()
