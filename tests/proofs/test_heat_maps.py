"""A sample of proofs/heat_maps.py: verdicts on maps whose truth is known."""

import importlib
from pathlib import Path

import pytest

from stillroom.explanation.claims import FAITHFUL, NOT_FAITHFUL, NOT_SHOWN

STUDIES = 20


@pytest.fixture
def proof(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "proofs")
    return importlib.import_module("heat_maps")


@pytest.mark.parametrize("kind", ["1 % corner", "2 % centre", "10 % centre", "5 % anywhere", "texture"])
def test_perfect_maps_are_faithful_and_wrong_ones_never(proof, kind):
    """With ten equal steps, defeats by the blob in the middle, and negative images, the first of these failed."""
    pool = proof.measured(proof.planted(kind, 1, count=60), 1)
    found = proof.studies(pool, drawn=24, positives=200, count=STUDIES, seed=1)
    assert found["perfect"][FAITHFUL] >= 0.9 * STUDIES
    for name in (*proof.WRONG, "centre"):
        assert found[name][FAITHFUL] == 0
        assert found[name][NOT_FAITHFUL] >= STUDIES / 2
    few = proof.studies(pool, drawn=32, positives=8, count=3, seed=1)
    assert few["perfect"][NOT_SHOWN] == 3


def test_of_the_brightness_of_all_no_map_is_faithful(proof):
    pool = proof.measured(proof.planted("brightness", 1, count=60), 1)
    found = proof.studies(pool, drawn=24, positives=200, count=STUDIES, seed=1)
    assert all(counted[FAITHFUL] == 0 for counted in found.values())


def test_coarse_maps_of_a_small_place_do_not_look_as_good_as_the_truth(proof):
    pool = proof.measured(proof.planted("1 % corner", 1, count=60), 1)
    assert pool.gaps["perfect"].mean() > pool.gaps["8 places"].mean() + 0.1 > pool.gaps["random"].mean() + 0.3
