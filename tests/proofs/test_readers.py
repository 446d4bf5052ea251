"""Simulated readers: a sample of the proof, and that the true figures which it compares with are true."""

import importlib
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def readers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "proofs")
    return importlib.import_module("readers")


def test_the_true_aucs_are_those_of_many_images_and_readers(readers):
    world = readers.World(readers=40, images=4000, auc=0.75, gain=0.06, spread=0.1)
    found = []
    for seed in range(4):
        scores, truth, own, aucs = readers.study(world, np.random.default_rng(seed))
        ranked = readers.mrmc.auc(scores[:, :3], truth).values
        assert np.abs(ranked - own[:, :3]).max() < 0.025
        found.append(own.mean(axis=1))
    assert np.mean(found, axis=0) == pytest.approx(aucs, abs=0.02)


@pytest.mark.parametrize(("count", "most"), [(2, 15), (3, 23), (5, 26)])
def test_no_difference_is_found_where_there_is_none(readers, count, most):
    """Of 300 studies 15 may: the limits are the .99 quantiles of what 2.9 %, 5 % and 5 % give. Without the floor two readers
    find one in 27."""
    world = readers.World(readers=count, images=40, auc=0.75, gain=0.0, spread=0.02)
    assert 300 * readers.many(world, 300, seed=1)["found"] <= most


def test_intervals_hold_what_is_true(readers):
    found = readers.many(readers.World(readers=4, images=80, auc=0.8, gain=0.06, spread=0.05), 200, seed=2)
    for figure in ("held", "with", "own", "times"):
        assert found[figure] >= 0.905, figure  # the .01 quantile of 200 at .95
