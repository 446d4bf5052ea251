"""The proof of malformed requests: a share of it, and that it would see what it looks for."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from ..serving.conftest import model

__all__ = ["model"]


@pytest.fixture(scope="module")
def proof():
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    pytest.importorskip("highdicom", reason="highdicom is not installed: `pip install 'stillroom[dicom]'`")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(Path(__file__).parents[2] / "proofs")
        yield importlib.import_module("malformed")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # pydicom's, of the odd values that it is asked to write
def test_200_malformed_requests_are_refused_or_answered_and_so_is_the_next_good_one(proof, model, tmp_path):
    server = proof.Server(model, seed=1)
    try:
        cases = [
            proof.carried_out(server, np.random.default_rng([1, number]), number, tmp_path) for number in range(200)
        ]
    finally:
        server.end()
    assert [case for case in cases if "failed" in case] == []
    assert {case["kind"] for case in cases} == {"description", "images", "DICOM", "tensors", "bytes"}
    assert {"200", "400", "404", "409", "422"} <= {case["status"] for case in cases}


def test_failures_leaks_and_odd_lines_would_be_seen(proof):
    assert [bool(proof.bad_status(status)) for status in ("200", "422", "closed", "500", "503", "no answer")] == [
        *(False, False, False, True, True, True)
    ]
    good = '{"event": "request", "status": 400}\n'
    bad = ('{"event": "failure", "error": "KeyError"}\n', "Traceback (most recent call last):\n", "x\n")
    assert not proof.bad_line(good)
    assert all(map(proof.bad_line, bad))
    flat = [{"server": 1, "megabytes": 100 + 90 * (number > 5)} for number in range(100)]
    leaking = [{"server": 1, "megabytes": 100 + number} for number in range(100)]
    assert proof.grown(flat) == 0
    assert proof.grown(leaking) > 20
