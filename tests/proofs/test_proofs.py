"""The proofs of `make prove`: what is written down is not done again, and what they look for is seen where it is there."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


@pytest.fixture
def proof(monkeypatch):
    """Import a script of proofs/ by its name."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "proofs")
    return importlib.import_module


def test_a_stopped_proof_goes_on_with_the_next_case(proof, tmp_path):
    done = []

    def case(rng: np.random.Generator, number: int) -> dict:
        if number == 2 and len(done) == 2:
            raise KeyboardInterrupt
        done.append(number)
        return {"drawn": float(rng.random())}

    given = argparse.Namespace(out=tmp_path / "out", seed=3, count=4)
    carry_out = proof("recorded").carry_out
    with pytest.raises(KeyboardInterrupt):
        list(carry_out(given, case))
    (written,) = given.out.glob("seed-3-*.jsonl")
    with written.open("a") as file:
        file.write('{"case": 2, "dr')  # as a kill in the middle of a line leaves it
    done.append(-1)
    found = list(carry_out(given, case))
    assert done == [0, 1, -1, 2, 3]
    assert [line["case"] for line in found] == [0, 1, 2, 3]
    assert [line["drawn"] for line in found] == [np.random.default_rng([3, n]).random() for n in range(4)]
    assert list(carry_out(argparse.Namespace(out=given.out, seed=3, count=2), case)) == found[:2]


def test_every_sort_of_damage_changes_a_file_and_is_fixed_by_its_seed(proof):
    damaged, content = proof("damage").damaged, bytes(range(256)) * 4
    sorts = set()
    for number in range(60):
        how, changed = damaged(content, np.random.default_rng(number))
        assert changed != content
        assert damaged(content, np.random.default_rng(number)) == (how, changed)
        sorts.add(how)
    assert sorts == {"flip", "cut", "zero", "take out", "double", "noise", "empty"}


def test_a_traceback_a_crash_and_a_silent_failure_are_bad_answers(proof):
    verdict = proof("damage").verdict
    assert verdict(0, "") == verdict(2, "x.png cannot be read") == verdict(1, "The run failed") == ""
    assert verdict(-11, "Segmentation fault") == "exit code -11"
    assert verdict(1, "Traceback (most recent call last):\n ...") == "a traceback"
    assert verdict(2, " \n") == "exit code 2 without a word"


@pytest.mark.slow
def test_runs_that_differ_in_one_weight_or_figure_are_not_the_same(proof, tiny_run, tmp_path):
    same = proof("kills").same
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        shutil.copytree(tiny_run.path, path)
        for part in ("student", "control"):  # the frozen teacher has a head alone
            (path / "teacher").mkdir(exist_ok=True)
            shutil.copy(path / part / "model.safetensors", path / "teacher" / "model.safetensors")
    assert same(one, other)
    weights = load_file(other / "student" / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + np.asarray(1, weights[name].dtype)
    save_file(weights, other / "student" / "model.safetensors")
    assert not same(one, other)
    shutil.copy(one / "student" / "model.safetensors", other / "student" / "model.safetensors")
    assert same(one, other)
    figures = json.loads((other / "metrics.json").read_text())
    figures["test"]["student"]["accuracy"]["value"] += 1e-9
    (other / "metrics.json").write_text(json.dumps(figures))
    assert not same(one, other)
