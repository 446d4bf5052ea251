"""The proofs of `make prove`: what is written down is not done again, and what they look for is seen where it is there."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import shutil
import subprocess
import sys
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
    damaged, content = proof("mutations").damaged, bytes(range(256)) * 4
    sorts = set()
    for number in range(60):
        how, changed = damaged(content, np.random.default_rng(number))
        assert changed != content
        assert damaged(content, np.random.default_rng(number)) == (how, changed)
        sorts.add(how)
    assert sorts == {"flip", "cut", "zero", "take out", "double", "noise", "empty"}


def test_more_than_a_line_a_traceback_and_a_wrong_exit_code_are_bad_answers(proof):
    verdict = proof("mutated").verdict
    assert verdict(0, "healthy", "a note") == verdict(2, "", "error: x.png cannot be read\n") == ""
    assert verdict(1, "", "a note\nerror: The run failed\n") == ""
    for code, err in (
        (None, ""),
        (-11, "Segmentation fault"),
        (1, "Traceback (most recent call last):\n ..."),
        (2, " \n"),
        (0, "error: x\n"),
        (2, "error: x\nerror: y\n"),
        (2, "error: \x1b[31m\n"),
        (1, "error: Something went wrong that Stillroom has no words for: KeyError: 'a'.\n"),
    ):
        assert verdict(code, "", err), (code, err)


def test_what_is_changed_in_what_users_give_is_answered_in_one_line(proof, tiny_run, tmp_path):
    mutated = proof("mutated")
    (tmp_path / "work").mkdir()
    mutated.prepare(tmp_path / "work", tiny_run.path)
    kinds = list(mutated.KINDS)
    for number in range(42):
        rng = np.random.default_rng([7, number])
        case = mutated.carried_out(tmp_path / "work", tmp_path / "place", rng, kinds[number % len(kinds)])
        assert not case["failed"], case


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of the odd values that it writes
def test_a_changed_dicom_file_is_shown_or_refused_in_our_own_words(proof, tmp_path):
    mutated_dicom = proof("mutated_dicom")
    small = [path for path in mutated_dicom.originals() if path.stat().st_size < 200_000]
    asked = mutated_dicom.Asked(tmp_path)
    try:
        cases = [mutated_dicom.carried_out(asked, small, np.random.default_rng([9, number])) for number in range(40)]
        (tmp_path / "loud").write_text("no image")
        assert asked(tmp_path / "loud")["images"] == 0
    finally:
        asked.end()
    assert not [case for case in cases if "failed" in case]
    assert sum(bool(case["images"]) for case in cases) > 5
    assert sum(bool(case["reasons"]) for case in cases) > 5


def test_a_process_that_ends_is_a_failed_case(proof, tmp_path, monkeypatch):
    mutated_dicom = proof("mutated_dicom")
    monkeypatch.setattr(mutated_dicom.sys, "executable", shutil.which("false"))
    asked = mutated_dicom.Asked(tmp_path)
    (tmp_path / "case").write_bytes(b"")
    assert "died" in asked(tmp_path / "case")["failed"]


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


def test_every_mutant_is_another_program_and_messages_are_left_alone(proof):
    mutants = proof("mutants")
    code = '''
def share(values: list[float], least: int = 2) -> float | None:
    """Their mean."""
    if len(values) < least or not values:
        raise ValueError(f"{len(values) + 1} are too few")
    total = sum(values) / len(values) - 0.5
    note(total)
    return -total if total > 0 else max_of.max(values)
'''
    places = list(mutants.places(ast.parse(code)))
    assert len(places) == 13
    programs = {ast.unparse(ast.parse(code))}
    for number in range(len(places)):
        tree = ast.parse(code)
        mutants.change(list(mutants.places(tree))[number])
        programs.add(ast.unparse(tree))
        assert "are too few" in ast.unparse(tree)
    assert len(programs) == 1 + len(places)


@pytest.mark.prove
def test_mutants_of_a_file_that_is_tested_to_the_full_are_all_noticed():
    script = Path(__file__).parents[2] / "proofs" / "mutants.py"
    # A process of its own, which has not imported the file yet.
    ran = subprocess.run([sys.executable, script, "ranges.py", "--count", "2"], capture_output=True, text=True)
    assert ran.stdout.splitlines() == ["ranges.py: 2 of 2 noticed", "2 mutants, 2 noticed"], ran.stderr
