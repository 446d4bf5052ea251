"""Which of several networks is taken: the best, unless chance alone may have put it first."""

import numpy as np
import pytest

from stillroom.run.selection import pick

EVERY = np.arange(100)


def losses(mean, spread=0.0, seed=0, count=100):
    noise = np.random.default_rng(seed).normal(0, 1, count)
    return mean + spread * (noise - noise.mean())  # the mean is exact


def test_the_best_is_taken_where_it_is_clear():
    assert pick({"a": losses(0.5), "b": losses(0.3, 0.1), "c": losses(0.4)}, ["a", "b", "c"], EVERY) == "b"


def test_a_tie_goes_to_the_first_in_order():
    found = {"a": losses(0.5), "b": losses(0.5), "c": losses(0.9)}
    assert pick(found, ["b", "a", "c"], EVERY) == "b"
    assert pick(found, ["c", "a", "b"], EVERY) == "a"


@pytest.mark.parametrize(("gain", "taken"), [(0.8, "first"), (1.2, "second")])
def test_a_standard_error_of_the_paired_difference_decides(gain, taken):
    """Both networks find the same images hard, which says nothing of which is better."""
    hard = losses(1.0, 5.0, seed=1)
    apart = losses(0.0, 1.0, seed=2)
    error = apart.std(ddof=1) / 10
    found = {"first": hard, "second": hard - gain * error + apart}
    assert pick(found, ["first", "second"], EVERY) == taken


def test_images_of_one_patient_are_one_observation():
    """Ten images a patient that say the same are worth as much as one: the error is larger by the root of ten."""
    apart = losses(0.0, 1.0, seed=2, count=10)
    error = apart.std(ddof=1) / np.sqrt(10)
    first = np.zeros(100)
    second = np.repeat(apart - 0.9 * error, 10)
    patients = np.repeat(np.arange(10), 10)
    assert pick({"first": first, "second": second}, ["first", "second"], EVERY) == "second"
    assert pick({"first": first, "second": second}, ["first", "second"], patients) == "first"


def test_too_few_images_choose_nothing():
    few = {"first": losses(9.0, count=19), "second": losses(0.1, count=19)}
    assert pick(few, ["first", "second"], np.arange(19)) == "first"
    enough = {name: losses(value.mean(), count=20) for name, value in few.items()}
    assert pick(enough, ["first", "second"], np.arange(20)) == "second"
