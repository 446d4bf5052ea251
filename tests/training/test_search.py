"""The search: it finds a maximum, goes on where it stopped, and survives points that diverge."""

import pytest

from stillroom.errors import RunError, UsageError
from stillroom.training.search import Range, search

pytest.importorskip("optuna")
SPACE = {"x": Range(-2, 2), "y": Range(1e-4, 1, log=True)}


def test_it_finds_a_maximum(tmp_path):
    found = search(tmp_path / "a.db", SPACE, lambda p: -((p["x"] - 1) ** 2) - p["y"], trials=40, seed=0)
    assert found["x"] == pytest.approx(1, abs=0.3)
    assert found["y"] < 0.1


def test_a_stopped_search_goes_on_with_new_points(tmp_path):
    seen = []

    def score(point):
        if len(seen) == 4:
            seen.append(None)
            raise KeyboardInterrupt
        seen.append(point["x"])
        return point["x"]

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "b.db", SPACE, score, trials=8, seed=0)
    best = search(tmp_path / "b.db", SPACE, score, trials=8, seed=0)
    points = [x for x in seen if x is not None]
    assert len(points) == 8  # the one that was cut short does not count
    assert len(set(points)) == len(points)
    assert best["x"] == max(points)
    again = search(tmp_path / "b.db", SPACE, lambda p: pytest.fail("nothing is left to try"), trials=8, seed=0)
    assert again == best


def test_points_that_diverge_are_passed_over(tmp_path):
    def score(point):
        if point["x"] > 0:
            raise RunError("diverged")
        return point["x"]

    assert search(tmp_path / "c.db", SPACE, score, trials=12, seed=0)["x"] <= 0
    for undefined in ("nan", "-inf"):
        with pytest.raises(UsageError, match="No trial"):
            search(tmp_path / f"{undefined}.db", SPACE, lambda p, u=undefined: float(u), trials=2, seed=0)
