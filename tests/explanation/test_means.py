import numpy as np
import pytest

from stillroom.evaluation.intervals import wilson
from stillroom.explanation.means import count_units, mean_with_interval


def test_the_interval_is_that_of_a_bootstrap_by_repetition():
    values = np.random.default_rng(0).normal(0.3, 1.0, 80)
    found = mean_with_interval(values, None, 4000, seed=1)
    rng = np.random.default_rng(5)
    means = [rng.choice(values, len(values)).mean() for _ in range(4000)]
    assert found["value"] == pytest.approx(values.mean())
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist(), abs=0.02)


def test_images_of_a_patient_stand_or_fall_together():
    values = np.repeat(np.random.default_rng(0).normal(size=10), 8)
    patients = np.repeat([f"p{k}" for k in range(10)], 8)
    alone, together = (mean_with_interval(values, groups, 2000, seed=0) for groups in (None, patients))
    # Eight copies of an image say nothing new: the interval is that of ten values.
    ratio = (together["high"] - together["low"]) / (alone["high"] - alone["low"])
    assert ratio == pytest.approx(8**0.5, rel=0.1)


def test_images_without_a_value_are_left_out():
    values = np.array([1.0, np.nan, 3.0, np.nan])
    found = mean_with_interval(values, None, 500, seed=0)
    assert found == {"value": 2.0, "low": 1.0, "high": 3.0}


def test_nothing_is_none_and_one_image_or_patient_has_no_interval():
    assert mean_with_interval(np.full(3, np.nan), None, 50, seed=0) == {"value": None, "low": None, "high": None}
    assert mean_with_interval(np.array([0.5]), None, 50, seed=0) == {"value": 0.5, "low": None, "high": None}
    one = mean_with_interval(np.array([0.2, 0.4]), np.array(["a", "a"]), 50, seed=0)
    assert one == {"value": pytest.approx(0.3), "low": None, "high": None}
    assert mean_with_interval(np.array([0.2, 0.4]), None, 0, seed=0)["low"] is None


def test_a_share_on_which_all_agree_has_wilsons_interval():
    found = mean_with_interval(np.ones(12), None, 100, seed=0, share=True)
    assert (found["low"], found["high"]) == wilson(12, 12)
    assert mean_with_interval(np.ones(12), None, 100, seed=0)["low"] == 1


def test_units_are_images_or_patients():
    chosen = np.array([True, True, True, False])
    assert count_units(None, chosen) == 3
    assert count_units(np.array(["a", "a", "", "b"]), chosen) == 2
